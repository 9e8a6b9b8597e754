//! AppArmor, SELinux, seccomp.

use super::{Finding, read};
use std::path::Path;

pub fn findings() -> Vec<Finding> {
    let parser = ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"];
    vec![
        seccomp(&read("/proc/sys/kernel/seccomp/actions_avail")),
        apparmor(
            read("/sys/module/apparmor/parameters/enabled") == "Y",
            parser.iter().any(|p| Path::new(p).exists()),
        ),
        selinux(
            std::fs::read_to_string("/sys/fs/selinux/enforce")
                .ok()
                .as_deref(),
        ),
    ]
}

fn seccomp(actions: &str) -> Finding {
    match actions.split_whitespace().any(|a| a == "errno") {
        true => Finding::ok("seccomp", "filters"),
        false => Finding::error(
            "seccomp",
            [
                "the kernel has no filters",
                "pods with RuntimeDefault can't start",
                "a kernel with CONFIG_SECCOMP_FILTER",
            ],
        ),
    }
}

fn apparmor(on: bool, has_parser: bool) -> Finding {
    match (on, has_parser) {
        (false, _) => Finding::ok("apparmor", "off"),
        (true, true) => Finding::ok("apparmor", "on, with apparmor_parser"),
        (true, false) => Finding::warning(
            "apparmor",
            [
                "on, without apparmor_parser",
                "containers run unconfined, and those that ask for RuntimeDefault fail",
                "install the package apparmor",
            ],
        ),
    }
}

fn selinux(enforce: Option<&str>) -> Finding {
    match enforce.map(str::trim) {
        None => Finding::ok("selinux", "off"),
        Some("1") => Finding::warning(
            "selinux",
            [
                "enforcing",
                "the runtime needs rights that no distribution's policy gives it by itself",
                "semodule -i deploy/selinux/lighter.cil (Debian 13); elsewhere: setenforce 0",
            ],
        ),
        Some(_) => Finding::ok("selinux", "permissive"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn security_modules_are_judged_by_what_they_need() {
        assert_eq!(apparmor(true, false).verdict, Verdict::Warning);
        assert_eq!(apparmor(false, false).verdict, Verdict::Ok);
        assert_eq!(selinux(Some("1\n")).verdict, Verdict::Warning);
        assert_eq!(selinux(Some("0")).seen, "permissive");
        assert_eq!(selinux(None).seen, "off");
        assert_eq!(seccomp("kill errno allow").verdict, Verdict::Ok);
        assert_eq!(seccomp("").verdict, Verdict::Error);
    }
}
