//! An OCI process as a plan's.

use oci_spec::runtime::{Capabilities as Set, Capability, PosixRlimitType};

use super::super::plan::{Capabilities, Process, Rlimit};

/// Where the process belongs, as positions of descriptors.
#[derive(Debug, Default)]
pub struct Cgroups {
    pub files: Vec<u32>,
    /// The v2 one.
    pub directory: Option<u32>,
}

/// umask of containers when the spec says none; runc libcontainer/standard_init_linux.go.
const UMASK: u32 = 0o022;

pub fn plan(oci: &oci_spec::runtime::Process, cgroups: Cgroups, seccomp: Vec<u8>) -> Process {
    let user = oci.user();
    let size = oci.console_size();
    let dimension = |value: u64| u32::from(u16::try_from(value).unwrap_or_default());
    Process {
        args: oci.args().clone().unwrap_or_default(),
        env: oci.env().clone().unwrap_or_default(),
        cwd: oci.cwd().to_string_lossy().into_owned(),
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask().unwrap_or(UMASK),
        capabilities: oci.capabilities().as_ref().map(|caps| Capabilities {
            bounding: mask(caps.bounding().as_ref()),
            effective: mask(caps.effective().as_ref()),
            permitted: mask(caps.permitted().as_ref()),
            inheritable: mask(caps.inheritable().as_ref()),
            ambient: mask(caps.ambient().as_ref()),
        }),
        no_new_privileges: oci.no_new_privileges().unwrap_or(false),
        rlimits: oci.rlimits().iter().flatten().map(rlimit).collect(),
        oom_score_adj: oci.oom_score_adj(),
        apparmor: oci.apparmor_profile().clone().unwrap_or_default(),
        selinux: oci.selinux_label().clone().unwrap_or_default(),
        terminal: oci.terminal().unwrap_or(false),
        width: size.as_ref().map_or(0, |size| dimension(size.width())),
        height: size.as_ref().map_or(0, |size| dimension(size.height())),
        seccomp,
        cgroups: cgroups.files,
        cgroup_v2: cgroups.directory,
    }
}

fn rlimit(limit: &oci_spec::runtime::PosixRlimit) -> Rlimit {
    use PosixRlimitType as Type;
    // Numbers of include/uapi/asm-generic/resource.h.
    let resource = match limit.typ() {
        Type::RlimitCpu => 0,
        Type::RlimitFsize => 1,
        Type::RlimitData => 2,
        Type::RlimitStack => 3,
        Type::RlimitCore => 4,
        Type::RlimitRss => 5,
        Type::RlimitNproc => 6,
        Type::RlimitNofile => 7,
        Type::RlimitMemlock => 8,
        Type::RlimitAs => 9,
        Type::RlimitLocks => 10,
        Type::RlimitSigpending => 11,
        Type::RlimitMsgqueue => 12,
        Type::RlimitNice => 13,
        Type::RlimitRtprio => 14,
        Type::RlimitRttime => 15,
    };
    Rlimit {
        resource,
        soft: limit.soft(),
        hard: limit.hard(),
    }
}

fn mask(set: Option<&Set>) -> u64 {
    set.into_iter()
        .flatten()
        .fold(0, |mask, one| mask | 1 << number(*one))
}

/// Numbers of include/uapi/linux/capability.h.
fn number(capability: Capability) -> u32 {
    use Capability as C;
    match capability {
        C::Chown => 0,
        C::DacOverride => 1,
        C::DacReadSearch => 2,
        C::Fowner => 3,
        C::Fsetid => 4,
        C::Kill => 5,
        C::Setgid => 6,
        C::Setuid => 7,
        C::Setpcap => 8,
        C::LinuxImmutable => 9,
        C::NetBindService => 10,
        C::NetBroadcast => 11,
        C::NetAdmin => 12,
        C::NetRaw => 13,
        C::IpcLock => 14,
        C::IpcOwner => 15,
        C::SysModule => 16,
        C::SysRawio => 17,
        C::SysChroot => 18,
        C::SysPtrace => 19,
        C::SysPacct => 20,
        C::SysAdmin => 21,
        C::SysBoot => 22,
        C::SysNice => 23,
        C::SysResource => 24,
        C::SysTime => 25,
        C::SysTtyConfig => 26,
        C::Mknod => 27,
        C::Lease => 28,
        C::AuditWrite => 29,
        C::AuditControl => 30,
        C::Setfcap => 31,
        C::MacOverride => 32,
        C::MacAdmin => 33,
        C::Syslog => 34,
        C::WakeAlarm => 35,
        C::BlockSuspend => 36,
        C::AuditRead => 37,
        C::Perfmon => 38,
        C::Bpf => 39,
        C::CheckpointRestore => 40,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_the_kernels_bits() {
        let set: Set = [
            Capability::Chown,
            Capability::NetRaw,
            Capability::CheckpointRestore,
        ]
        .into_iter()
        .collect();
        assert_eq!(mask(Some(&set)), 1 | 1 << 13 | 1 << 40);
    }

    #[test]
    fn umask_is_the_usual_one_when_the_spec_says_none() {
        let plan = plan(
            &oci_spec::runtime::Process::default(),
            Cgroups::default(),
            vec![],
        );
        assert_eq!(plan.umask, 0o022);
    }
}
