use super::failure::Failure;
use serde_json::Value;
use std::io::Read;
use std::path::PathBuf;

/// Largest configuration that is read.
const MAX_CONFIG: u64 = 4 * 1024 * 1024;

/// `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Command {
    /// What the environment says.
    pub fn from_env() -> Result<Self, Failure> {
        match std::env::var("CNI_COMMAND").as_deref() {
            Ok("ADD") => Ok(Self::Add),
            Ok("DEL") => Ok(Self::Del),
            Ok("CHECK") => Ok(Self::Check),
            Ok("GC") => Ok(Self::Gc),
            Ok("STATUS") => Ok(Self::Status),
            Ok("VERSION") => Ok(Self::Version),
            _ => Err(Failure::environment("CNI_COMMAND is none that is known")),
        }
    }

    /// Whether it is about one pod.
    fn has_pod(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }
}

/// What the runtime asks for.
#[derive(Debug)]
pub struct Request {
    pub command: Command,
    pub container: String,
    /// None or empty at DEL: the namespace has gone.
    pub netns: Option<PathBuf>,
    pub interface: String,
    /// `CNI_PATH`, for delegates.
    pub path: Vec<PathBuf>,
    pub config: Value,
}

impl Request {
    /// From the environment and stdin.
    pub fn read() -> Result<Self, Failure> {
        let command = Command::from_env()?;
        let mut text = Vec::new();
        let read = std::io::stdin().take(MAX_CONFIG).read_to_end(&mut text);
        read.map_err(|e| Failure::io("read stdin", &e))?;
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let needed = |name: &str| match variable(name) {
            value if value.is_empty() && command.has_pod() => {
                Err(Failure::environment(format!("{name} is missing")))
            }
            value => Ok(value),
        };
        let netns = Some(variable("CNI_NETNS")).filter(|n| !n.is_empty());
        if netns.is_none() && matches!(command, Command::Add | Command::Check) {
            return Err(Failure::environment("CNI_NETNS is missing"));
        }
        Ok(Self {
            command,
            container: needed("CNI_CONTAINERID")?,
            netns: netns.map(PathBuf::from),
            interface: needed("CNI_IFNAME")?,
            path: variable("CNI_PATH").split(':').map(PathBuf::from).collect(),
            config: serde_json::from_slice(&text).map_err(|e| Failure::decode(&e))?,
        })
    }

    /// The version to answer in; the oldest when none is named.
    pub fn version(&self) -> &str {
        self.config["cniVersion"].as_str().unwrap_or("0.3.0")
    }

    /// The network's name.
    pub fn network(&self) -> &str {
        self.config["name"].as_str().unwrap_or_default()
    }

    /// A flag of the configuration.
    pub fn flag(&self, name: &str) -> bool {
        self.config[name] == Value::Bool(true)
    }

    /// A number of the configuration.
    pub fn number(&self, name: &str) -> u32 {
        let number = self.config[name].as_u64();
        number.and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
    }

    /// Whether this attachment is among those that GC is to keep.
    pub fn keeps(&self, container: &str, interface: &str) -> bool {
        let valid = self.config["cni.dev/valid-attachments"].as_array();
        valid.into_iter().flatten().any(|v| {
            v["containerID"] == container && (v["ifname"] == interface || interface.is_empty())
        })
    }
}
