//! The kernel's floor: what a pod's start, an exec and a teardown take of system calls alone,
//! measured by a small program (`floor.c`) on the same machine in the same run.

use crate::bench::table::percentile;
use crate::cluster::Bed;
use crate::command;
use crate::cri::Stand;
use crate::image::busybox;
use anyhow::{Context, Result};
use std::process::Command;

const SOURCE: &str = include_str!("floor.c");
/// The name of a verb's sum.
const ALL: &str = "all";

/// A step of a verb and its median in milliseconds, in order.
pub type Floor = Vec<(String, String, f64)>;

/// The linker of our own build compiles it.
pub fn measure(bed: &Bed, stand: &Stand) -> Result<Floor> {
    let dir = &stand.machine.dir;
    let (source, program) = (dir.join("floor.c"), dir.join("floor"));
    std::fs::write(&source, SOURCE)?;
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-o"]).args([&program, &source]);
    command::run(&mut compiler).context("compile floor.c")?;
    stand.machine.install(&program, "floor")?;
    let busybox = busybox::program(&bed.cache)?;
    stand.machine.install(&busybox, "floor-busybox")?;
    let ran = stand
        .machine
        .run("floor", &["/usr/local/bin/floor-busybox"]);
    let printed = ran.context("the kernel's floor")?;
    printed.lines().map(step).collect()
}

fn step(line: &str) -> Result<(String, String, f64)> {
    let mut fields = line.split('\t');
    let mut next = || fields.next().with_context(|| format!("{line:?}"));
    Ok((next()?.to_owned(), next()?.to_owned(), next()?.parse()?))
}

/// Each verb's steps, and ours beside their sum.
pub fn draw(floor: &Floor, ours: &[(&str, &[f64])]) -> String {
    let mut text =
        "\nthe kernel's floor: the same system calls from C, one after another, p50, ms\n"
            .to_owned();
    for (verb, took) in ours {
        for (_, name, ms) in floor.iter().filter(|(v, ..)| v == verb) {
            let name = if name == ALL {
                verb
            } else {
                &format!("  {name}")[..]
            };
            text += &format!("{name:<36}{ms:>8.2}\n");
        }
        text += &format!(
            "{:<36}{:>8.2}\n",
            format!("  {verb} by Lighter"),
            percentile(took, 50)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_stands_below_its_steps_and_ours_below_the_sum() {
        let lines = ["start\tcgroups\t0.5", "start\tall\t2.25", "exec\tall\t1.0"];
        let floor: Floor = lines.iter().map(|l| step(l).expect(l)).collect();
        let text = draw(&floor, &[("start", &[4.0, 5.0, 6.0])]);
        let rows: Vec<_> = text.lines().skip(2).collect();
        let numbers: Vec<_> = rows
            .iter()
            .filter_map(|r| r.split_whitespace().last())
            .collect();
        assert_eq!(numbers, ["0.50", "2.25", "5.00"], "{text}");
        assert!(rows[1].starts_with("start "), "{text}");
    }
}
