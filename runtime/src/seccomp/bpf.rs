//! Classic BPF as seccomp uses it, and comparisons of 64-bit arguments in it.
//!
//! Every piece of code here falls through at its end when it holds, so pieces
//! are put together by concatenation; jumps are relative.

use super::profile::Arg;
use oci_spec::runtime::LinuxSeccompOperator as Op;

/// `struct sock_filter` of linux/filter.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Insn {
    pub code: u16,
    /// Instructions skipped when the comparison holds.
    pub jt: u8,
    /// Instructions skipped when it doesn't.
    pub jf: u8,
    pub k: u32,
}

// linux/bpf_common.h: class | size or operation | mode or source.
pub(super) const LD_ABS: u16 = 0x20;
pub(super) const JEQ: u16 = 0x15;
pub(super) const JGT: u16 = 0x25;
pub(super) const JGE: u16 = 0x35;
pub(super) const JA: u16 = 0x05;
pub(super) const RET: u16 = 0x06;
pub(super) const AND: u16 = 0x54;

// linux/seccomp.h, `struct seccomp_data`.
pub(super) const NR: u32 = 0;
pub(super) const ARCH: u32 = 4;
const ARGS: u32 = 16;

pub(super) fn load(offset: u32) -> Insn {
    op(LD_ABS, offset)
}

pub(super) fn ret(action: u32) -> Insn {
    op(RET, action)
}

pub(super) fn op(code: u16, k: u32) -> Insn {
    jump(code, k, 0, 0)
}

pub(super) fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Insn {
    Insn { code, jt, jf, k }
}

/// Goes on with `then` when `code` holds for `k`, else with what follows it.
pub(super) fn when(code: u16, k: u32, then: &[Insn]) -> Vec<Insn> {
    let mut out = match u8::try_from(then.len()) {
        Ok(len) => vec![jump(code, k, 0, len)],
        // Conditional jumps reach 255 instructions; JA reaches all.
        Err(_) => vec![jump(code, k, 1, 0), op(JA, then.len() as u32)],
    };
    out.extend_from_slice(then);
    out
}

/// Falls through when `arg` holds, else skips also the `rest` instructions
/// that follow. `rest` stays far below 250: six arguments at most.
pub(super) fn check(arg: &Arg, rest: u8) -> Vec<Insn> {
    let low = load(ARGS + 8 * u32::from(arg.index));
    let high = load(ARGS + 8 * u32::from(arg.index) + 4);
    let (h, l) = ((arg.value >> 32) as u32, arg.value as u32);
    match arg.op {
        Op::ScmpCmpEq => vec![high, jump(JEQ, h, 0, rest + 2), low, jump(JEQ, l, 0, rest)],
        Op::ScmpCmpNe => vec![high, jump(JEQ, h, 0, 2), low, jump(JEQ, l, rest, 0)],
        Op::ScmpCmpGt | Op::ScmpCmpGe => vec![
            high,
            jump(JGT, h, 3, 0),
            jump(JEQ, h, 0, rest + 2),
            low,
            jump(if arg.op == Op::ScmpCmpGt { JGT } else { JGE }, l, 0, rest),
        ],
        Op::ScmpCmpLt | Op::ScmpCmpLe => vec![
            high,
            jump(JGT, h, rest + 3, 0),
            jump(JEQ, h, 0, 2),
            low,
            jump(if arg.op == Op::ScmpCmpLt { JGE } else { JGT }, l, rest, 0),
        ],
        Op::ScmpCmpMaskedEq => {
            let (vh, vl) = ((arg.value_two >> 32) as u32, arg.value_two as u32);
            vec![
                high,
                op(AND, h),
                jump(JEQ, vh, 0, rest + 3),
                low,
                op(AND, l),
                jump(JEQ, vl, 0, rest),
            ]
        }
    }
}

/// The bytes that seccomp(2) takes.
pub(super) fn bytes(program: &[Insn]) -> Vec<u8> {
    let mut out = Vec::with_capacity(program.len() * 8);
    for insn in program {
        out.extend_from_slice(&insn.code.to_ne_bytes());
        out.extend_from_slice(&[insn.jt, insn.jf]);
        out.extend_from_slice(&insn.k.to_ne_bytes());
    }
    out
}
