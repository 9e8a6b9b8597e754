//! `lighter join` and `lighter reset`.

use crate::cli::{JoinArgs, ResetArgs};
use crate::exit::{USAGE, coded};
use anyhow::Context;
use kubelet::join::{JoinOptions, JoinRoots};
use std::sync::Arc;

/// Joins, saying each step; the error says what to do next.
pub async fn run(args: JoinArgs) -> anyhow::Result<u8> {
    super::need_root("join")?;
    let node_name = match args.node_name.clone() {
        Some(name) => name,
        None => kubelet::node::default_name()?,
    };
    let options = JoinOptions {
        ca_pins: args.discovery_token_ca_cert_hash.clone(),
        unsafe_skip_ca_verification: args.discovery_token_unsafe_skip_ca_verification,
        roots: JoinRoots {
            kubernetes: args.kubernetes_dir.clone(),
            kubelet: args.root_dir.clone(),
        },
        progress: Arc::new(|step| eprintln!("[join] {step}")),
        ..JoinOptions::new(&args.server, &token(&args)?, &node_name)
    };
    match kubelet::join::run(options).await {
        Ok(joined) => {
            println!("joined {} as node {}", joined.server, joined.node_name);
            println!(
                "now start it: lighter agent --hostname-override {}",
                joined.node_name
            );
            Ok(0)
        }
        Err(error) => {
            let code = error.exit_code() as u8;
            Err(coded(code, format!("{:#}", anyhow::Error::new(error))))
        }
    }
}

fn token(args: &JoinArgs) -> anyhow::Result<String> {
    match (&args.token, &args.token_file) {
        (Some(token), _) => Ok(token.clone()),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file);
            Ok(text
                .with_context(|| format!("read the token from {}", file.display()))?
                .trim()
                .to_owned())
        }
        (None, None) => Err(coded(USAGE, "give the token with --token or --token-file")),
    }
}

/// Removes what a join made on this machine, and says what.
pub fn reset(args: &ResetArgs) -> anyhow::Result<u8> {
    super::need_root("reset")?;
    let roots = JoinRoots {
        kubernetes: args.kubernetes_dir.clone(),
        kubelet: args.root_dir.clone(),
    };
    if args.dry_run {
        for path in kubelet::join::made(&roots)? {
            println!("would remove {}", path.display());
        }
        return Ok(0);
    }
    let removed = kubelet::join::reset(&roots)?;
    for path in &removed {
        println!("removed {}", path.display());
    }
    if removed.is_empty() {
        println!("nothing to reset: this host was not joined by lighter");
        return Ok(0);
    }
    println!(
        "the Node stays in the cluster: kubectl delete node {}",
        kubelet::node::default_name()?
    );
    Ok(0)
}
