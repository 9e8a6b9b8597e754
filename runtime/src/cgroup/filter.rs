//! The device filter of cgroup v2: rules as a program of
//! `BPF_PROG_TYPE_CGROUP_DEVICE`. Only data here; `apply` has it attached.
//!
//! The kernel runs it for every open and mknod of a device with a
//! `struct bpf_cgroup_dev_ctx` (include/uapi/linux/bpf.h) and allows what it
//! answers 1 to. Instructions as Documentation/bpf/standardization/instruction-set.rst
//! has them.

use super::devices::{Access, DeviceRule, Kind};

/// Registers: r0 is the answer, r1 the context when the program starts.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// Offsets in the context; the first word is the access above the type.
const ACCESS_AND_TYPE: i16 = 0;
const MAJOR_AT: i16 = 4;
const MINOR_AT: i16 = 8;

/// include/uapi/linux/bpf.h `BPF_DEVCG_DEV_*` and `BPF_DEVCG_ACC_*`.
const BLOCK: i32 = 1;
const CHAR: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// Opcodes: a class with an operation, 32 bits wide.
mod op {
    /// `BPF_LDX | BPF_MEM | BPF_W`
    pub const LOAD: u8 = 0x61;
    /// `BPF_ALU | BPF_MOV`, of a constant and of a register.
    pub const SET: u8 = 0xb4;
    pub const COPY: u8 = 0xbc;
    /// `BPF_ALU | BPF_AND` and `BPF_RSH` with a constant.
    pub const AND: u8 = 0x54;
    pub const SHIFT_RIGHT: u8 = 0x74;
    /// `BPF_JMP32 | BPF_JNE`, with a constant and with a register.
    pub const UNLESS: u8 = 0x56;
    pub const UNLESS_SAME: u8 = 0x5e;
    /// `BPF_JMP | BPF_EXIT`
    pub const EXIT: u8 = 0x95;
}

/// `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    to: u8,
    from: u8,
    offset: i16,
    constant: i32,
}

impl Instruction {
    const fn new(code: u8, to: u8, from: u8, constant: i32) -> Self {
        Self {
            code,
            to,
            from,
            offset: 0,
            constant,
        }
    }

    const fn load(to: u8, offset: i16) -> Self {
        Self {
            offset,
            ..Self::new(op::LOAD, to, CONTEXT, 0)
        }
    }

    fn bytes(self) -> [u8; 8] {
        let mut out = [0; 8];
        out[0] = self.code;
        out[1] = self.from << 4 | self.to;
        out[2..4].copy_from_slice(&self.offset.to_ne_bytes());
        out[4..8].copy_from_slice(&self.constant.to_ne_bytes());
        out
    }
}

/// The program that allows what a rule allows and nothing else; `None` when
/// everything is allowed.
pub(super) fn program(rules: &[DeviceRule]) -> Option<Vec<u8>> {
    let all = instructions(rules)?;
    Some(all.into_iter().flat_map(Instruction::bytes).collect())
}

fn instructions(rules: &[DeviceRule]) -> Option<Vec<Instruction>> {
    let mut out = vec![
        Instruction::load(TYPE, ACCESS_AND_TYPE),
        Instruction::new(op::COPY, ACCESS, TYPE, 0),
        Instruction::new(op::AND, TYPE, 0, 0xffff),
        Instruction::new(op::SHIFT_RIGHT, ACCESS, 0, 16),
        Instruction::load(MAJOR, MAJOR_AT),
        Instruction::load(MINOR, MINOR_AT),
    ];
    for rule in rules {
        let kind = match rule.kind {
            Kind::All => return None,
            Kind::Char => CHAR,
            Kind::Block => BLOCK,
        };
        out.extend(allow(rule, kind));
    }
    out.extend(answer(0));
    Some(out)
}

/// Goes on behind itself when the rule does not fit.
fn allow(rule: &DeviceRule, kind: i32) -> Vec<Instruction> {
    let mut out = vec![
        Instruction::new(op::UNLESS, TYPE, 0, kind),
        // All that is wanted has to be among what is allowed.
        Instruction::new(op::COPY, SCRATCH, ACCESS, 0),
        Instruction::new(op::AND, SCRATCH, 0, bits(rule.access)),
        Instruction::new(op::UNLESS_SAME, SCRATCH, ACCESS, 0),
    ];
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        let compare = |n: u32| Instruction::new(op::UNLESS, register, 0, n.cast_signed());
        out.extend(number.map(compare));
    }
    out.extend(answer(1));
    let end = out.len();
    for (at, instruction) in out.iter_mut().enumerate() {
        if matches!(instruction.code, op::UNLESS | op::UNLESS_SAME) {
            // A rule is ten instructions at most.
            instruction.offset = (end - at - 1) as i16;
        }
    }
    out
}

