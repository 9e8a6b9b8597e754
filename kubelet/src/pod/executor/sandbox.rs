//! Sandboxes: run, stop, remove.

use super::{Context, Executor, Failed, Report, rpc};
use crate::pod::spec::{self, sandbox};
use crate::pod::{observe, resize};
use crate::volume::hostname;
use cri_proto::v1;

const FAILED: &str = "FailedCreatePodSandBox";

impl Executor {
    /// The sandbox's config, the same each time it is asked for.
    pub(super) fn sandbox_config(
        &self,
        context: &Context,
        attempt: u32,
    ) -> Result<v1::PodSandboxConfig, Failed> {
        let pod = &context.pod;
        let deps = &self.deps;
        let name = hostname::for_kernel(pod, &deps.node.cluster_domain);
        let name = name.map_err(|error| Failed::new(FAILED, error.to_string()))?;
        let userns = self.user_namespace(context)?;
        let mut config = sandbox::config(sandbox::SandboxContext {
            pod,
            attempt,
            hostname: name.unwrap_or_default(),
            dns: deps.volumes.dns(pod),
            userns: userns.as_ref(),
            node: &deps.node,
            options: &deps.options,
        });
        if let Some(resources) = config.linux.as_mut().and_then(|l| l.resources.as_mut()) {
            deps.allocations.pin_pod(pod, resources);
        }
        Ok(config)
    }

    /// Ids of a `hostUsers: false` pod.
    pub(super) fn user_namespace(
        &self,
        context: &Context,
    ) -> Result<Option<v1::UserNamespace>, Failed> {
        let wanted = context.pod.spec.as_ref().and_then(|s| s.host_users) == Some(false);
        if !wanted {
            return Ok(None);
        }
        let found = self.userns.of(spec::uid(&context.pod));
        found
            .map(Some)
            .map_err(|error| Failed::new(FAILED, error.to_string()))
    }

    pub(super) async fn run_sandbox(
        &self,
        context: &Context,
        attempt: u32,
        because: Option<&str>,
    ) -> Result<Report, Failed> {
        let subject = self.subject(&context.pod);
        if let Some(because) = because {
            let message =
                format!("Pod sandbox changed, it will be killed and re-created: {because}.");
            subject.normal("SandboxChanged", &message);
        }
        self.make_sandbox(context, attempt)
            .await
            .inspect_err(|error| {
                let message = format!("Failed to create pod sandbox: {}", error.message);
                subject.warning(FAILED, &message);
            })
    }

    async fn make_sandbox(&self, context: &Context, attempt: u32) -> Result<Report, Failed> {
        let mut config = self.sandbox_config(context, attempt)?;
        let annotations = &mut config.annotations;
        match resize::record(&context.pod) {
            Some(granted) => annotations.insert(resize::GRANTED.to_owned(), granted),
            None => annotations.remove(resize::GRANTED),
        };
        std::fs::create_dir_all(&config.log_directory).map_err(|error| {
            Failed::new(FAILED, format!("create {}: {error}", config.log_directory))
        })?;
        let request = v1::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: self.runtime_handler(context).await,
        };
        let cri = self.deps.cri.as_ref();
        let answer = cri.run_pod_sandbox(request).await;
        let id = answer.map_err(|s| Failed::rpc(FAILED, &s))?.pod_sandbox_id;
        let found = observe::sandbox_status(cri, &id).await;
        match found.map_err(|s| Failed::rpc(FAILED, &s))? {
            Some(seen) => Ok(Report::Sandbox(seen)),
            None => Err(Failed::new(FAILED, format!("sandbox {id} is gone"))),
        }
    }

    /// RuntimeClass name to handler: the agent knows classes, else the same name.
    async fn runtime_handler(&self, context: &Context) -> String {
        let class = context
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.runtime_class_name.clone());
        class.unwrap_or_default()
    }

    pub(super) async fn stop_sandbox(&self, context: &Context, id: &str) -> Result<Report, Failed> {
        let request = v1::StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        match self.deps.cri.stop_pod_sandbox(request).await {
            Ok(_) => Ok(Report::Done),
            Err(status) => {
                let message = format!("error killing pod: {}", rpc(&status));
                self.subject(&context.pod)
                    .warning("FailedKillPod", &message);
                Err(Failed::new("FailedKillPod", message))
            }
        }
    }

    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<Report, Failed> {
        let request = v1::RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        let answer = self.deps.cri.remove_pod_sandbox(request).await;
        answer.map_err(|s| {
            tracing::warn!(sandbox = id, error = s.message(), "remove sandbox");
            Failed::rpc("FailedRemovePodSandBox", &s)
        })?;
        Ok(Report::Done)
    }
}
