//! `lighter doctor`: what is wrong with this machine, or what it lacks to be a node.

use super::runtime::{default_socket, settings};
use crate::cli::{DoctorArgs, Report};
use crate::doctor::{self, Place, Verdict};
use std::path::Path;

/// Prints every finding; the exit code is 1 when one of them rules a node out.
pub async fn run(args: DoctorArgs) -> anyhow::Result<u8> {
    let place = place(&args)?;
    let findings = doctor::examine(&place).await;
    match args.output {
        Report::Text => print!("{}", doctor::text(&findings)),
        Report::Json => println!("{}", doctor::json(&findings)),
    }
    Ok(u8::from(doctor::worst(&findings) == Verdict::Error))
}

fn place(args: &DoctorArgs) -> anyhow::Result<Place> {
    let runtime = settings(&args.options)?;
    let (config, config_mistake) = match args.node.config.exists() {
        false => (None, None),
        true => match kubelet::config::load(Some(&args.node.config), None) {
            Ok(loaded) => (Some(loaded.config), None),
            Err(e) => (
                None,
                Some(one_line(&format!("{:#}", anyhow::Error::new(e)))),
            ),
        },
    };
    let pki = |root: &Path| root.join("pki");
    Ok(Place {
        config,
        config_mistake,
        kubeconfig: args.node.kubeconfig.clone(),
        bootstrap_kubeconfig: args.node.bootstrap_kubeconfig.clone(),
        pki: args
            .node
            .cert_dir
            .clone()
            .unwrap_or_else(|| pki(&args.node.root_dir)),
        root_dir: args.node.root_dir.clone(),
        node_name: args.node.hostname_override.clone(),
        socket: default_socket(&runtime),
        runtime,
    })
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
