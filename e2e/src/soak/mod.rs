//! `bed soak`: what a runtime must survive, for as long as one likes.

mod churn;
mod kills;
mod witness;

use crate::cluster::Bed;
use crate::cri::{Options, Stand};
use crate::image::catalog;
use crate::node::Kind;
use crate::progress::step;
use anyhow::Result;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Soak {
    /// kill -9 of the agent, the spawner or a monitor, at random moments under a load
    #[arg(long, default_value_t = 1000)]
    kills: usize,
    /// Pods made and removed, with memory, descriptors and disk watched
    #[arg(long, default_value_t = 10_000)]
    churn: usize,
    /// What decides the moments and victims; printed, so that a run can be repeated
    #[arg(long)]
    seed: Option<u64>,
    /// The lighter program [default: $LIGHTER_BIN, or the one beside bed]
    #[arg(long)]
    lighter: Option<PathBuf>,
}

impl Soak {
    /// False when something was lost or left.
    pub fn run(&self, bed: &Bed) -> Result<bool> {
        let options = Options {
            name: "soak",
            kind: Kind::Lighter,
            lighter: self.lighter.as_deref(),
            private: false,
            images: &[catalog::BUSYBOX_IMAGE],
        };
        let stand = step("runtime and registry up", || Stand::up(bed, &options))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let seed = self
            .seed
            .unwrap_or_else(|| u64::from(std::process::id()) << 16 | 1);
        let soaked = runtime.block_on(async {
            kills::kills(&stand, self.kills, seed).await?;
            churn::churn(&stand, self.churn).await
        });
        drop(runtime);
        // What was left is shown before it is taken away with the machine.
        if let Err(error) = &soaked {
            let log = bed.cache.dir("soak")?.join("lighter.log");
            std::fs::copy(stand.machine.log("lighter"), &log)?;
            println!("soak: FAILED (log: {}): {error:#}", log.display());
        } else {
            println!(
                "soak: {} kills, {} pods: nothing lost, nothing left",
                self.kills, self.churn
            );
        }
        stand.down()?;
        Ok(soaked.is_ok())
    }
}
