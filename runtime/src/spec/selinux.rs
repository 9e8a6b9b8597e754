//! SELinux labels of a container: `user:role:type:level`.
//!
//! What a request leaves open is the host policy's default for containers, and of the level
//! the categories that the pod has for itself.

use super::{HostSecurity, Input, SpecError};
use cri_proto::v1::{LinuxContainerSecurityContext, PodSandboxConfig, SeLinuxOption};
use oci_spec::runtime::Mount;

/// What the policy says of containers, on a host where it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeLinux {
    /// Context of processes.
    pub process: String,
    /// Context of what they may write to.
    pub file: String,
}

impl Default for SeLinux {
    /// Names of container-selinux and of the reference policy.
    fn default() -> Self {
        Self {
            process: "system_u:system_r:container_t:s0".to_owned(),
            file: "system_u:object_r:container_file_t:s0".to_owned(),
        }
    }
}

/// The type of privileged containers; container-selinux `spc_t`.
const PRIVILEGED: &str = "spc_t";

/// Categories of the kernel's default: 0 to 1023.
const CATEGORIES: u32 = 1024;

/// The two labels of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Of its processes.
    pub process: String,
    /// Of its files.
    pub mount: String,
}

/// The parts of a context.
#[derive(Debug, Clone)]
struct Context {
    user: String,
    role: String,
    kind: String,
    level: String,
}

impl Context {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        Some(Self {
            user: parts.next()?,
            role: parts.next()?,
            kind: parts.next()?,
            level: parts.next()?,
        })
    }

    fn text(&self) -> String {
        let Self {
            user,
            role,
            kind,
            level,
        } = self;
        format!("{user}:{role}:{kind}:{level}")
    }
}

/// A pod's level, of any number that is as good as random.
#[must_use]
pub fn level(random: u32) -> String {
    let low = random % CATEGORIES;
    // Never the same: the second is counted from the first.
    let high = (low + 1 + random / CATEGORIES % (CATEGORIES - 1)) % CATEGORIES;
    format!("s0:c{},c{}", low.min(high), low.max(high))
}

pub(super) fn labels(
    input: &Input<'_>,
    security: &LinuxContainerSecurityContext,
) -> Result<Option<Labels>, SpecError> {
    let pod = input.sandbox.linux.as_ref();
    let pod = pod.and_then(|l| l.security_context.as_ref());
    let options = [
        pod.and_then(|s| s.selinux_options.as_ref()),
        security.selinux_options.as_ref(),
    ];
    resolve(
        input.host,
        input.selinux_level,
        options,
        security.privileged,
    )
}

/// Of what a pod has for itself: its first process, its file systems; `None` without SELinux.
///
/// # Errors
/// A label of the request's that can't be.
pub fn pod_labels(
    host: &HostSecurity,
    level: &str,
    config: &PodSandboxConfig,
) -> Result<Option<Labels>, SpecError> {
    let pod = config.linux.as_ref();
    let pod = pod.and_then(|l| l.security_context.as_ref());
    let options = pod.and_then(|s| s.selinux_options.as_ref());
    let privileged = pod.is_some_and(|s| s.privileged);
    resolve(host, level, [options, None], privileged)
}

/// `options` are the pod's and the container's: field by field the last that is set counts.
fn resolve(
    host: &HostSecurity,
    level: &str,
    options: [Option<&SeLinuxOption>; 2],
    privileged: bool,
) -> Result<Option<Labels>, SpecError> {
    let Some(policy) = &host.selinux else {
        return Ok(None);
    };
    let part = |of: fn(&SeLinuxOption) -> &String| {
        let mut set = options.iter().rev().flatten().map(|o| of(o));
        set.find(|text| !text.is_empty()).cloned()
    };
    let fail = |label: &str, reason| SpecError::SeLinux {
        label: label.to_owned(),
        reason,
    };
    let parse = |text: &str| {
        Context::parse(text).ok_or_else(|| fail(text, "the policy's own has not four parts"))
    };
    let (mut process, mut mount) = (parse(&policy.process)?, parse(&policy.file)?);
    if !level.is_empty() {
        mount.level = level.to_owned();
        // A privileged one may touch the files of all.
        if !privileged {
            process.level = level.to_owned();
        }
    }
    if privileged {
        process.kind = PRIVILEGED.to_owned();
    }
    if let Some(user) = part(|o| &o.user) {
        mount.user = user.clone();
        process.user = user;
    }
    if let Some(role) = part(|o| &o.role) {
        process.role = role;
    }
    if let Some(kind) = part(|o| &o.r#type) {
        process.kind = kind;
    }
    if let Some(level) = part(|o| &o.level) {
        if !is_level(&level) {
            return Err(fail(&level, "a level looks like s0:c1,c2"));
        }
        mount.level = level.clone();
        process.level = level;
    }
    let (process, mount) = (process.text(), mount.text());
    if let Some(text) = [&process, &mount].into_iter().find(|text| !is_plain(text)) {
        return Err(fail(text, "a character that no context has"));
    }
    Ok(Some(Labels { process, mount }))
}

