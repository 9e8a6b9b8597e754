//! Names of system calls as numbers, for each architecture a filter covers.

use std::str::FromStr;

/// An architecture as the kernel reports it to a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Abi {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
}

impl Abi {
    /// What the host's own programs use.
    pub(super) const NATIVE: Self = Self::X86_64;

    /// linux/audit.h `AUDIT_ARCH_…`.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xC000_003E,
            Self::X86 => 0x4000_0003,
        }
    }

    /// The ABI that a profile's `SCMP_ARCH_…` name stands for. x32 has none:
    /// its calls answer ENOSYS, as on a kernel built without it.
    pub(super) fn from_profile(name: &str) -> Option<Self> {
        match name {
            "SCMP_ARCH_X86_64" => Some(Self::X86_64),
            "SCMP_ARCH_X86" => Some(Self::X86),
            _ => None,
        }
    }

    /// The number of a system call; `None` when this ABI has none of that name.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        match self {
            Self::X86_64 => syscalls::x86_64::Sysno::from_str(name)
                .ok()
                .map(|s| s as u32),
            Self::X86 => syscalls::x86::Sysno::from_str(name).ok().map(|s| s as u32),
        }
    }
}
