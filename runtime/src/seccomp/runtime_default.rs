//! The profile of `RuntimeDefault`, as data.
//!
//! Which calls are allowed is what users of Docker and containerd rely on:
//! moby v28 profiles/seccomp/default_linux.go, containerd v2
//! contrib/seccomp/seccomp_default.go. Everything else answers EPERM.

use super::profile::{Arg, Outcome, Profile, Rule};
use super::syscall_table::Abi;
use oci_spec::runtime::{LinuxSeccompAction as Action, LinuxSeccompOperator as Op};
use std::collections::BTreeSet;

/// Allowed to everybody.
const ALWAYS: &str = "
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2
dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
fcntl fcntl64 fdatasync fgetxattr file_getattr file_setattr flistxattr flock fork fremovexattr
fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue
futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu
getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid
gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat
llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier
memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2
mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall
munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl
pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev
pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg
remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send
sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address
setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid
setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown
sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64
statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill
time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat
utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
process_vm_readv process_vm_writev ptrace arch_prctl modify_ldt";

/// Allowed to who holds the capability.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount \
         mount_setattr move_mount open_tree open_tree_attr perf_event_open quotactl quotactl_fd \
         setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    (
        "CAP_SYS_TIME",
        "settimeofday stime clock_settime clock_settime64",
    ),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    (
        "CAP_SYS_NICE",
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// linux/personality.h: PER_LINUX, PER_LINUX32, UNAME26 with each, and the query.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x20000, 0x20008, 0xFFFF_FFFF];

/// linux/sched.h: CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;

/// linux/socket.h: talks to the hypervisor, past every network policy.
const AF_VSOCK: u64 = 40;

/// errno of a call that the kernel does not have: glibc then falls back to clone.
const ENOSYS: u32 = 38;

/// The default profile of a container that holds these capabilities.
#[must_use]
pub fn runtime_default(held: &BTreeSet<String>) -> Profile {
    let mut rules = vec![allow(ALWAYS, vec![])];
    for (capability, names) in BY_CAPABILITY {
        if held.contains(*capability) {
            rules.push(allow(names, vec![]));
        }
    }
    rules.push(allow("socket", vec![arg(AF_VSOCK, Op::ScmpCmpNe)]));
    for persona in PERSONALITIES {
        rules.push(allow("personality", vec![arg(persona, Op::ScmpCmpEq)]));
    }
    if !held.contains("CAP_SYS_ADMIN") {
        rules.push(allow(
            "clone",
            vec![arg(CLONE_NAMESPACES, Op::ScmpCmpMaskedEq)],
        ));
        rules.push(Rule {
            names: vec!["clone3".to_owned()],
            outcome: Outcome {
                action: Action::ScmpActErrno,
                errno: Some(ENOSYS),
            },
            args: vec![],
        });
    }
    Profile {
        default: Outcome::of(Action::ScmpActErrno),
        abis: BTreeSet::from([Abi::X86_64, Abi::X86]),
        rules,
    }
}

fn allow(names: &str, args: Vec<Arg>) -> Rule {
    Rule {
        names: names.split_whitespace().map(str::to_owned).collect(),
        outcome: Outcome::of(Action::ScmpActAllow),
        args,
    }
}

/// A condition on the first argument.
fn arg(value: u64, op: Op) -> Arg {
    Arg {
        index: 0,
        value,
        value_two: 0,
        op,
    }
}
