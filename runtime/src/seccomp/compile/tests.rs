use super::super::interpreter::run;
use super::*;
use std::collections::BTreeSet;

const X86_64: u32 = 0xC000_003E;
const X86: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7FFF_0000;
const EPERM: u32 = 0x0005_0001;
const NO_SYS: u32 = 0x0005_0000 | ENOSYS;
const KILL: u32 = 0x8000_0000;

fn profile(json: &str, caps: &[&str]) -> Vec<Insn> {
    let held: BTreeSet<String> = caps.iter().map(|c| (*c).to_owned()).collect();
    program(&Profile::parse(json.as_bytes(), &held).expect("profile"))
}

#[test]
fn filter_blocks_the_named_call_only_when_default_is_allow() {
    let filter = profile(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO"}]}"#,
        &[],
    );
    assert_eq!(run(&filter, X86_64, 90, [0; 6]), EPERM);
    assert_eq!(run(&filter, X86_64, 89, [0; 6]), ALLOW);
    assert_eq!(run(&filter, X86_64, 91, [0; 6]), ALLOW);
    assert_eq!(run(&filter, X86_64, 5000, [0; 6]), ALLOW);
}

#[test]
fn filter_kills_when_the_abi_is_not_covered() {
    let filter = profile(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#, &[]);
    assert_eq!(run(&filter, X86, 1, [0; 6]), KILL);
    assert_eq!(run(&filter, X86_64, 1, [0; 6]), ALLOW);
}

#[test]
fn filter_answers_the_errno_that_the_rule_gives() {
    let filter = profile(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":
            [{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#,
        &[],
    );
    assert_eq!(run(&filter, X86_64, 83, [0; 6]), 0x0005_0000 | 95);
}

#[test]
fn filter_says_enosys_for_calls_newer_than_the_profile_and_for_x32() {
    let filter = profile(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":
            [{"names":["read","openat2"],"action":"SCMP_ACT_ALLOW"}]}"#,
        &[],
    );
    assert_eq!(run(&filter, X86_64, 1, [0; 6]), EPERM);
    assert_eq!(run(&filter, X86_64, 437, [0; 6]), ALLOW);
    assert_eq!(run(&filter, X86_64, 438, [0; 6]), NO_SYS);
    assert_eq!(run(&filter, X86_64, X32, [0; 6]), NO_SYS);
}

#[test]
fn comparisons_hold_for_all_64_bits() {
    let cases: &[(&str, u64, u64, bool)] = &[
        ("SCMP_CMP_EQ", 0x1_0000_0002, 0x1_0000_0002, true),
        ("SCMP_CMP_EQ", 0x1_0000_0002, 0x2, false),
        ("SCMP_CMP_EQ", 0x1_0000_0002, 0x1_0000_0003, false),
        ("SCMP_CMP_NE", 0x1_0000_0002, 0x2, true),
        ("SCMP_CMP_NE", 40, 40, false),
        ("SCMP_CMP_NE", 40, 41, true),
        ("SCMP_CMP_GT", 0x1_0000_0000, 0x2_0000_0000, true),
        ("SCMP_CMP_GT", 0x1_0000_0005, 0x1_0000_0005, false),
        ("SCMP_CMP_GT", 0x1_0000_0005, 0x1_0000_0006, true),
        ("SCMP_CMP_GT", 0x1_0000_0005, 0x6, false),
        ("SCMP_CMP_GE", 0x1_0000_0005, 0x1_0000_0005, true),
        ("SCMP_CMP_GE", 0x1_0000_0005, 0x1_0000_0004, false),
        ("SCMP_CMP_LT", 0x1_0000_0005, 0x1_0000_0005, false),
        ("SCMP_CMP_LT", 0x1_0000_0005, 0xFFFF_FFFF, true),
        ("SCMP_CMP_LT", 0x1_0000_0005, 0x2_0000_0000, false),
        ("SCMP_CMP_LE", 0x1_0000_0005, 0x1_0000_0005, true),
        ("SCMP_CMP_LE", 0x1_0000_0005, 0x1_0000_0006, false),
    ];
    for &(op, value, seen, holds) in cases {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["mkdir"],
            "action":"SCMP_ACT_ERRNO","args":[{{"index":2,"value":{value},"op":"{op}"}}]}}]}}"#
        );
        let expected = if holds { EPERM } else { ALLOW };
        let got = run(&profile(&json, &[]), X86_64, 83, [0, 0, seen, 0, 0, 0]);
        assert_eq!(got, expected, "{seen:#x} {op} {value:#x}");
    }
}

