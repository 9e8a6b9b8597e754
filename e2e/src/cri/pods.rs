//! Pods as a kubelet asks for them: one container, that sleeps.

use super::Stand;
use crate::image::catalog;
use crate::node::Maker;
use anyhow::{Context, Result, ensure};
use cri_proto::Cri;
use cri_proto::v1::*;
use std::sync::Arc;

/// What sleeps until it is killed.
pub const SLEEP: [&str; 2] = ["sleep", "86399"];

pub struct Pods {
    cri: Arc<dyn Cri>,
    cgroup_parent: String,
}

/// One that was started.
pub struct Pod {
    pub sandbox: String,
    pub container: String,
}

impl Pods {
    /// To the runtime of a stand.
    pub async fn connect(stand: &Stand) -> Result<Self> {
        let cri = cri_proto::connect(&stand.socket().to_string_lossy()).await?;
        // Ours has the machine's cgroup for its root; containerd counts from the host's.
        let cgroup_parent = match stand.kind.runtime() {
            Maker::Lighter => "/bench".to_owned(),
            Maker::Stock => format!("/{}/bench", stand.machine.cgroup),
        };
        Ok(Self { cri, cgroup_parent })
    }

    /// Makes the cgroup that pods are put in, which a kubelet does before it asks for
    /// a pod.
    pub fn make_cgroup(&self, stand: &Stand) -> Result<()> {
        crate::cgroup::create(&format!("{}/bench", stand.machine.cgroup))
    }

    /// Answers what images are referred to by.
    pub async fn pull(&self, image: &str) -> Result<String> {
        let request = PullImageRequest {
            image: Some(image_spec(image)),
            ..Default::default()
        };
        let pulled = self.cri.pull_image(request).await;
        Ok(pulled.with_context(|| format!("pull {image}"))?.image_ref)
    }

    pub async fn remove_image(&self, image: &str) -> Result<()> {
        let image = Some(image_spec(image));
        self.cri.remove_image(RemoveImageRequest { image }).await?;
        Ok(())
    }

    /// Three verbs: what a pod's start is.
    pub async fn start(&self, name: &str) -> Result<Pod> {
        self.start_with(name, &SLEEP).await
    }

    pub async fn start_with(&self, name: &str, command: &[&str]) -> Result<Pod> {
        let sandbox = self.run_sandbox(name).await?;
        let container = self.create(name, &sandbox, command).await?;
        self.start_container(&container).await?;
        Ok(Pod { sandbox, container })
    }

    /// Answers the sandbox's id.
    pub async fn run_sandbox(&self, name: &str) -> Result<String> {
        let request = RunPodSandboxRequest {
            config: Some(self.sandbox(name)),
            ..Default::default()
        };
        let ran = self.cri.run_pod_sandbox(request).await;
        Ok(ran.context("RunPodSandbox")?.pod_sandbox_id)
    }

