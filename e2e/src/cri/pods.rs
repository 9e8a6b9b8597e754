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
        let config = self.sandbox(name);
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            ..Default::default()
        };
        let ran = self.cri.run_pod_sandbox(request).await;
        let sandbox = ran.context("RunPodSandbox")?.pod_sandbox_id;
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.clone(),
            config: Some(container(command)),
            sandbox_config: Some(config),
        };
        let created = self.cri.create_container(request).await;
        let container = created.context("CreateContainer")?.container_id;
        let request = StartContainerRequest {
            container_id: container.clone(),
        };
        let started = self.cri.start_container(request).await;
        started.context("StartContainer")?;
        Ok(Pod { sandbox, container })
    }

    pub async fn exec(&self, pod: &Pod, command: &[&str]) -> Result<()> {
        let request = ExecSyncRequest {
            container_id: pod.container.clone(),
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
        let pod_sandbox_id = pod.sandbox.clone();
        let stop = StopPodSandboxRequest {
            pod_sandbox_id: pod_sandbox_id.clone(),
        };
        let stopped = self.cri.stop_pod_sandbox(stop).await;
        stopped.context("StopPodSandbox")?;
        let remove = RemovePodSandboxRequest { pod_sandbox_id };
        let removed = self.cri.remove_pod_sandbox(remove).await;
        removed.context("RemovePodSandbox")?;
        Ok(())
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
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|&word| word.to_owned()).collect()
}
