//! Running programs: every failure is one line that names the program and quotes its last words.

use anyhow::{Result, anyhow};
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs to the end and returns stdout; fails on a non-zero exit.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failure(command, &output))
}

/// Runs to the end whatever the exit code is; fails only if it can't be started.
pub fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| anyhow!("{}: {e}", command.get_program().to_string_lossy()))
}

/// As [`run`], with `input` on stdin.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| anyhow!("{}: {e}", command.get_program().to_string_lossy()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input)?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failure(command, &output))
}

fn failure(command: &Command, output: &Output) -> anyhow::Error {
    anyhow!(
        "{}: {}: {}",
        described(command),
        output.status,
        last_words(output)
    )
}

/// The command line without what the bed puts in front of a program inside a machine.
fn described(command: &Command) -> String {
    let all: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let start = all.iter().position(|a| a == "--").map_or(0, |i| i + 1);
    all[start.min(all.len() - 1)..]
        .iter()
        .take(8)
        .cloned()
        .collect::<Vec<_>>()
        .join(" ")
}

fn last_words(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text
        .lines()
        .rev()
        .find(|l| !l.trim().is_empty())
        .unwrap_or("no output");
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_quotes_the_last_line_when_a_program_fails() {
        let error = run(Command::new("sh").args(["-c", "echo first; echo last >&2; exit 3"]));
        let text = error.expect_err("exit 3 is a failure").to_string();
        assert!(text.contains("last") && text.contains('3'), "{text}");
    }

    #[test]
    fn run_names_the_program_when_it_does_not_exist() {
        let error = run(&mut Command::new("no-such-program")).expect_err("must fail");
        assert!(
            error.to_string().starts_with("no-such-program: "),
            "{error}"
        );
    }
}
