//! The demo: applied, waited for, and shown from the inside.

use crate::cluster::{Bed, Cluster, addons};
use crate::progress::{seconds, step};
use anyhow::{Context, Result};
use std::time::Instant;

pub fn demo(bed: &Bed, cluster: &Cluster) -> Result<()> {
    let start = Instant::now();
    step("demo applied", || {
        addons::apply_file(bed, cluster, "demo.yaml")
    })?;
    step("Deployment web rolled out", || {
        let args = [
            "-n",
            "demo",
            "rollout",
            "status",
            "deployment/web",
            "--timeout=120s",
        ];
        cluster.kubectl(&args).with_context(|| addons::why(cluster))
    })?;
    step("Job visit complete", || {
        let args = [
            "-n",
            "demo",
            "wait",
            "job/visit",
            "--for=condition=Complete",
            "--timeout=90s",
        ];
        cluster.kubectl(&args).with_context(|| addons::why(cluster))
    })?;
    println!("  {:<44} {:>8}", "demo up", seconds(start.elapsed()));
    show(cluster)
}

/// What a person wants to see, each with the command that shows it.
fn show(cluster: &Cluster) -> Result<()> {
    say(cluster, "The node", "get nodes -o wide")?;
    say(cluster, "The pods", "get pods -A -o wide")?;
    say(
        cluster,
        "What the Job read at the Service's DNS name",
        "-n demo logs job/visit",
    )?;
    let inside = |title: &str, script: &str| {
        let args = [
            "-n",
            "demo",
            "exec",
            "deploy/web",
            "-c",
            "nginx",
            "--",
            "sh",
            "-c",
            script,
        ];
        print(
            title,
            &format!("kubectl -n demo exec deploy/web -- sh -c '{script}'"),
            cluster.kubectl(&args)?,
        )
    };
    inside(
        "The page through the Service, from inside",
        "wget -qO- http://web.demo.svc.cluster.local/",
    )?;
    inside(
        "The Secret lies on tmpfs, and is in the environment",
        "stat -f -c %T /door; cat /door/code; echo; echo code=$DOOR_CODE",
    )?;
    inside("The memory limit, as the container sees it", MEMORY_LIMIT)?;
    println!(
        "\nGo on:  make kubectl ARGS=\"get pods -A\"\n        make kubectl ARGS=\"-n demo logs deploy/web\"\n        make stop"
    );
    Ok(())
}

/// cgroup v2 and v1 name the file differently.
const MEMORY_LIMIT: &str =
    "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";

fn say(cluster: &Cluster, title: &str, command: &str) -> Result<()> {
    let args: Vec<&str> = command.split_whitespace().collect();
    print(
        title,
        &format!("kubectl {command}"),
        cluster.kubectl(&args)?,
    )
}

fn print(title: &str, command: &str, output: String) -> Result<()> {
    println!("\n{title}:  {command}");
    output
        .trim_end()
        .lines()
        .for_each(|line| println!("    {line}"));
    Ok(())
}