fn answer(value: i32) -> [Instruction; 2] {
    [
        Instruction::new(op::SET, ANSWER, 0, value),
        Instruction::new(op::EXIT, 0, 0, 0),
    ]
}

fn bits(access: Access) -> i32 {
    let bit = |given: bool, bit: i32| if given { bit } else { 0 };
    bit(access.mknod, MKNOD) | bit(access.read, READ) | bit(access.write, WRITE)
}

#[cfg(test)]
mod tests {
    use super::super::default_rules;
    use super::*;

    /// A device and what is wanted of it, as the kernel puts it.
    #[derive(Clone, Copy)]
    struct Wanted {
        kind: i32,
        major: u32,
        minor: u32,
        access: i32,
    }

    /// Runs the program's bytes as the kernel would.
    fn allowed(rules: &[DeviceRule], wanted: Wanted) -> bool {
        let Some(bytes) = program(rules) else {
            return true;
        };
        let first = (wanted.access << 16 | wanted.kind).cast_unsigned();
        let context = [first, wanted.major, wanted.minor];
        let (code, _) = bytes.as_chunks::<8>();
        let mut registers = [0u32; 11];
        let mut at = 0;
        loop {
            let bytes = code[at];
            let (to, from) = (usize::from(bytes[1] & 15), usize::from(bytes[1] >> 4));
            let offset = i16::from_ne_bytes([bytes[2], bytes[3]]);
            let constant = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            at += 1;
            match bytes[0] {
                0x61 => registers[to] = context[usize::try_from(offset / 4).expect("offset")],
                0xb4 => registers[to] = constant,
                0xbc => registers[to] = registers[from],
                0x54 => registers[to] &= constant,
                0x74 => registers[to] >>= constant,
                0x56 if registers[to] != constant => at += usize::try_from(offset).expect("on"),
                0x5e if registers[to] != registers[from] => {
                    at += usize::try_from(offset).expect("on");
                }
                0x56 | 0x5e => {}
                0x95 => return registers[0] == 1,
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    fn char(major: u32, minor: u32, access: i32) -> Wanted {
        Wanted {
            kind: CHAR,
            major,
            minor,
            access,
        }
    }

    #[test]
    fn default_rules_open_harmless_devices_and_only_make_others() {
        let rules = default_rules();
        for harmless in [
            (1, 3),
            (1, 5),
            (1, 7),
            (1, 8),
            (1, 9),
            (5, 0),
            (5, 2),
            (136, 7),
        ] {
            assert!(
                allowed(&rules, char(harmless.0, harmless.1, READ | WRITE)),
                "{harmless:?}"
            );
        }
        for other in [(1, 1), (10, 229), (5, 3), (0, 0), (137, 0)] {
            assert!(!allowed(&rules, char(other.0, other.1, READ)), "{other:?}");
            assert!(allowed(&rules, char(other.0, other.1, MKNOD)), "{other:?}");
        }
        let disk = Wanted {
            kind: BLOCK,
            ..char(8, 0, READ)
        };
        assert!(!allowed(&rules, disk));
        assert!(allowed(
            &rules,
            Wanted {
                access: MKNOD,
                ..disk
            }
        ));
        assert!(!allowed(
            &rules,
            Wanted {
                access: MKNOD | READ,
                ..disk
            }
        ));
    }

    #[test]
    fn kind_major_minor_and_every_access_count() {
        let rule = DeviceRule {
            kind: Kind::Block,
            major: Some(8),
            minor: None,
            access: Access::parse("r"),
        };
        let rules = [rule];
        let disk = Wanted {
            kind: BLOCK,
            major: 8,
            minor: 17,
            access: READ,
        };
        assert!(allowed(&rules, disk));
        assert!(!allowed(
            &rules,
            Wanted {
                access: READ | WRITE,
                ..disk
            }
        ));
        assert!(!allowed(&rules, Wanted { major: 9, ..disk }));
        assert!(!allowed(&rules, Wanted { kind: CHAR, ..disk }));
    }

    #[test]
    fn nothing_is_allowed_without_rules_and_all_with_the_privileged_one() {
        assert!(!allowed(&[], char(1, 3, READ)));
        assert_eq!(program(&[DeviceRule::ANY]), None);
    }

    #[test]
    fn largest_numbers_are_told_apart_when_their_sign_bit_is_set() {
        let rule = DeviceRule {
            kind: Kind::Char,
            major: Some(u32::MAX),
            minor: Some(1 << 31),
            access: Access::ALL,
        };
        assert!(allowed(
            std::slice::from_ref(&rule),
            char(u32::MAX, 1 << 31, READ)
        ));
        assert!(!allowed(&[rule], char(u32::MAX, 0, READ)));
    }
}
