//! Everything a user can type. Help texts are the documentation of options.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// A Kubernetes node in one file: kubelet, container runtime, images, network.
#[derive(Debug, Parser)]
#[command(name = "lighter", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// Say more; twice for debugging, three times for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Form of the log on stderr.
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// As a kubelet, whose flags are read by [`crate::command::kubelet`].
    pub fn for_kubelet() -> Option<Cli> {
        let args: Vec<String> = std::env::args_os()
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        let flags = crate::command::kubelet::asked(&args)?;
        Some(Cli {
            verbose: crate::command::kubelet::verbosity(&flags),
            log_format: LogFormat::Text,
            command: Command::Kubelet(KubeletArgs { flags }),
        })
    }
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 64 wrong arguments, 70 a defect of Lighter, \
77 not root, 78 configuration. Pods outlive the agent: stopping it stops no container.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run this machine's pods: the node of the cluster named by the kubeconfig.
    Agent(Box<AgentArgs>),
    /// Run this machine's pods with the kubelet's own flags: `lighter kubelet --help` lists them.
    /// So does the binary under the name `kubelet`, but for the other commands here.
    #[command(disable_help_flag = true)]
    Kubelet(KubeletArgs),
    /// Join a cluster with a bootstrap token, as `kubeadm join` does.
    Join(JoinArgs),
    /// Undo `join`: remove what it made on this machine.
    Reset(ResetArgs),
    /// Run the pods of a file with no cluster.
    Play(PlayArgs),
    /// Serve only the CRI socket: for crictl, critest and other kubelets.
    Runtime(RuntimeArgs),
    /// Images: list, pull, import, remove.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Containers and their pods, from the CRI socket.
    Ps(PsArgs),
    /// The log of a container.
    Logs(LogsArgs),
    /// Run a command in a container.
    Exec(ExecArgs),
    /// Where the time of a pod's start went: of one pod, or a list of the last ones.
    Waterfall(WaterfallArgs),
    /// What this machine lacks to be a node, or what is wrong with the node that it is.
    #[command(visible_alias = "check")]
    Doctor(DoctorArgs),
}

#[derive(Debug, Args, Clone)]
pub struct RuntimeOptions {
    /// The runtime's settings [default: /etc/lighter/config.yaml where it exists].
    #[arg(long, value_name = "FILE")]
    pub runtime_config: Option<PathBuf>,
    /// Images, layers and records.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Sockets and what is gone with a boot.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// The cgroup below which everything is made, such as /lighter.
    #[arg(long, value_name = "CGROUP")]
    pub cgroup_root: Option<String>,
}

#[derive(Debug, Args)]
pub struct RuntimeArgs {
    #[command(flatten)]
    pub options: RuntimeOptions,
    /// The CRI socket [default: cri.sock in the state directory].
    #[arg(long, value_name = "PATH")]
    pub listen: Option<PathBuf>,
    /// Addresses for pods when no kubelet gives a podCIDR.
    #[arg(long, value_name = "CIDR")]
    pub pod_cidr: Option<String>,
}

/// Where a node's configuration, credentials and files are, and who it is.
#[derive(Debug, Args)]
pub struct NodeOptions {
    /// KubeletConfiguration.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/lib/kubelet/config.yaml"
    )]
    pub config: PathBuf,
    /// Credentials of this node.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/kubernetes/kubelet.conf"
    )]
    pub kubeconfig: PathBuf,
    /// Credentials to get the node's own with, where those don't exist yet.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/kubernetes/bootstrap-kubelet.conf"
    )]
    pub bootstrap_kubeconfig: PathBuf,
    /// Name of the Node [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub hostname_override: Option<String>,
    /// Pods' directories, plugins and keys.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// The node's keys [default: pki in the root directory].
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct AgentArgs {
    #[command(flatten)]
    pub options: RuntimeOptions,
    #[command(flatten)]
    pub node: NodeOptions,
    /// Address of the Node [default: that of the default route].
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub node_ip: Vec<std::net::IpAddr>,
    /// Labels for the Node, k=v,k=v.
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    pub node_labels: Vec<String>,
    /// spec.providerID of the Node.
    #[arg(long, value_name = "ID")]
    pub provider_id: Option<String>,
    /// Use another runtime's CRI socket in place of the built-in one [default:
    /// containerRuntimeEndpoint of the configuration].
    #[arg(long, value_name = "PATH")]
    pub container_runtime_endpoint: Option<String>,
    /// CredentialProviderConfig: programs that are asked for credentials of registries.
    #[arg(
        long,
        value_name = "FILE",
        requires = "image_credential_provider_bin_dir"
    )]
    pub image_credential_provider_config: Option<PathBuf>,
    /// Where these programs are.
    #[arg(
        long,
        value_name = "DIR",
        requires = "image_credential_provider_config"
    )]
    pub image_credential_provider_bin_dir: Option<PathBuf>,
    /// Serve the built-in runtime here as well, for crictl [default: cri.sock in the state directory].
    #[arg(long, value_name = "PATH")]
    pub listen: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct KubeletArgs {
    /// The kubelet's flags.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub flags: Vec<String>,
}

