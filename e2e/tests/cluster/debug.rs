//! `/debug` of the kubelet's server: the level of the log, and profiles; the same on the stock node.

use crate::kit::{FOREVER, Space, has, pod};
use anyhow::{Result, ensure};
use e2e::command;
use e2e::node::Maker;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

crate::tests!(
    log_says_more_and_less_when_its_level_is_put: alone,
    cpu_profile_opens_in_pprof,
);

fn path(t: &Space, rest: &str) -> String {
    format!("/api/v1/nodes/{}/proxy/debug/{rest}", t.node().name)
}

fn set_level(t: &Space, level: &str) -> Result<String> {
    let url = path(t, "flags/v");
    t.kubectl_with_input(&["replace", "--raw", &url, "-f", "-"], level)
}

/// Bytes that the kubelet's log grows by while a pod comes and goes.
fn said(t: &Space, name: &str) -> Result<u64> {
    let log = t.node().log(match t.suite.kind().kubelet() {
        Maker::Lighter => "lighter",
        Maker::Stock => "kubelet",
    });
    let before = fs::metadata(&log)?.len();
    t.run(&pod(name, FOREVER))?;
    t.kubectl(&["delete", "pod", name])?;
    Ok(fs::metadata(&log)?.len() - before)
}

fn log_says_more_and_less_when_its_level_is_put(t: &Space) -> Result<()> {
    let wrong = set_level(t, "loud");
    ensure!(wrong.is_err(), "{wrong:?}");
    let mut grown = Vec::new();
    for (n, level) in ["0", "10", "0"].into_iter().enumerate() {
        let answer = set_level(t, level)?;
        has(&answer, &format!("set klog.logging.verbosity to {level}"))?;
        grown.push(said(t, &format!("p{n}"))?);
    }
    let (quiet, loud, again) = (grown[0], grown[1], grown[2]);
    ensure!(loud > 2 * quiet && loud > 2 * again, "{grown:?}");
    Ok(())
}

fn cpu_profile_opens_in_pprof(t: &Space) -> Result<()> {
    // The stock kubelet's routes leave out the page itself.
    if t.suite.kind().kubelet() == Maker::Lighter {
        let index = t.kubectl(&["get", "--raw", &path(t, "pprof/")])?;
        for name in ["profile", "cmdline", "symbol"] {
            has(&index, name)?;
        }
    }
    let summary = format!("/api/v1/nodes/{}/proxy/stats/summary", t.node().name);
    let over = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        // Something to be seen.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = t.kubectl(&["get", "--raw", &summary]);
            }
        });
        let taken = t.output(&["get", "--raw", &path(t, "pprof/profile?seconds=3")]);
        over.store(true, Ordering::Relaxed);
        taken
    })?;
    ensure!(
        taken.status.success(),
        "{}",
        String::from_utf8_lossy(&taken.stderr)
    );
    let file = std::env::temp_dir().join(format!("profile-{}", t.name));
    fs::write(&file, &taken.stdout)?;
    let mut pprof = Command::new("go");
    pprof.args(["tool", "pprof", "-top", "-cum"]).arg(&file);
    let top = command::run(pprof.env("GOTOOLCHAIN", "local"));
    fs::remove_file(&file)?;
    let top = top?;
    has(&top, "Type: cpu")?;
    has(&top, "Duration: 3")?;
    // The outermost of a worker of each program's own runtime is in most stacks.
    has(
        &top,
        match t.suite.kind().kubelet() {
            Maker::Lighter => "tokio::runtime",
            Maker::Stock => "runtime.",
        },
    )
}
