use super::exec::PluginError;
use std::io;
use std::path::PathBuf;

/// Why somebody's network did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// A plugin failed.
    #[error("CNI network {network}: {command} by plugin {plugin}")]
    Plugin {
        /// The network's name.
        network: String,
        /// ADD, DEL and so on.
        command: &'static str,
        /// The plugin's type.
        plugin: String,
        #[allow(missing_docs)]
        source: PluginError,
    },
    /// The last plugin gave no address.
    #[error("CNI network {network} gave the pod no address")]
    NoAddress {
        /// The network's name.
        network: String,
    },
    /// Plugins need a path by which to open the namespace.
    #[error("pin the pod's network namespace at {}", path.display())]
    Pin {
        /// The path.
        path: PathBuf,
        #[allow(missing_docs)]
        source: io::Error,
    },
}
