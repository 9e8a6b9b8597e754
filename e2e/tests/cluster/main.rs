//! Everything that needs a cluster. One is brought up for the run; each test has a namespace.
//!
//! `cargo test -p e2e -- --ignored [FILTER]`; `NODE=stock` runs the same tests on the stock node,
//! as the control of a test that fails. `JOBS` tests run side by side (default 4); `KEEP=1` leaves
//! the cluster up and uses it again.

mod admission;
mod bad_input;
mod basics;
mod bed;
mod certificates;
mod changing;
mod commands;
mod containers;
mod csi;
mod debug;
mod devices;
mod doctor;
mod dra;
mod eviction;
mod gc;
mod huge_pages;
mod kit;
mod kubeadm;
mod kubelet_flags;
mod lifecycle;
mod logind;
mod managers;
mod manners;
mod metrics;
mod network;
mod node_limits;
mod pod_api;
mod pod_certificates;
mod pod_resources;
mod pressure;
mod probes;
mod resize;
mod server;
mod shutdown;
mod storage;
mod streams;
mod survival;
mod swap;
mod systemd;
mod traces;
mod volumes;

use anyhow::Result;
use kit::{Suite, Test};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

fn all() -> Vec<Test> {
    [
        basics::TESTS,
        streams::TESTS,
        containers::TESTS,
        lifecycle::TESTS,
        probes::TESTS,
        volumes::TESTS,
        server::TESTS,
        debug::TESTS,
        network::TESTS,
        bad_input::TESTS,
        admission::TESTS,
        gc::TESTS,
        survival::TESTS,
        eviction::TESTS,
        node_limits::TESTS,
        pod_api::TESTS,
        pod_certificates::TESTS,
        kubelet_flags::TESTS,
        kubeadm::TESTS,
        devices::TESTS,
        pod_resources::TESTS,
        managers::TESTS,
        huge_pages::TESTS,
        dra::TESTS,
        changing::TESTS,
        resize::TESTS,
        swap::TESTS,
        storage::TESTS,
        csi::TESTS,
        metrics::TESTS,
        pressure::TESTS,
        traces::TESTS,
        certificates::TESTS,
        doctor::TESTS,
        shutdown::TESTS,
        commands::TESTS,
        bed::TESTS,
        // Last: it is about all the others.
        manners::TESTS,
    ]
    .concat()
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let given = |flag: &str| args.iter().any(|a| a == flag);
    let mut value = false;
    let filters: Vec<&String> = args
        .iter()
        .filter(|a| {
            let skip = std::mem::replace(&mut value, *a == "--test-threads");
            !skip && !a.starts_with('-')
        })
        .collect();
    let wanted = |t: &Test| filters.is_empty() || filters.iter().any(|f| t.name.contains(&***f));
    let tests: Vec<Test> = all().into_iter().filter(wanted).collect();
    if given("--list") {
        tests.iter().for_each(|t| println!("{}: test", t.name));
        return ExitCode::SUCCESS;
    }
    if !given("--ignored") && !given("--include-ignored") {
        println!(
            "{} cluster tests not run: they need root and a cluster (--ignored)",
            tests.len()
        );
        return ExitCode::SUCCESS;
    }
    if tests.is_empty() {
        return ExitCode::SUCCESS;
    }
    match run(tests) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cluster tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn split(tests: Vec<Test>, first: impl Fn(&Test) -> bool) -> (Vec<Test>, Vec<Test>) {
    tests.into_iter().partition(|t| first(t))
}

/// Tests that may disturb others run alone, after the rest.
fn run(tests: Vec<Test>) -> Result<bool> {
    let suite = Suite::up()?;
    let (tests, other) = split(tests, |t| t.not_for(suite.kind()).is_none());
    let (alone, together) = split(tests, |t| t.alone);
    for test in &other {
        let why = test.not_for(suite.kind()).unwrap_or_default();
        println!("test {} ... not run: {why}", test.name);
    }
    let count = alone.len() + together.len();
    let jobs = std::env::var("JOBS")
        .ok()
        .and_then(|j| j.parse().ok())
        .unwrap_or(4);
    let start = Instant::now();
    let mut failed = batch(&suite, together, jobs);
    failed.extend(batch(&suite, alone, 1));
    println!(
        "cluster tests on {}: {} passed, {} failed, {} not run, {:.0} s",
        suite.kind(),
        count - failed.len(),
        failed.len(),
        other.len(),
        start.elapsed().as_secs_f64()
    );
    for (name, error) in &failed {
        println!("  FAILED {name}: {error}");
    }
    suite.down()?;
    Ok(failed.is_empty())
}

fn batch(suite: &Suite, tests: Vec<Test>, jobs: usize) -> Vec<(&'static str, String)> {
    let queue = Mutex::new(VecDeque::from(tests));
    let failed = Mutex::new(Vec::new());
    let next = || queue.lock().ok()?.pop_front();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(test) = next() {
                    let start = Instant::now();
                    let result = std::panic::catch_unwind(AssertUnwindSafe(|| suite.run(&test)));
                    let result = result.unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")));
                    let time = start.elapsed().as_secs_f64();
                    match result {
                        Ok(()) => println!("test {} ... ok ({time:.1} s)", test.name),
                        Err(error) => {
                            println!("test {} ... FAILED ({time:.1} s): {error:#}", test.name);
                            if let Ok(mut failed) = failed.lock() {
                                failed.push((test.name, format!("{error:#}")));
                            }
                        }
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_default()
}