    /// A container in the sandbox of that name; answers its id.
    pub async fn create(&self, name: &str, sandbox: &str, command: &[&str]) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(container(command)),
            sandbox_config: Some(self.sandbox(name)),
        };
        let created = self.cri.create_container(request).await;
        Ok(created.context("CreateContainer")?.container_id)
    }

    /// A further container, that sleeps, in the sandbox of that name.
    pub async fn add(&self, name: &str, sandbox: &str, container: &str) -> Result<String> {
        let mut config = self::container(&SLEEP);
        config.log_path = format!("{container}_0.log");
        config.metadata = Some(ContainerMetadata {
            name: container.to_owned(),
            attempt: 0,
        });
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(self.sandbox(name)),
        };
        let created = self.cri.create_container(request).await;
        Ok(created.context("CreateContainer")?.container_id)
    }

    pub async fn start_container(&self, container: &str) -> Result<()> {
        let request = StartContainerRequest {
            container_id: container.to_owned(),
        };
        let started = self.cri.start_container(request).await;
        started.map(drop).context("StartContainer")
    }

    /// With no grace.
    pub async fn stop_container(&self, container: &str) -> Result<()> {
        let request = StopContainerRequest {
            container_id: container.to_owned(),
            timeout: 0,
        };
        let stopped = self.cri.stop_container(request).await;
        stopped.map(drop).context("StopContainer")
    }

    pub async fn remove_container(&self, container: &str) -> Result<()> {
        let request = RemoveContainerRequest {
            container_id: container.to_owned(),
        };
        let removed = self.cri.remove_container(request).await;
        removed.map(drop).context("RemoveContainer")
    }

    pub async fn exec(&self, pod: &Pod, command: &[&str]) -> Result<()> {
        self.exec_in(&pod.container, command).await
    }

    pub async fn exec_in(&self, container: &str, command: &[&str]) -> Result<()> {
        let request = ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: words(command),
            timeout: 10,
        };
        let done = self.cri.exec_sync(request).await.context("ExecSync")?;
        ensure!(
            done.exit_code == 0,
            "{command:?} exited with {}",
            done.exit_code
        );
        Ok(())
    }

    /// As a kubelet does with a pod whose grace is over.
    pub async fn tear_down(&self, pod: &Pod) -> Result<()> {
        self.stop_sandbox(&pod.sandbox).await?;
        self.remove_sandbox(&pod.sandbox).await
    }

    pub async fn stop_sandbox(&self, sandbox: &str) -> Result<()> {
        let pod_sandbox_id = sandbox.to_owned();
        let request = StopPodSandboxRequest { pod_sandbox_id };
        let stopped = self.cri.stop_pod_sandbox(request).await;
        stopped.map(drop).context("StopPodSandbox")
    }

    pub async fn remove_sandbox(&self, sandbox: &str) -> Result<()> {
        let pod_sandbox_id = sandbox.to_owned();
        let request = RemovePodSandboxRequest { pod_sandbox_id };
        let removed = self.cri.remove_pod_sandbox(request).await;
        removed.map(drop).context("RemovePodSandbox")
    }

    /// Removes every pod of this name prefix; the answer is how many there were.
    pub async fn remove_all(&self, prefix: &str) -> Result<usize> {
        let all = self.cri.list_pod_sandbox(ListPodSandboxRequest::default());
        let mut all = all.await.context("ListPodSandbox")?.items;
        all.retain(|p| {
            p.metadata
                .as_ref()
                .is_some_and(|m| m.name.starts_with(prefix))
        });
        for sandbox in &all {
            let pod = Pod {
                sandbox: sandbox.id.clone(),
                container: String::new(),
            };
            self.tear_down(&pod).await?;
        }
        Ok(all.len())
    }

    pub async fn status_of(&self, pod: &Pod) -> Result<ContainerStatus> {
        let request = ContainerStatusRequest {
            container_id: pod.container.clone(),
            verbose: false,
        };
        let status = self.cri.container_status(request).await?.status;
        status.context("a container without a status")
    }

    pub async fn log_of(&self, pod: &Pod) -> Result<String> {
        Ok(self.status_of(pod).await?.log_path)
    }

    fn sandbox(&self, name: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: name.to_owned(),
                namespace: "bench".to_owned(),
                attempt: 0,
            }),
            log_directory: format!("/var/log/pods/bench_{name}"),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup_parent.clone(),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

fn image_spec(image: &str) -> ImageSpec {
    ImageSpec {
        image: image.to_owned(),
        ..Default::default()
    }
}

fn container(command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: "main".to_owned(),
            attempt: 0,
        }),
        image: Some(image_spec(catalog::BUSYBOX_IMAGE.names[0])),
        command: words(command),
        log_path: "main_0.log".to_owned(),
        linux: Some(LinuxContainerConfig {
            resources: Some(LinuxContainerResources {
                cpu_shares: 102,
                memory_limit_in_bytes: 256 << 20,
                ..Default::default()
            }),
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(namespaces()),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

/// A pod's without `shareProcessNamespace`.
fn namespaces() -> NamespaceOption {
    NamespaceOption {
        pid: NamespaceMode::Container.into(),
        ..Default::default()
    }
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|&word| word.to_owned()).collect()
}