/// The kernel is told of it among other options, by quotes.
fn is_plain(context: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:,".contains(c);
    context.chars().all(plain)
}

/// `sN[-sN][:categories]`; the policy knows what of it exists.
fn is_level(text: &str) -> bool {
    text.split('-').count() <= 2 && text.split('-').all(is_single_level)
}

fn is_single_level(text: &str) -> bool {
    let (sensitivity, categories) = match text.split_once(':') {
        Some((sensitivity, categories)) => (sensitivity, Some(categories)),
        None => (text, None),
    };
    let mut ranges = categories.into_iter().flat_map(|c| c.split(','));
    is_number('s', sensitivity) && ranges.all(|r| r.split('.').all(|c| is_number('c', c)))
}

fn is_number(letter: char, text: &str) -> bool {
    let digits = text.strip_prefix(letter).unwrap_or_default();
    (1..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
}

/// File systems made for the container alone are labelled as a whole.
pub(super) fn label_mounts(mounts: &mut [Mount], labels: Option<&Labels>) {
    let Some(labels) = labels else {
        return;
    };
    let whole = |m: &&mut Mount| matches!(m.typ().as_deref(), Some("tmpfs" | "devpts" | "overlay"));
    for mount in mounts.iter_mut().filter(whole) {
        let mut options = mount.options().clone().unwrap_or_default();
        options.push(format!("context={}", labels.mount));
        mount.set_options(Some(options));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVEL: &str = "s0:c7,c9";

    fn with(options: SeLinuxOption, privileged: bool) -> Result<Option<Labels>, SpecError> {
        let host = HostSecurity {
            selinux: Some(SeLinux::default()),
            ..HostSecurity::default()
        };
        let pod = SeLinuxOption {
            user: "pod_u".to_owned(),
            ..Default::default()
        };
        resolve(&host, LEVEL, [Some(&pod), Some(&options)], privileged)
    }

    fn labels(options: SeLinuxOption, privileged: bool) -> (String, String) {
        let labels = with(options, privileged).expect("labels").expect("on");
        (labels.process, labels.mount)
    }

    #[test]
    fn labels_are_the_policys_with_the_pods_level_when_nothing_is_said() {
        let (process, mount) = labels(SeLinuxOption::default(), false);
        assert_eq!(process, "pod_u:system_r:container_t:s0:c7,c9");
        assert_eq!(mount, "pod_u:object_r:container_file_t:s0:c7,c9");
        let (process, mount) = labels(SeLinuxOption::default(), true);
        assert_eq!(process, "pod_u:system_r:spc_t:s0");
        assert_eq!(mount, "pod_u:object_r:container_file_t:s0:c7,c9");
    }

    #[test]
    fn labels_take_every_part_that_is_set() {
        let options = SeLinuxOption {
            user: "u".to_owned(),
            r#type: "mine_t".to_owned(),
            level: "s0-s1:c4.c6,c8".to_owned(),
            ..Default::default()
        };
        let (process, mount) = labels(options, false);
        assert_eq!(process, "u:system_r:mine_t:s0-s1:c4.c6,c8");
        assert_eq!(mount, "u:object_r:container_file_t:s0-s1:c4.c6,c8");
    }

    #[test]
    fn labels_are_refused_when_a_part_is_malformed() {
        for level in [
            "s0,c4,c5",
            "c1",
            "s0:",
            "s0:c1,,c2",
            "s0-s1-s2",
            "s0:c12345",
        ] {
            let options = SeLinuxOption {
                level: level.to_owned(),
                ..Default::default()
            };
            assert!(with(options, false).is_err(), "{level}");
        }
        let options = SeLinuxOption {
            user: "u\",rootcontext=x".to_owned(),
            ..Default::default()
        };
        assert!(with(options, false).is_err());
    }

    #[test]
    fn labels_are_none_when_selinux_is_off() {
        let off = HostSecurity::default();
        assert_eq!(resolve(&off, "", [None, None], true).ok(), Some(None));
    }

    #[test]
    fn level_has_two_categories_whatever_the_number() {
        for random in [0, 1023, 1024, u32::MAX, 77_777_777] {
            let level = level(random);
            let categories = level.strip_prefix("s0:").expect("sensitivity");
            let (low, high) = categories.split_once(',').expect("two");
            let number = |text: &str| text[1..].parse::<u32>().expect("number");
            assert!(
                number(low) < number(high) && number(high) < CATEGORIES,
                "{level}"
            );
        }
    }
}
