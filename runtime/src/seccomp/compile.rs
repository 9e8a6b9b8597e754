//! From a profile to BPF: for each ABI a binary search over runs of call
//! numbers that have the same outcome, argument checks at its leaves.

use super::bpf::{self, ARCH, Insn, JEQ, JGE, NR, check, load, ret, when};
use super::profile::{Arg, Outcome, Profile, Rule};
use super::syscall_table::Abi;
use oci_spec::runtime::LinuxSeccompAction as Action;
use std::collections::BTreeMap;

/// Why a profile can't be compiled.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CompileError {
    #[error("{length} instructions, and the kernel takes {max}")]
    TooLong { length: usize, max: usize },
}

/// linux/bpf_common.h `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;

/// arch/x86/include/uapi/asm/unistd.h `__X32_SYSCALL_BIT`.
const X32: u32 = 0x4000_0000;

/// errno of a call that the kernel does not have.
const ENOSYS: u32 = 38;

/// What happens to one call.
#[derive(Debug, Clone, Default)]
struct Decision<'a> {
    /// Tried in order.
    conditional: Vec<(&'a [Arg], Outcome)>,
    /// When no condition holds; `None` = the profile's default.
    otherwise: Option<Outcome>,
}

/// A run of numbers from `start` up to the next run's start.
struct Run {
    start: u32,
    code: Vec<Insn>,
}

/// Compiles a profile to the bytes of `struct sock_filter[]`.
///
/// # Errors
/// When the kernel would refuse its length.
pub fn compile(profile: &Profile) -> Result<Vec<u8>, CompileError> {
    let program = program(profile);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(CompileError::TooLong {
            length: program.len(),
            max: MAX_INSTRUCTIONS,
        });
    }
    Ok(bpf::bytes(&program))
}

pub(super) fn program(profile: &Profile) -> Vec<Insn> {
    let mut program = vec![load(ARCH)];
    for &abi in &profile.abis {
        let mut block = vec![load(NR)];
        block.extend(search(&runs(profile, abi)));
        program.extend(when(JEQ, abi.audit(), &block));
    }
    program.push(ret(Outcome::of(Action::ScmpActKillProcess).value()));
    program
}

/// All numbers, cut where the outcome changes.
fn runs(profile: &Profile, abi: Abi) -> Vec<Run> {
    let decisions = decisions(profile, abi);
    let mut runs: Vec<Run> = Vec::new();
    let mut push = |start: u32, code: Vec<Insn>| {
        runs.pop_if(|last| last.start == start);
        if runs.last().is_none_or(|last| last.code != code) {
            runs.push(Run { start, code });
        }
    };
    let default = vec![ret(profile.default.value())];
    push(0, default.clone());
    for (&number, decision) in &decisions {
        push(number, leaf(decision, profile.default));
        push(number + 1, default.clone());
    }
    // A call newer than the profile is unknown to it rather than forbidden:
    // programs fall back on ENOSYS, but not on EPERM.
    let newest = decisions.keys().next_back().copied().unwrap_or(0);
    let unknown = vec![ret(Outcome {
        action: Action::ScmpActErrno,
        errno: Some(ENOSYS),
    }
    .value())];
    if profile.default.action == Action::ScmpActErrno && newest > 0 {
        push(newest + 1, unknown.clone());
    }
    if abi == Abi::X86_64 && newest < X32 {
        push(X32, unknown);
    }
    runs
}

fn decisions(profile: &Profile, abi: Abi) -> BTreeMap<u32, Decision<'_>> {
    let mut decisions: BTreeMap<u32, Decision<'_>> = BTreeMap::new();
    for rule in &profile.rules {
        for number in rule.names.iter().filter_map(|name| abi.number(name)) {
            add(decisions.entry(number).or_default(), rule);
        }
    }
    decisions
}

fn add<'a>(decision: &mut Decision<'a>, rule: &'a Rule) {
    if rule.args.is_empty() {
        decision.otherwise.get_or_insert(rule.outcome);
        return;
    }
    let twice = |arg: &Arg| rule.args.iter().filter(|a| a.index == arg.index).count() > 1;
    if rule.args.iter().any(twice) {
        let each = rule.args.iter().map(std::slice::from_ref);
        decision
            .conditional
            .extend(each.map(|arg| (arg, rule.outcome)));
    } else {
        decision.conditional.push((&rule.args, rule.outcome));
    }
}

fn leaf(decision: &Decision<'_>, default: Outcome) -> Vec<Insn> {
    let mut code = Vec::new();
    for (args, outcome) in &decision.conditional {
        code.extend(rule(args, *outcome));
    }
    code.push(ret(decision.otherwise.unwrap_or(default).value()));
    code
}

/// Answers `outcome` when all hold, else goes on behind itself.
fn rule(args: &[Arg], outcome: Outcome) -> Vec<Insn> {
    let mut code = vec![ret(outcome.value())];
    for arg in args.iter().rev() {
        let mut checked = check(arg, code.len() as u8);
        checked.append(&mut code);
        code = checked;
    }
    code
}

fn search(runs: &[Run]) -> Vec<Insn> {
    if let [run] = runs {
        return run.code.clone();
    }
    let (low, high) = runs.split_at(runs.len() / 2);
    let mut code = when(JGE, high[0].start, &search(high));
    code.extend(search(low));
    code
}

#[cfg(test)]
mod tests;
