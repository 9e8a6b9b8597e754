//! The pod's pid 1 as a static ELF file, put together by hand: one page.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.lighter_pod_init, \"a\"",
    ".global lighter_pod_init_start",
    ".global lighter_pod_init_end",
    "lighter_pod_init_start:",
    // rt_sigprocmask(SIG_BLOCK, &set, NULL, 8): blocked signals are kept for us
    // even though pid 1 would otherwise ignore them.
    "mov eax, 14",
    "xor edi, edi",
    "lea rsi, [rip + 4f]",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    // rt_sigtimedwait(&set, NULL, NULL, 8)
    "2:",
    "mov eax, 128",
    "lea rdi, [rip + 4f]",
    "xor esi, esi",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    "cmp eax, 15", // SIGTERM
    "je 5f",
    "cmp eax, 2", // SIGINT
    "je 5f",
    // wait4(-1, NULL, WNOHANG, NULL) until nobody is left to reap
    "3:",
    "mov eax, 61",
    "mov rdi, -1",
    "xor esi, esi",
    "mov edx, 1",
    "xor r10d, r10d",
    "syscall",
    "test eax, eax",
    "jg 3b",
    "jmp 2b",
    // exit(0)
    "5:",
    "mov eax, 60",
    "xor edi, edi",
    "syscall",
    // SIGINT, SIGTERM, SIGCHLD
    "4: .quad (1 << 1) | (1 << 14) | (1 << 16)",
    "lighter_pod_init_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .rodata.lighter_pod_init, \"a\"",
    ".global lighter_pod_init_start",
    ".global lighter_pod_init_end",
    "lighter_pod_init_start:",
    "mov x8, #135", // rt_sigprocmask
    "mov x0, #0",
    "adr x1, 4f",
    "mov x2, #0",
    "mov x3, #8",
    "svc #0",
    "2:",
    "mov x8, #137", // rt_sigtimedwait
    "adr x0, 4f",
    "mov x1, #0",
    "mov x2, #0",
    "mov x3, #8",
    "svc #0",
    "cmp x0, #15",
    "b.eq 5f",
    "cmp x0, #2",
    "b.eq 5f",
    "3:",
    "mov x8, #260", // wait4
    "mov x0, #-1",
    "mov x1, #0",
    "mov x2, #1",
    "mov x3, #0",
    "svc #0",
    "cmp x0, #0",
    "b.gt 3b",
    "b 2b",
    "5:",
    "mov x8, #93", // exit
    "mov x0, #0",
    "svc #0",
    ".balign 8",
    "4: .quad (1 << 1) | (1 << 14) | (1 << 16)",
    "lighter_pod_init_end:",
    ".popsection",
);

unsafe extern "C" {
    static lighter_pod_init_start: u8;
    static lighter_pod_init_end: u8;
}

/// Where it is loaded; any page that is not the zero page.
const BASE: u64 = 0x10000;
/// ELF header and one program header (gabi ELF-64).
const HEADERS: usize = 64 + 56;

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// The program's file.
pub fn pod_init() -> Vec<u8> {
    let start = &raw const lighter_pod_init_start;
    let end = &raw const lighter_pod_init_end;
    // SAFETY: both symbols bound one block of read-only data that the assembler
    // above has written in one section, the start first.
    let code = unsafe { std::slice::from_raw_parts(start, end.offset_from(start) as usize) };
    let size = (HEADERS + code.len()) as u64;
    let mut file = Vec::with_capacity(size as usize);
    file.extend_from_slice(b"\x7fELF\x02\x01\x01");
    file.resize(16, 0);
    for half in [2u16, MACHINE] {
        file.extend_from_slice(&half.to_le_bytes()); // ET_EXEC
    }
    file.extend_from_slice(&1u32.to_le_bytes());
    for word in [BASE + HEADERS as u64, 64, 0] {
        file.extend_from_slice(&word.to_le_bytes()); // entry, program headers, sections
    }
    file.extend_from_slice(&0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    for word in [1u32, 5] {
        file.extend_from_slice(&word.to_le_bytes()); // PT_LOAD, read and execute
    }
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(code);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn pod_init_ends_when_it_is_told_to() {
        let path = std::env::temp_dir().join(format!("lighter-init-{}", std::process::id()));
        let mut file = std::fs::File::create(&path).expect("create");
        file.write_all(&pod_init()).expect("write");
        file.set_permissions(std::fs::Permissions::from_mode(0o755))
            .expect("chmod");
        drop(file);
        let mut child = std::process::Command::new(&path)
            .spawn()
            .expect("it is a program");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
        let status = child.wait().expect("wait");
        let _ = std::fs::remove_file(&path);
        // Killed by the signal if it came before the mask was set; never a fault.
        assert!(
            status.code() == Some(0) || status.signal() == Some(15),
            "{status}"
        );
    }
}
