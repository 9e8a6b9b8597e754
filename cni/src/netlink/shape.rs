use super::{NetlinkError, Rtnl};
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

/// include/uapi/linux/pkt_sched.h, `TCA_TBF_*`.
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// `TC_LINKLAYER_ETHERNET`: the kernel reckons sizes itself, and wants no table.
const ETHERNET: u8 = 1;

/// How long a packet waits at most; containernetworking/plugins
/// plugins/meta/bandwidth `latencyInMillis`.
const LATENCY_MS: u64 = 25;
/// A burst is what a tenth of a second lets through, but at least one of the large
/// packets that the kernel handles as a whole.
const BURST_PARTS: u64 = 10;
const BURST_MIN: u64 = 64 << 10;

impl Rtnl {
    /// Lets an interface send at most so many bits a second: what is more waits, then is lost.
    pub fn set_rate(&self, index: u32, bits: u64) -> Result<(), NetlinkError> {
        let mut message = TcMessage::with_index(index as i32);
        message.header.parent = TcHandle::ROOT;
        message.attributes = vec![
            TcAttribute::Kind("tbf".to_owned()),
            TcAttribute::Options(token_bucket(bits)),
        ];
        let request = RouteNetlinkMessage::NewQueueDiscipline(message);
        let done = self.order(request, NLM_F_CREATE | NLM_F_REPLACE);
        done.map_err(|e| NetlinkError::new("limit (with sch_tbf) link", index.to_string(), e))
    }
}

/// Options of a token bucket filter.
fn token_bucket(bits: u64) -> Vec<TcOption> {
    let rate = (bits / 8).max(1);
    let burst = (rate / BURST_PARTS).max(BURST_MIN);
    let limit = burst + rate * LATENCY_MS / 1000;
    let word = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_ne_bytes();
    // struct tc_tbf_qopt: two tc_ratespec, limit, buffer, mtu.
    let mut parameters = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    parameters.extend(word(rate));
    parameters.extend([0; 12]);
    parameters.extend(word(limit));
    parameters.extend([0; 8]);
    let option = |kind, value: Vec<u8>| TcOption::Other(DefaultNla::new(kind, value));
    let mut options = vec![
        option(TCA_TBF_PARMS, parameters),
        option(TCA_TBF_BURST, word(burst).to_vec()),
    ];
    if rate > u64::from(u32::MAX) {
        options.push(option(TCA_TBF_RATE64, rate.to_ne_bytes().to_vec()));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::Nla;

    fn value(option: &TcOption) -> Vec<u8> {
        let mut bytes = vec![0; option.value_len()];
        option.emit_value(&mut bytes);
        bytes
    }

    #[test]
    fn token_bucket_is_laid_out_as_the_kernel_reads_it() {
        let options = token_bucket(8_000_000);
        assert_eq!(options.len(), 2);
        let parameters = value(&options[0]);
        assert_eq!(parameters.len(), 36);
        assert_eq!(parameters[8..12], 1_000_000_u32.to_ne_bytes());
        assert_eq!(parameters[24..28], (100_000 + 25_000_u32).to_ne_bytes());
        assert_eq!(value(&options[1]), 100_000_u32.to_ne_bytes());
    }

    #[test]
    fn rate_of_more_than_32_bits_has_an_option_of_its_own() {
        let options = token_bucket(80 << 30);
        assert_eq!(value(&options[2]), (10_u64 << 30).to_ne_bytes());
        assert_eq!(value(&options[0])[8..12], u32::MAX.to_ne_bytes());
    }
}