#[test]
fn masked_comparison_tests_only_the_masked_bits() {
    let filter = profile(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["clone"],"action":
            "SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
        &[],
    );
    assert_eq!(run(&filter, X86_64, 56, [0x11, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(
        run(&filter, X86_64, 56, [0x1000_0011, 0, 0, 0, 0, 0]),
        EPERM
    );
}

#[test]
fn conditions_are_all_needed_on_different_arguments_and_alternatives_on_one() {
    let filter = profile(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[
              {"index":0,"value":8,"op":"SCMP_CMP_EQ"},{"index":0,"value":9,"op":"SCMP_CMP_EQ"}]},
            {"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[
              {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
        &[],
    );
    assert_eq!(run(&filter, X86_64, 135, [9, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(run(&filter, X86_64, 135, [7, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(run(&filter, X86_64, 16, [1, 2, 0, 0, 0, 0]), ALLOW);
    assert_eq!(run(&filter, X86_64, 16, [1, 3, 0, 0, 0, 0]), EPERM);
}

#[test]
fn docker_profile_rules_follow_the_capabilities() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64",
        "subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]},{"architecture":"SCMP_ARCH_AARCH64"}],
        "syscalls":[{"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
        {"names":["umount2"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]}},
        {"names":["sync_file_range2"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["ppc64le"]}}]}"#;
    let admin = profile(json, &["CAP_SYS_ADMIN"]);
    assert_eq!(run(&admin, X86_64, 165, [0; 6]), ALLOW);
    assert_eq!(run(&admin, X86, 21, [0; 6]), ALLOW);
    assert_eq!(run(&profile(json, &[]), X86_64, 166, [0; 6]), ALLOW);
    assert_ne!(run(&profile(json, &[]), X86_64, 165, [0; 6]), ALLOW);
}

#[test]
fn runtime_default_keeps_its_promises() {
    let none = program(&super::super::runtime_default(&BTreeSet::new()));
    let admin = BTreeSet::from(["CAP_SYS_ADMIN".to_owned()]);
    let admin = program(&super::super::runtime_default(&admin));
    let call = |filter: &[Insn], name: &str, args| {
        run(filter, X86_64, Abi::X86_64.number(name).expect(name), args)
    };
    for name in [
        "read",
        "execve",
        "futex",
        "openat",
        "statx",
        "clock_nanosleep",
        "rseq",
    ] {
        assert_eq!(call(&none, name, [0; 6]), ALLOW, "{name}");
    }
    for name in [
        "mount",
        "unshare",
        "setns",
        "keyctl",
        "add_key",
        "bpf",
        "reboot",
        "kexec_load",
    ] {
        assert_eq!(call(&none, name, [0; 6]), EPERM, "{name}");
    }
    assert_eq!(call(&none, "clone3", [0; 6]), NO_SYS);
    assert_eq!(call(&none, "clone", [0x1000_0000, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(call(&none, "socket", [40, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(call(&none, "socket", [2, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(call(&admin, "clone3", [0; 6]), ALLOW);
    assert_eq!(call(&admin, "mount", [0; 6]), ALLOW);
    assert_eq!(
        run(
            &none,
            X86,
            Abi::X86.number("socketcall").expect("x86"),
            [0; 6]
        ),
        ALLOW
    );
    assert!(none.len() < 600, "{} instructions", none.len());
}

#[test]
fn program_bytes_are_the_kernels_struct() {
    let filter = profile(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#,
        &[],
    );
    let bytes = bpf::bytes(&filter);
    assert_eq!(bytes.len(), filter.len() * 8);
    // load the architecture; is it x86-64?
    assert_eq!(bytes[..8], [0x20, 0, 0, 0, 4, 0, 0, 0]);
    assert_eq!(bytes[8..10], [0x15, 0]);
    assert_eq!(bytes[12..16], 0xC000_003E_u32.to_ne_bytes());
    assert_eq!(bytes[bytes.len() - 4..], KILL.to_ne_bytes());
}
