//! Every crictl command against `lighter runtime`, on a machine of its own.
//!
//! `cargo test --workspace --test crictl -- --ignored [FILTER]`; `NODE=stock` runs the same cases
//! on containerd + runc, as the control of a case that fails.

mod containers;
mod images;
mod kit;
mod logs;
mod pods;
mod settings;
mod stats;
mod streams;

use anyhow::{Result, bail};
use e2e::cluster::Bed;
use e2e::cri::{Options, Stand};
use e2e::image::catalog;
use e2e::node::Kind;
use e2e::progress::step;
use kit::{Case, Kit};
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Instant;

fn all() -> Vec<Case> {
    [
        images::CASES,
        pods::CASES,
        containers::CASES,
        logs::CASES,
        streams::CASES,
        stats::CASES,
        settings::CASES,
    ]
    .concat()
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let given = |flag: &str| args.iter().any(|a| a == flag);
    let filters: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let wanted = |c: &Case| filters.is_empty() || filters.iter().any(|f| c.name.contains(&***f));
    let cases: Vec<Case> = all().into_iter().filter(wanted).collect();
    if given("--list") {
        cases.iter().for_each(|c| println!("{}: test", c.name));
        return ExitCode::SUCCESS;
    }
    if !given("--ignored") && !given("--include-ignored") {
        println!(
            "{} cases of crictl not run: they need root (--ignored)",
            cases.len()
        );
        return ExitCode::SUCCESS;
    }
    if cases.is_empty() {
        return ExitCode::SUCCESS;
    }
    match run(&cases, filters.is_empty()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crictl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cases: &[Case], whole: bool) -> Result<bool> {
    let bed = Bed::new(env!("CARGO_BIN_EXE_bed").into());
    let kind = match std::env::var("NODE").as_deref() {
        Ok("stock") => Kind::Stock,
        Ok("lighter") | Err(_) => Kind::Lighter,
        Ok(other) => bail!("NODE={other}: lighter or stock"),
    };
    let options = Options {
        name: "crictl",
        kind,
        lighter: None,
        private: false,
        images: &[catalog::BUSYBOX_IMAGE, catalog::NGINX],
    };
    let stand = step(&format!("{kind} and the registry up"), || {
        Stand::up(&bed, &options)
    })?;
    let kit = Kit::new(&stand);
    let outcome = kit.prepare().map(|()| batch(&kit, cases));
    let forgotten = kit.forgotten();
    drop(kit);
    stand.down()?;
    let (passed, mut failed) = outcome?;
    if whole {
        for command in forgotten? {
            println!("case for crictl {command}: none");
            failed += 1;
        }
    }
    println!("crictl: {passed} passed, {failed} failed");
    Ok(failed == 0)
}

fn batch(kit: &Kit, cases: &[Case]) -> (usize, usize) {
    let (mut passed, mut failed) = (0, 0);
    for case in cases {
        let start = Instant::now();
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| (case.run)(kit)));
        let result = result.unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")));
        let time = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                passed += 1;
                println!("case {} ... ok ({time:.1} s)", case.name);
            }
            Err(error) => {
                failed += 1;
                println!("case {} ... FAILED ({time:.1} s): {error:#}", case.name);
            }
        }
    }
    (passed, failed)
}
