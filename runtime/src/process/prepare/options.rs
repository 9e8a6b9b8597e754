//! Mount options of an OCI spec, as the kernel's numbers. Pure.

use rustix::mount::MountAttrFlags as Attr;

use super::super::wire::KeyValue;

/// What a list of mount options says.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Options {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MOUNT_ATTR_*` to set on the whole tree.
    pub set_recursive: u64,
    /// `bind` or `rbind`: `Some(recursive)`.
    pub bind: Option<bool>,
    /// `MS_*` and whether it is for the whole tree.
    pub propagation: Option<(u64, bool)>,
    /// `idmap` or `ridmap`.
    pub idmap: bool,
    /// For the file system itself.
    pub data: Vec<KeyValue>,
}

/// include/uapi/linux/mount.h.
pub const MS_PRIVATE: u64 = 1 << 18;
pub const MS_SLAVE: u64 = 1 << 19;
pub const MS_SHARED: u64 = 1 << 20;
const MS_UNBINDABLE: u64 = 1 << 17;

const fn bits(attr: Attr) -> u64 {
    attr.bits() as u64
}

/// Name, bits set, bits cleared; runtime-spec config.md "Linux mount options".
const ATTRIBUTES: [(&str, u64, u64); 14] = [
    ("ro", bits(Attr::MOUNT_ATTR_RDONLY), 0),
    ("rw", 0, bits(Attr::MOUNT_ATTR_RDONLY)),
    ("nosuid", bits(Attr::MOUNT_ATTR_NOSUID), 0),
    ("suid", 0, bits(Attr::MOUNT_ATTR_NOSUID)),
    ("nodev", bits(Attr::MOUNT_ATTR_NODEV), 0),
    ("dev", 0, bits(Attr::MOUNT_ATTR_NODEV)),
    ("noexec", bits(Attr::MOUNT_ATTR_NOEXEC), 0),
    ("exec", 0, bits(Attr::MOUNT_ATTR_NOEXEC)),
    ("nosymfollow", bits(Attr::MOUNT_ATTR_NOSYMFOLLOW), 0),
    ("nodiratime", bits(Attr::MOUNT_ATTR_NODIRATIME), 0),
    // Access times are one field of the flags, which is cleared to be set.
    (
        "noatime",
        bits(Attr::MOUNT_ATTR_NOATIME),
        bits(Attr::MOUNT_ATTR__ATIME),
    ),
    (
        "strictatime",
        bits(Attr::MOUNT_ATTR_STRICTATIME),
        bits(Attr::MOUNT_ATTR__ATIME),
    ),
    ("relatime", 0, bits(Attr::MOUNT_ATTR__ATIME)),
    ("diratime", 0, bits(Attr::MOUNT_ATTR_NODIRATIME)),
];

const PROPAGATIONS: [(&str, u64, bool); 8] = [
    ("private", MS_PRIVATE, false),
    ("rprivate", MS_PRIVATE, true),
    ("slave", MS_SLAVE, false),
    ("rslave", MS_SLAVE, true),
    ("shared", MS_SHARED, false),
    ("rshared", MS_SHARED, true),
    ("unbindable", MS_UNBINDABLE, false),
    ("runbindable", MS_UNBINDABLE, true),
];

/// Options that say nothing.
const DEFAULTS: [&str; 5] = ["defaults", "async", "nomand", "norelatime", "nostrictatime"];

/// Reads them in their order, the later ones winning.
pub fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> Options {
    let mut parsed = Options::default();
    for option in options {
        parse_one(option, &mut parsed);
    }
    parsed
}

fn parse_one(option: &str, parsed: &mut Options) {
    let attribute = |name: &str| ATTRIBUTES.iter().find(|(known, ..)| *known == name);
    if let Some((_, set, clear)) = attribute(option) {
        parsed.set = parsed.set & !clear | set;
        parsed.clear |= clear;
        return;
    }
    if let Some((_, set, _)) = option.strip_prefix('r').and_then(attribute) {
        parsed.set_recursive |= set;
        return;
    }
    if let Some((_, flag, recursive)) = PROPAGATIONS.iter().find(|(name, ..)| *name == option) {
        parsed.propagation = Some((*flag, *recursive));
        return;
    }
    match option {
        "bind" => parsed.bind = Some(false),
        "rbind" => parsed.bind = Some(true),
        "idmap" | "ridmap" => parsed.idmap = true,
        _ if DEFAULTS.contains(&option) => {}
        _ => {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            parsed.data.push(KeyValue {
                key: key.to_owned(),
                value: value.to_owned(),
            });
        }
    }
}

/// `linux.rootfsPropagation`.
pub fn root_propagation(name: Option<&str>) -> u64 {
    let known = PROPAGATIONS.iter().find(|(known, ..)| Some(*known) == name);
    known.map_or(0, |(_, flag, _)| *flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_option_wins_when_two_contradict() {
        assert_eq!(parse(["ro", "rw"]).set, 0);
        assert_eq!(parse(["rw", "ro"]).set, bits(Attr::MOUNT_ATTR_RDONLY));
    }

    #[test]
    fn recursive_read_only_is_told_from_read_only() {
        let parsed = parse(["rbind", "rro"]);
        assert_eq!((parsed.bind, parsed.set), (Some(true), 0));
        assert_eq!(parsed.set_recursive, bits(Attr::MOUNT_ATTR_RDONLY));
    }

    #[test]
    fn rest_is_data_of_the_file_system() {
        let parsed = parse(["nosuid", "size=64k", "newinstance"]);
        let data: Vec<_> = parsed
            .data
            .iter()
            .map(|d| (d.key.as_str(), d.value.as_str()))
            .collect();
        assert_eq!(data, [("size", "64k"), ("newinstance", "")]);
    }

    #[test]
    fn propagation_keeps_whether_it_is_recursive() {
        assert_eq!(parse(["rslave"]).propagation, Some((MS_SLAVE, true)));
        assert_eq!(root_propagation(Some("rshared")), MS_SHARED);
        assert_eq!(root_propagation(None), 0);
    }
}
