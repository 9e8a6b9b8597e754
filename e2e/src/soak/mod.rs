//! `bed soak`: what a runtime must survive, for as long as one likes.

mod churn;
mod kills;
mod steps;
mod trace;
mod upgrade;
mod witness;

use crate::cluster::Bed;
use crate::cri::pods::Pods;
use crate::cri::{Options, Stand};
use crate::image::catalog;
use crate::node::Kind;
use crate::progress::step;
use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A step that takes longer hangs.
const HANGS: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct Soak {
    /// kill -9 of the agent, the spawner or a monitor, at random moments under a load
    #[arg(long, default_value_t = 1000)]
    kills: usize,
    /// Pods made and removed, with memory, descriptors and disk watched
    #[arg(long, default_value_t = 10_000)]
    churn: usize,
    /// Steps of each verb before which the agent is killed, at most
    #[arg(long, default_value_t = 10_000)]
    steps: usize,
    /// Leave out the upgrade through three versions
    #[arg(long)]
    no_upgrade: bool,
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
            images: &[catalog::BUSYBOX_IMAGE, catalog::PAUSE],
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
            if self.kills > 0 {
                kills::kills(&stand, self.kills, seed).await?;
            }
            let steps = match self.steps {
                0 => 0,
                most => steps::steps(&stand, most).await?,
            };
            if !self.no_upgrade {
                upgrade::upgrade(&stand).await?;
            }
            if self.churn > 0 {
                churn::churn(&stand, self.churn).await?;
            }
            anyhow::Ok(steps)
        });
        drop(runtime);
        // What was left is shown before it is taken away with the machine.
        match &soaked {
            Err(error) => {
                let log = bed.cache.dir("soak")?.join("lighter.log");
                std::fs::copy(stand.machine.log("lighter"), &log)?;
                println!("soak: FAILED (log: {}): {error:#}", log.display());
            }
            Ok(steps) => println!(
                "soak: {} kills, {steps} steps of verbs, {} pods: nothing lost, nothing left",
                self.kills, self.churn
            ),
        }
        stand.down()?;
        Ok(soaked.is_ok())
    }
}

/// Until the agent that was started last answers.
async fn serving(stand: &Stand) -> Result<()> {
    let end = Instant::now() + HANGS;
    loop {
        if let Ok(pods) = Pods::connect(stand).await
            && pods.remove_all("no pod has this name").await.is_ok()
        {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "no agent serves: {}",
            stand.machine.last_words("lighter")
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