#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The API server.
    #[arg(value_name = "HOST:PORT")]
    pub server: String,
    /// Bootstrap token, id.secret. A file keeps it out of the process list: --token-file.
    #[arg(long, value_name = "TOKEN", required_unless_present = "token_file")]
    pub token: Option<String>,
    /// File that holds the token.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// sha256:HEX of the cluster's CA key; may be given more than once.
    #[arg(long, value_name = "HASH")]
    pub discovery_token_ca_cert_hash: Vec<String>,
    /// Trust whoever answers. Only where the network itself is trusted.
    #[arg(long)]
    pub discovery_token_unsafe_skip_ca_verification: bool,
    /// Name of the Node [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Where kubelet.conf and pki/ca.crt are written.
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes")]
    pub kubernetes_dir: PathBuf,
    /// Where config.yaml and the node's keys are written.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Only say what would be removed.
    #[arg(long)]
    pub dry_run: bool,
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes")]
    pub kubernetes_dir: PathBuf,
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct PlayArgs {
    #[command(flatten)]
    pub options: RuntimeOptions,
    /// Pods (or what has a pod template), ConfigMaps and Secrets; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// End and remove what an earlier play of this file made.
    #[arg(long)]
    pub down: bool,
    /// Return when the pods are ready, or done, and follow no log.
    #[arg(long)]
    pub detach: bool,
    /// Follow no log; return when every pod is over. Exit code 1 when one failed.
    #[arg(long, conflicts_with = "detach")]
    pub wait: bool,
    /// Say at the end where the time of each pod's start went.
    #[arg(long)]
    pub waterfall: bool,
    /// Addresses for pods.
    #[arg(long, value_name = "CIDR", default_value = "10.89.0.0/24")]
    pub pod_cidr: String,
    /// Pods' directories.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// Logs of containers.
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods")]
    pub pod_logs_dir: PathBuf,
}

#[derive(Debug, Args, Clone)]
pub struct Socket {
    /// The CRI socket.
    #[arg(
        long,
        value_name = "PATH",
        env = "LIGHTER_SOCKET",
        default_value = "/run/lighter/cri.sock"
    )]
    pub socket: String,
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List images.
    #[command(visible_alias = "list")]
    Ls(Socket),
    /// Pull an image from its registry, or a mirror of it.
    Pull {
        #[command(flatten)]
        socket: Socket,
        /// Such as docker.io/library/busybox:1.37.
        image: String,
        /// user:password for the registry.
        #[arg(long, value_name = "USER:PASSWORD")]
        creds: Option<String>,
    },
    /// Remove an image with all its tags.
    Rm {
        #[command(flatten)]
        socket: Socket,
        /// Name, digest or id.
        images: Vec<String>,
    },
    /// Load images from a docker-archive or OCI layout; `-` is standard input.
    Import {
        #[command(flatten)]
        options: RuntimeOptions,
        archive: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct PsArgs {
    #[command(flatten)]
    pub socket: Socket,
    /// Ended containers as well.
    #[arg(short, long)]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct WaterfallArgs {
    #[command(flatten)]
    pub options: RuntimeOptions,
    /// NAME, NAMESPACE/NAME or uid.
    pub pod: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Report {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub options: RuntimeOptions,
    /// For people or for scripts.
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Report,
    #[command(flatten)]
    pub node: NodeOptions,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    #[command(flatten)]
    pub socket: Socket,
    /// Container id, or the start of it.
    pub container: String,
}

#[derive(Debug, Args)]
pub struct ExecArgs {
    #[command(flatten)]
    pub socket: Socket,
    /// Hand on what is typed, or piped in.
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Give the command a terminal.
    #[arg(short, long)]
    pub tty: bool,
    /// Give up after this many seconds; 0 = never.
    #[arg(long, default_value = "0")]
    pub timeout: i64,
    /// Container id, or the start of it.
    pub container: String,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}
