//! The kernel's side of a filter, for tests: runs it on one call.

use super::bpf::{AND, Insn, JA, JEQ, JGE, JGT, LD_ABS, RET};

/// What the filter answers for a call; panics where the kernel would refuse
/// the program.
pub(super) fn run(program: &[Insn], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend_from_slice(&number.to_ne_bytes());
    data.extend_from_slice(&arch.to_ne_bytes());
    data.extend_from_slice(&0_u64.to_ne_bytes());
    for arg in args {
        data.extend_from_slice(&arg.to_ne_bytes());
    }
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let insn = program[at];
        at += 1;
        let holds = match insn.code {
            LD_ABS => {
                let offset = insn.k as usize;
                let word = data[offset..offset + 4].try_into().expect("a word");
                accumulator = u32::from_ne_bytes(word);
                continue;
            }
            AND => {
                accumulator &= insn.k;
                continue;
            }
            JA => {
                at += insn.k as usize;
                continue;
            }
            RET => return insn.k,
            JEQ => accumulator == insn.k,
            JGT => accumulator > insn.k,
            JGE => accumulator >= insn.k,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if holds { insn.jt } else { insn.jf });
    }
}
