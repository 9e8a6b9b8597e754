//! What a sandbox shares with the host.

use super::defaults::SHM_SIZE;
use super::{SpecError, sysctls};
use crate::process::{IdMap, PidMode, SandboxSpec};
use cri_proto::v1::{IdMapping, NamespaceMode, NamespaceOption, PodSandboxConfig};

fn options(config: &PodSandboxConfig) -> NamespaceOption {
    let linux = config.linux.as_ref();
    let security = linux.and_then(|l| l.security_context.as_ref());
    security
        .and_then(|s| s.namespace_options.clone())
        .unwrap_or_default()
}

/// The sandbox as the engine takes it. `node_name` is the host's own hostname,
/// for pods that ask for none.
///
/// # Errors
/// Modes, maps and sysctls that can't be had.
pub fn sandbox(
    id: &str,
    config: &PodSandboxConfig,
    node_name: &str,
) -> Result<SandboxSpec, SpecError> {
    let options = options(config);
    let network = own("network", options.network())?;
    let ipc = own("ipc", options.ipc())?;
    let user = user_namespace(config)?;
    let hostname = if config.hostname.is_empty() {
        node_name
    } else {
        &config.hostname
    };
    Ok(SandboxSpec {
        id: id.to_owned(),
        hostname: network.then(|| hostname.to_owned()),
        network,
        ipc,
        // The name of who is on the host's network is the host's.
        uts: network,
        pid: pid(options.pid())?,
        sysctls: sysctls(config, network, ipc, user.is_some())?,
        user,
        shm_size: SHM_SIZE,
        mount_label: String::new(),
        process_label: String::new(),
    })
}

fn own(namespace: &'static str, mode: NamespaceMode) -> Result<bool, SpecError> {
    match mode {
        NamespaceMode::Pod => Ok(true),
        NamespaceMode::Node => Ok(false),
        NamespaceMode::Container | NamespaceMode::Target => Err(SpecError::NamespaceMode {
            namespace,
            mode: mode.as_str_name(),
        }),
    }
}

fn pid(mode: NamespaceMode) -> Result<PidMode, SpecError> {
    match mode {
        NamespaceMode::Pod => Ok(PidMode::Pod),
        NamespaceMode::Container => Ok(PidMode::Container),
        NamespaceMode::Node => Ok(PidMode::Node),
        NamespaceMode::Target => Err(SpecError::NamespaceMode {
            namespace: "pid",
            mode: mode.as_str_name(),
        }),
    }
}

/// `hostUsers: false`: the maps for users and for groups.
///
/// # Errors
/// What containerd v2 internal/cri/server `parseUsernsIDs` refuses.
#[allow(clippy::type_complexity)]
pub fn user_namespace(
    config: &PodSandboxConfig,
) -> Result<Option<(Vec<IdMap>, Vec<IdMap>)>, SpecError> {
    let Some(wanted) = options(config).userns_options else {
        return Ok(None);
    };
    match wanted.mode() {
        NamespaceMode::Node => {
            let none = wanted.uids.is_empty() && wanted.gids.is_empty();
            none.then_some(None).ok_or(SpecError::UserNamespace {
                reason: "mode NODE takes no mappings",
            })
        }
        NamespaceMode::Pod => {
            let (uids, gids) = (map(&wanted.uids)?, map(&wanted.gids)?);
            if uids != gids {
                return Err(SpecError::UserNamespace {
                    reason: "the mappings of users and groups differ",
                });
            }
            Ok(Some((uids, gids)))
        }
        mode @ (NamespaceMode::Container | NamespaceMode::Target) => {
            Err(SpecError::NamespaceMode {
                namespace: "user",
                mode: mode.as_str_name(),
            })
        }
    }
}

fn map(cri: &[IdMapping]) -> Result<Vec<IdMap>, SpecError> {
    let fail = |reason| Err(SpecError::UserNamespace { reason });
    match cri {
        [] => fail("no mapping is given"),
        [one] if one.container_id != 0 => fail("id 0 is not mapped"),
        [one] if one.length == 0 => fail("the mapping is empty"),
        [one] => Ok(vec![IdMap {
            container: one.container_id,
            host: one.host_id,
            length: one.length,
        }]),
        _ => fail("more than one mapping is given"),
    }
}
