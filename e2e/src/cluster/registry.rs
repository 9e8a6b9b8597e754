//! The registry of a cluster: Debian's docker-registry on storage that all clusters share.

use super::{Bed, Cluster};
use crate::http::{self, Request};
use crate::image::{Image, registry, stored};
use crate::machine::{Machine, network};
use crate::{machine::Process, progress};
use anyhow::Result;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Where nodes reach it. 5000 is the registry's customary port.
pub const ADDRESS: &str = "172.30.0.2:5000";
/// The host of it.
pub const HOST: &str = network::CONTROL_PLANE_IP;
/// The same storage, for who has the password.
pub const PRIVATE: &str = "private.example";
const PRIVATE_ADDRESS: &str = "172.30.0.2:5001";
/// Who may pull there.
pub const USER: &str = "ali";
pub const PASSWORD: &str = "open-sesame";
/// bcrypt of [`PASSWORD`], of the least cost.
const HTPASSWD: &str = "ali:$2b$04$xPlm/r6XtBJ7YbLCTTnFiuvgdarkHbhmPhoUD6.5V0j046diydIYK\n";

/// Registries whose names the cluster's images carry; each is mirrored by ours.
pub const MIRRORED: [&str; 5] = [
    "docker.io",
    "registry.k8s.io",
    "k8s.gcr.io",
    "gcr.io",
    "public.ecr.aws",
];

pub fn start(bed: &Bed, machine: &Machine) -> Result<Process> {
    let storage = bed.cache.dir("registry")?;
    let config = machine.dir.join("registry.yml");
    fs::write(
        &config,
        format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  \
             delete: {{enabled: true}}\nhttp: {{addr: '0.0.0.0:5000'}}\n",
            storage.display()
        ),
    )?;
    let process = serve(machine, "registry", &config)?;
    progress::wait_for("registry", Duration::from_secs(10), || {
        let answer = network::inside(machine, || http::send(ADDRESS, &Request::to("GET", "/v2/")));
        Ok(answer.is_ok_and(|a| a.status == 200).then_some(()))
    })?;
    Ok(process)
}

/// The registry that wants a password.
pub fn start_private(bed: &Bed, machine: &Machine) -> Result<Process> {
    let storage = bed.cache.dir("registry")?;
    let accounts = machine.dir.join("registry.htpasswd");
    fs::write(&accounts, HTPASSWD)?;
    let config = machine.dir.join("registry-private.yml");
    fs::write(
        &config,
        format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
             http: {{addr: '0.0.0.0:5001'}}\nauth:\n  htpasswd: {{realm: bed, path: {}}}\n",
            storage.display(),
            accounts.display()
        ),
    )?;
    serve(machine, "registry-private", &config)
}

fn serve(machine: &Machine, name: &str, config: &Path) -> Result<Process> {
    let mut serve = machine.command_on_host_files("docker-registry");
    machine.start_command(name, serve.arg("serve").arg(config))
}

/// Builds and pushes what is not there yet.
pub fn push(bed: &Bed, machine: &Machine, images: &[Image]) -> Result<()> {
    let inputs = bed.image_inputs();
    let _lock = lock(&bed.cache.dir("registry")?)?;
    for image in images {
        registry::build(&inputs, image)?;
    }
    network::inside(machine, || {
        images
            .iter()
            .try_for_each(|image| registry::push(&inputs, ADDRESS, image))
    })
}

/// Builds them and writes them to the storage itself, for a machine that can build nothing.
pub fn store(bed: &Bed, images: &[Image]) -> Result<()> {
    let storage = bed.cache.dir("registry")?;
    let _lock = lock(&storage)?;
    let write = |image| stored::write(&bed.image_inputs(), &storage, image);
    images.iter().try_for_each(write)
}

/// Who writes to the storage writes alone.
fn lock(storage: &Path) -> Result<fs::File> {
    crate::cache::lock(&storage.join(".push.lock"))
}

/// A mirror in plain HTTP. `server` points at it too: nothing falls back to the internet.
pub fn hosts_toml(address: &str) -> String {
    format!(
        "server = \"http://{address}\"\n\n[host.\"http://{address}\"]\n  \
         capabilities = [\"pull\", \"resolve\"]\n"
    )
}

/// `certs.d/<host>/hosts.toml` for every mirrored name, as containerd and Lighter read them.
pub fn configure_mirrors(machine: &Machine, certs_d: &str) -> Result<()> {
    let mirrored = MIRRORED.map(|host| (host, ADDRESS));
    for (host, address) in mirrored.into_iter().chain([(PRIVATE, PRIVATE_ADDRESS)]) {
        machine.write(
            &format!("{certs_d}/{host}/hosts.toml"),
            &hosts_toml(address),
        )?;
    }
    Ok(())
}

impl Cluster {
    /// Makes more images available, for tests that need them.
    pub fn push(&self, bed: &Bed, images: &[Image]) -> Result<()> {
        push(bed, &self.control_plane, images)
    }
}
