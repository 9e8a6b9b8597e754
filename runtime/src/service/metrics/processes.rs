//! What the processes of a container have open.

use std::fs;

/// Sums over processes.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub threads: u64,
    pub descriptors: u64,
    pub sockets: u64,
}

/// Processes that end meanwhile count for nothing.
pub(super) fn count(pids: &[i32]) -> Counted {
    let mut counted = Counted::default();
    for pid in pids {
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten();
        counted.threads += threads.count() as u64;
        let open = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        for entry in open.flatten() {
            counted.descriptors += 1;
            let target = fs::read_link(entry.path()).unwrap_or_default();
            counted.sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_has_threads_and_descriptors() {
        let _socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("socket");
        let counted = count(&[std::process::id() as i32]);
        assert!(counted.threads >= 1 && counted.descriptors >= 1 && counted.sockets >= 1);
    }
}
