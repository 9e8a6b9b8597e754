//! Numbers of which pods run out.

use super::{Finding, read};

/// What is read, how many are enough, what runs out, what to do.
const LIMITS: [(&str, &str, u64, &str); 5] = [
    (
        "inotify-instances",
        "/proc/sys/fs/inotify/max_user_instances",
        128,
        "programs in pods end with \"too many open files\" when they watch files",
    ),
    (
        "inotify-watches",
        "/proc/sys/fs/inotify/max_user_watches",
        8192,
        "programs in pods can't watch files",
    ),
    (
        "user-namespaces",
        "/proc/sys/user/max_user_namespaces",
        128,
        "pods with hostUsers: false fail",
    ),
    (
        "pid-max",
        "/proc/sys/kernel/pid_max",
        32768,
        "pods end each other's processes by using them up",
    ),
    (
        "keyrings",
        "/proc/sys/kernel/keys/root_maxkeys",
        10000,
        "each container takes a session keyring: the 201st fails with \"disk quota exceeded\"",
    ),
];

pub fn findings() -> Vec<Finding> {
    let one = |(check, file, least, without): (&'static str, &str, u64, &str)| {
        limit(check, file, read(file).parse().ok(), (least, without))
    };
    let mut all: Vec<Finding> = LIMITS.map(one).into();
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    all.push(open_files(files.maximum));
    all
}

fn limit(
    check: &'static str,
    file: &str,
    value: Option<u64>,
    (least, without): (u64, &str),
) -> Finding {
    let key = file.trim_start_matches("/proc/sys/").replace('/', ".");
    match value {
        None => Finding::warning(
            check,
            [
                &format!("{file} can't be read"),
                without,
                "a kernel that has it",
            ],
        ),
        Some(value) if value < least => Finding::warning(
            check,
            [
                &value.to_string(),
                without,
                &format!("sysctl -w {key}={least}, and a line in /etc/sysctl.d"),
            ],
        ),
        Some(value) => Finding::ok(check, value.to_string()),
    }
}

/// Containers inherit the agent's limit.
fn open_files(hard: Option<u64>) -> Finding {
    const LEAST: u64 = 65536;
    match hard {
        None => Finding::ok("open-files", "unlimited"),
        Some(hard) if hard >= LEAST => Finding::ok("open-files", hard.to_string()),
        Some(hard) => Finding::warning(
            "open-files",
            [
                &hard.to_string(),
                "agent and containers inherit it",
                "LimitNOFILE=1048576 in the unit, as deploy/manifests/lighter.service has it",
            ],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn limit_is_judged_and_its_sysctl_named() {
        let file = "/proc/sys/user/max_user_namespaces";
        let low = limit("x", file, Some(0), (128, "w"));
        assert_eq!(low.verdict, Verdict::Warning);
        assert!(
            low.remedy
                .starts_with("sysctl -w user.max_user_namespaces=128")
        );
        assert_eq!(limit("x", file, Some(128), (128, "w")).verdict, Verdict::Ok);
        assert_eq!(limit("x", file, None, (128, "w")).verdict, Verdict::Warning);
        assert_eq!(open_files(Some(1024)).verdict, Verdict::Warning);
        assert_eq!(open_files(None).verdict, Verdict::Ok);
    }
}
