//! The node's name.

/// The host has no name that a Node could have.
#[derive(Debug, thiserror::Error)]
#[error("the hostname {hostname:?} can't name a Node; choose one with --node-name")]
pub struct NameError {
    hostname: String,
}

/// The host's name in lower case, as kubelet and kubeadm take it.
///
/// # Errors
/// When it is not a DNS name.
pub fn default_name() -> Result<String, NameError> {
    let uname = rustix::system::uname();
    from_hostname(&uname.nodename().to_string_lossy())
}

fn from_hostname(hostname: &str) -> Result<String, NameError> {
    let name = hostname.trim().to_lowercase();
    let label = |l: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !l.is_empty() && !l.starts_with('-') && !l.ends_with('-') && l.bytes().all(inner)
    };
    match name.len() <= 253 && name.split('.').all(label) {
        true => Ok(name),
        false => Err(NameError {
            hostname: hostname.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_the_hostname_in_lower_case() {
        assert_eq!(from_hostname("Node-1.Example\n").unwrap(), "node-1.example");
        for bad in ["", "(none)", "a_b", "-a", "a..b", "a-"] {
            assert!(from_hostname(bad).is_err(), "{bad:?}");
        }
    }
}
