//! Which devices a cgroup may use.

/// A kind of device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    All,
    Char,
    Block,
}

/// What may be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Open for reading.
    pub read: bool,
    /// Open for writing.
    pub write: bool,
    /// mknod.
    pub mknod: bool,
}

impl Access {
    /// `rwm`.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        mknod: true,
    };
    const MKNOD: Self = Self {
        read: false,
        write: false,
        mknod: true,
    };

    /// CRI's letters; others are ignored, none is all.
    #[must_use]
    pub fn parse(letters: &str) -> Self {
        if letters.is_empty() {
            return Self::ALL;
        }
        Self {
            read: letters.contains('r'),
            write: letters.contains('w'),
            mknod: letters.contains('m'),
        }
    }
}

/// Something allowed; what no rule allows is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// Kind of node; `All` allows everything there is.
    pub kind: Kind,
    /// `None` = any.
    pub major: Option<u32>,
    /// `None` = any.
    pub minor: Option<u32>,
    /// What is allowed.
    pub access: Access,
}

impl DeviceRule {
    /// Everything: privileged containers.
    pub const ANY: Self = Self {
        kind: Kind::All,
        major: None,
        minor: None,
        access: Access::ALL,
    };

    /// As the files of cgroup v1 take it: `c 1:3 rwm`.
    pub(super) fn line(&self) -> String {
        let kind = match self.kind {
            Kind::All => return "a *:* rwm".to_owned(),
            Kind::Char => 'c',
            Kind::Block => 'b',
        };
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let mut access = String::new();
        for (given, letter) in [
            (self.access.read, 'r'),
            (self.access.write, 'w'),
            (self.access.mknod, 'm'),
        ] {
            access.extend(given.then_some(letter));
        }
        format!(
            "{kind} {}:{} {access}",
            number(self.major),
            number(self.minor)
        )
    }
}

/// Of every container: nodes may be made but not opened, except the harmless
/// ones and terminals. opencontainers/runc v1.2 libcontainer/specconv
/// `AllowedDevices`; Documentation/admin-guide/devices.txt for the numbers.
#[must_use]
pub fn default_rules() -> Vec<DeviceRule> {
    let char = |major, minor| DeviceRule {
        kind: Kind::Char,
        major: Some(major),
        minor,
        access: Access::ALL,
    };
    let mknod = |kind| DeviceRule {
        kind,
        major: None,
        minor: None,
        access: Access::MKNOD,
    };
    let mut rules = vec![mknod(Kind::Char), mknod(Kind::Block)];
    // null, zero, full, random, urandom
    rules.extend([3, 5, 7, 8, 9].map(|minor| char(1, Some(minor))));
    // tty, console, ptmx, pts
    rules.extend([0, 1, 2].map(|minor| char(5, Some(minor))));
    rules.push(char(136, None));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_as_the_kernel_takes_them() {
        let lines: Vec<String> = default_rules().iter().map(DeviceRule::line).collect();
        assert_eq!(lines[0], "c *:* m");
        assert_eq!(lines[2], "c 1:3 rwm");
        assert_eq!(lines.last().map(String::as_str), Some("c 136:* rwm"));
        assert_eq!(DeviceRule::ANY.line(), "a *:* rwm");
    }

    #[test]
    fn permissions_are_read_letter_by_letter() {
        assert_eq!(Access::parse(""), Access::ALL);
        assert!(!Access::parse("r").write);
    }
}
