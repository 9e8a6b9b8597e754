//! Netlink messages of nfnetlink, byte by byte.

use super::uapi::{NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES, NFPROTO_UNSPEC};

/// Length of `struct nlmsghdr` (`linux/netlink.h`).
pub const HEADER: usize = 16;
/// Flag of an attribute that holds attributes (`linux/netlink.h`).
const NLA_F_NESTED: u16 = 1 << 15;
/// Flags of `linux/netlink.h`.
const NLM_F_REQUEST: u16 = 1;
pub const NLM_F_ACK: u16 = 4;
pub const NLM_F_DUMP: u16 = 0x300;
pub const NLM_F_CREATE: u16 = 0x400;
pub const NLM_F_APPEND: u16 = 0x800;

/// Messages one after another in one buffer.
#[derive(Debug, Default, Clone)]
pub struct Messages {
    bytes: Vec<u8>,
    /// Where the last message starts.
    last: usize,
    sequence: u32,
}

impl Messages {
    /// Writes one message of a subsystem: nlmsghdr, nfgenmsg, attributes.
    pub fn push(
        &mut self,
        kind: (u16, u16),
        flags: u16,
        family: u8,
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        let (subsystem, kind) = kind;
        self.header((subsystem << 8) | kind, flags, family, 0);
        attributes(&mut Attributes(&mut self.bytes));
        self.close();
    }

    /// Opens an atomic batch of nf_tables.
    pub fn begin(&mut self) {
        self.header(
            NFNL_MSG_BATCH_BEGIN,
            0,
            NFPROTO_UNSPEC,
            NFNL_SUBSYS_NFTABLES,
        );
        self.close();
    }

    /// Closes the batch; the message before it is the one that gets an answer.
    pub fn end(&mut self) -> u32 {
        let answered = self.sequence;
        self.flag_last(NLM_F_ACK);
        self.header(NFNL_MSG_BATCH_END, 0, NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES);
        self.close();
        answered
    }

    /// What is to be sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn header(&mut self, kind: u16, flags: u16, family: u8, resource: u16) {
        self.last = self.bytes.len();
        self.sequence += 1;
        let b = &mut self.bytes;
        b.extend_from_slice(&0u32.to_ne_bytes());
        b.extend_from_slice(&kind.to_ne_bytes());
        b.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        b.extend_from_slice(&self.sequence.to_ne_bytes());
        b.extend_from_slice(&0u32.to_ne_bytes());
        // nfgenmsg: family, version, res_id in network order
        b.extend_from_slice(&[family, 0]);
        b.extend_from_slice(&resource.to_be_bytes());
    }

    fn close(&mut self) {
        let length = (self.bytes.len() - self.last) as u32;
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn flag_last(&mut self, flag: u16) {
        let at = self.last + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | flag;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }
}

/// Attributes of the message being written; each is padded to four bytes.
#[derive(Debug)]
pub struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    /// Raw bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = (4 + value.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Attributes that are encoded already.
    pub fn raw(&mut self, encoded: &[u8]) {
        self.0.extend_from_slice(encoded);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// A text with its final zero.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// A number in network order, as nfnetlink has them.
    pub fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Attributes within an attribute.
    pub fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0
            .extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        inner(&mut Attributes(self.0));
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }
}

/// The attributes in a piece of a message that was received: kind without
/// its flags, and value. Stops at the first that is cut short.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_header_family_and_padded_attributes() {
        let mut m = Messages::default();
        m.push((10, 0), NLM_F_CREATE, 1, |a| {
            a.text(1, "abc").nest(2, |a| {
                a.bytes(3, &[7]);
            });
        });
        #[rustfmt::skip]
        let want = [
            40, 0, 0, 0, 0x00, 0x0a, 0x01, 0x04, 1, 0, 0, 0, 0, 0, 0, 0,
            1, 0, 0, 0,
            8, 0, 1, 0, b'a', b'b', b'c', 0,
            12, 0, 2, 0x80, 5, 0, 3, 0, 7, 0, 0, 0,
        ];
        assert_eq!(m.bytes(), want);
    }

    #[test]
    fn batch_asks_for_an_answer_to_its_last_message() {
        let mut m = Messages::default();
        m.begin();
        m.push((10, 0), NLM_F_CREATE, 1, |_| {});
        assert_eq!(m.end(), 2);
        let flags_of_second = u16::from_ne_bytes([m.bytes()[26], m.bytes()[27]]);
        assert_eq!(flags_of_second, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK);
        // begin and end carry the subsystem in res_id
        assert_eq!(m.bytes()[16..20], [0, 0, 0, 10]);
        assert_eq!(m.bytes().len(), 60);
    }

    #[test]
    fn attributes_stop_where_the_bytes_do() {
        let bytes = [5, 0, 3, 0, 7, 0, 0, 0, 40, 0, 1, 0, 9];
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(read, vec![(3, &[7u8][..])]);
        assert_eq!(attributes(&[1, 0, 0, 0]).count(), 0);
    }
}
