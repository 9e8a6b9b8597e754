//! Opening the runtime: one controlling agent per state folder, then its
//! parts, then what an earlier agent left running.

use super::VerbError;
use super::core::Core;
use super::{events, host, runtime_info, streams};
use crate::Config;
use crate::cgroup::{CgroupError, Cgroups};
use crate::container::Mountpoints;
use crate::image::{self, Store};
use crate::lock::{LockError, PidLock};
use crate::process::{Engine, EngineConfig, ProcessError};
use crate::{spec, streaming};
use cni::network::{Builtin, Network, NetworkConfig};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the runtime could not be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OpenError {
    #[error("{path} is controlled by process {holder}; stop it, or choose another state folder")]
    InUse { path: PathBuf, holder: String },
    #[error("take control of {path}")]
    Lock { path: PathBuf, source: io::Error },
    #[error("make {path}")]
    Make { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Cgroups(#[from] CgroupError),
    #[error("open the image store")]
    Images(#[from] image::OpenError),
    #[error("open the pod network")]
    Network(#[from] cni::network::OpenError),
    #[error("pod CIDR from the configuration")]
    PodCidr(#[source] Box<VerbError>),
    #[error("start the engine")]
    Engine(#[from] ProcessError),
    #[error(transparent)]
    Streaming(#[from] streaming::BindError),
}

/// Opens the parts and goes on with what runs.
pub(super) async fn core(config: Config) -> Result<Arc<Core>, OpenError> {
    for dir in [
        config.root.join("containers"),
        config.root.join("trash"),
        config.state.join("sandboxes"),
    ] {
        private_dir(&dir)?;
    }
    spread(&config.root.join("containers"));
    let path = config.root.join("mountpoints");
    let mountpoints = Mountpoints::open(path.clone());
    let mountpoints = mountpoints.map_err(|source| OpenError::Make { path, source })?;
    let cgroups = Cgroups::open(&config.cgroup_root, config.cgroup_driver)?;
    let images = Store::open(config.images())?;
    let network = network(&config)?;
    let host = host::security();
    let (engine, news) = Engine::open(EngineConfig {
        state: config.state.join("engine"),
        monitor_cgroups: cgroups.monitors()?,
        // With SELinux each container's have a label of its own.
        mounts_ahead: match host.selinux {
            Some(_) => Vec::new(),
            None => spec::usual_mounts(),
        },
    })
    .await?;
    let core = Arc::new(Core {
        cgroups,
        pod_cgroups: Default::default(),
        images,
        engine,
        mountpoints,
        network,
        ahead: Default::default(),
        host,
        apparmor: Default::default(),
        levels: Default::default(),
        sandboxes: Default::default(),
        containers: Default::default(),
        events: Default::default(),
        seccomp: Default::default(),
        accounts: Default::default(),
        runs: Default::default(),
        creates: Default::default(),
        samples: Default::default(),
        streaming: streaming::Server::bind(config.streaming_address)?,
        shutdown: Default::default(),
        config,
    });
    core.recover().await;
    // Exits seen meanwhile have waited until their containers were known.
    events::follow(Arc::downgrade(&core), news);
    streams::serve(&core);
    Ok(core)
}

fn network(config: &Config) -> Result<Arc<Network>, OpenError> {
    let range = |text: &String| {
        text.parse().map_err(|source| {
            let cidr = text.clone();
            OpenError::PodCidr(Box::new(VerbError::Cidr { cidr, source }))
        })
    };
    let no_masquerade = config.no_masquerade.iter().map(range);
    let network = Network::open(NetworkConfig {
        conf_dir: config.cni_conf_dir.clone(),
        bin_dirs: config.cni_bin_dirs.clone(),
        state_dir: config.root.join("network"),
        run_dir: config.state.join("network"),
        ipam_dir: config.ipam_of_bridge(),
        executable: std::env::current_exe().ok(),
        builtin: Builtin {
            bridge: config.bridge.clone(),
            table: config.table(),
            mtu: config.mtu,
            no_masquerade: no_masquerade.collect::<Result<_, _>>()?,
        },
    })?;
    if let Some(cidr) = &config.pod_cidr {
        runtime_info::set_pod_cidrs(&network, cidr)
            .map_err(|error| OpenError::PodCidr(Box::new(error)))?;
    }
    Ok(network)
}

/// Tells ext4 that the directories in this one have nothing to do with each other: it
/// gives each a place of its own on the disk, where few inodes were deleted of late. A
/// journal-less ext4 looks at every one of those before it gives a new inode (ADR 11).
/// Other file systems don't know the flag.
fn spread(dir: &Path) {
    use rustix::fs::{CWD, IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags, openat};
    let set = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, dir, flags, Mode::empty())?;
        ioctl_setflags(&dir, ioctl_getflags(&dir)? | IFlags::TOPDIR)
    };
    if let Err(errno) = set() {
        tracing::debug!(dir = %dir.display(), %errno, "no top directory");
    }
}

/// Others may pass through to what user namespaces need, but not look:
/// CVE-2021-41103.
fn private_dir(dir: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(dir)
        .map_err(|source| OpenError::Make {
            path: dir.to_owned(),
            source,
        })
}

/// Makes this process the state folder's one controlling agent.
pub(super) fn control(state: &Path) -> Result<PidLock, OpenError> {
    std::fs::create_dir_all(state).map_err(|source| OpenError::Lock {
        path: state.to_owned(),
        source,
    })?;
    let path = state.join("agent.lock");
    PidLock::take(&path).map_err(|error| match error {
        LockError::Held(holder) => OpenError::InUse {
            path: state.to_owned(),
            holder,
        },
        LockError::Io(source) => OpenError::Lock { path, source },
    })
}
