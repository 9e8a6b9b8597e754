//! Which signal asks a container to end.

use cri_proto::v1::Signal;

/// Names without SIG and their numbers on Linux; aliases after their originals.
const NUMBERS: [(&str, i32); 35] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("IOT", 6),
    ("CLD", 17),
    ("POLL", 29),
    ("UNUSED", 31),
];

/// glibc's SIGRTMIN and SIGRTMAX, which is what names in images mean.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// `SIGTERM`, `TERM`, `15`, `RTMIN+3` as a number.
#[must_use]
pub fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |from: i32, rest: &str| -> Option<i32> {
        let rest = rest.replace("PLUS", "+").replace("MINUS", "-");
        let offset = if rest.is_empty() {
            0
        } else {
            rest.parse::<i32>().ok()?
        };
        Some(from + offset).filter(|n| (RTMIN..=RTMAX).contains(n))
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return real_time(RTMIN, rest);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return real_time(RTMAX, rest);
    }
    let known = NUMBERS.iter().find(|(known, _)| *known == name);
    known.map(|(_, number)| *number)
}

fn of_cri(signal: Signal) -> Option<i32> {
    number(signal.as_str_name().strip_prefix("SIGNAL_")?)
}

/// The request's, else the image's, else SIGTERM: as a number and as CRI
/// reports it.
#[must_use]
pub fn stop_signal(requested: Signal, image: Option<&str>) -> (i32, Signal) {
    let image = image.filter(|text| !text.is_empty()).and_then(number);
    let number = of_cri(requested).or(image).unwrap_or(15);
    (number, cri_signal(number))
}

/// CRI's usual name of a signal.
#[must_use]
pub fn cri_signal(number: i32) -> Signal {
    let last = Signal::Sigrtmax as i32;
    let all = (1..=last).filter_map(|n| Signal::try_from(n).ok());
    // Of aliases the usual name.
    let odd = [Signal::Sigcld, Signal::Sigiot, Signal::Sigpoll];
    all.filter(|s| !odd.contains(s))
        .find(|s| of_cri(*s) == Some(number))
        .unwrap_or(Signal::Sigterm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_of_cri_has_a_number() {
        for n in 1..=Signal::Sigrtmax as i32 {
            let signal = Signal::try_from(n).expect("signal");
            assert!(of_cri(signal).is_some(), "{}", signal.as_str_name());
        }
        assert_eq!(of_cri(Signal::RuntimeDefault), None);
    }

    #[test]
    fn request_wins_over_image_wins_over_term() {
        let none = Signal::RuntimeDefault;
        assert_eq!(stop_signal(Signal::Sigusr1, Some("SIGQUIT")).0, 10);
        assert_eq!(stop_signal(none, Some("SIGQUIT")), (3, Signal::Sigquit));
        assert_eq!(
            stop_signal(none, Some("SIGRTMIN+3")),
            (37, Signal::Sigrtminplus3)
        );
        assert_eq!(stop_signal(none, None), (15, Signal::Sigterm));
        assert_eq!(stop_signal(none, Some("nonsense")).0, 15);
    }

    #[test]
    fn signals_are_read_by_name_and_number() {
        assert_eq!(number("9"), Some(9));
        assert_eq!(number("sigkill"), Some(9));
        assert_eq!(number("RTMAX-1"), Some(63));
        assert_eq!(number("RTMAXMINUS14"), Some(50));
        assert_eq!(number("65"), None);
        assert_eq!(number("RTMIN+99"), None);
    }
}
