//! A container made, not yet started.

use super::env_files;
use super::{ABANDONED, Context, Executor, Failed, Report};
use crate::event::EventType;
use crate::objects::ObjectError;
use crate::panics;
use crate::pod::observe;
use crate::pod::spec::container::{self, ContainerContext};
use crate::pod::spec::env::{self, EnvContext, Sources};
use crate::pod::spec::{self, namespace, services};
use crate::volume::{MountRequest, PodFacts};
use cri_proto::v1;
use k8s_openapi::api::core::v1::Container;
use std::collections::BTreeMap;

const CONFIG: &str = "CreateContainerConfigError";
const CREATE: &str = "CreateContainerError";

fn config_error(error: impl ToString) -> Failed {
    Failed::new(CONFIG, error.to_string())
}

impl Executor {
    pub(super) async fn create(
        &self,
        context: &Context,
        name: &str,
        attempt: u32,
        sandbox: &str,
    ) -> Result<Report, Failed> {
        let subject = self.subject(&context.pod);
        let made = self.make(context, name, attempt, sandbox).await;
        if made.is_err() && self.sandbox_died(context, sandbox).await {
            return Err(Failed::new(ABANDONED, "the sandbox is no longer ready"));
        }
        match &made {
            Ok(_) => {
                subject.of_container(name, EventType::Normal, "Created", "Container created");
            }
            Err(failed) => {
                let message = format!("Error: {}", failed.message);
                subject.of_container(name, EventType::Warning, "Failed", &message);
            }
        }
        made
    }

    /// Whether that is why nothing could be made in it. Exits of containers may
    /// be heard of before the end of their sandbox.
    async fn sandbox_died(&self, context: &Context, sandbox: &str) -> bool {
        let found = observe::sandbox_status(self.deps.cri.as_ref(), sandbox).await;
        let Ok(Some(seen)) = found else { return false };
        let dead = !seen.ready;
        context.tell_sandbox(seen);
        dead
    }

    async fn make(
        &self,
        context: &Context,
        name: &str,
        attempt: u32,
        sandbox: &str,
    ) -> Result<Report, Failed> {
        let wanted = context.container(name)?;
        let config = self.container_config(context, &wanted, attempt).await?;
        let sandbox_attempt = context.seen.sandbox().map_or(0, |s| s.attempt);
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(self.sandbox_config(context, sandbox_attempt)?),
        };
        let answer = self.deps.cri.create_container(request).await;
        let answer = answer.map_err(|s| Failed::new(CREATE, s.message()))?;
        Ok(Report::Container(Box::new(
            self.look(context, &answer.container_id).await?,
        )))
    }

    async fn container_config(
        &self,
        context: &Context,
        wanted: &Container,
        attempt: u32,
    ) -> Result<v1::ContainerConfig, Failed> {
        let deps = &self.deps;
        let given = deps.allocations.given(&context.pod, wanted).await;
        let given = given.map_err(|status| config_error(status.message()))?;
        let env = given.with_envs(self.environment(context, wanted).await?);
        let map: BTreeMap<String, String> = env.iter().cloned().collect();
        let userns = self.user_namespace(context)?;
        let facts = self.facts(context, userns.as_ref());
        let mounts = deps.volumes.container_mounts(MountRequest {
            pod: &context.pod,
            container: wanted,
            attempt,
            volumes: &context.volumes,
            env: &map,
            facts: &facts,
        });
        let mounts = mounts.await.map_err(config_error)?;
        let Some(image) = context.seen.images.get(&wanted.name) else {
            return Err(Failed::new(CREATE, "the image is not ready"));
        };
        let config = container::config(ContainerContext {
            pod: &context.pod,
            container: wanted,
            attempt,
            image_ref: &image.image_ref,
            user: &image.user,
            env: &env,
            mounts,
            userns: userns.as_ref(),
            target: target(context, &wanted.name),
            node: &deps.node,
            options: &deps.options,
        });
        let mut config = config.map_err(config_error)?;
        let devices = deps.volumes.container_devices(wanted, &context.volumes);
        config.devices.extend(devices.map_err(config_error)?);
        given.apply(&mut config);
        if let Some(resources) = config.linux.as_mut().and_then(|l| l.resources.as_mut()) {
            deps.allocations.pin(&context.pod, &wanted.name, resources);
        }
        Ok(config)
    }

    fn facts(&self, context: &Context, userns: Option<&v1::UserNamespace>) -> PodFacts {
        PodFacts {
            pod_ips: context.ips(&self.deps),
            host_ips: self.deps.node.ips.texts(),
            uid_mappings: userns.map(|u| u.uids.clone()).unwrap_or_default(),
            gid_mappings: userns.map(|u| u.gids.clone()).unwrap_or_default(),
            recursive_read_only: self.deps.options.recursive_read_only,
        }
    }

    async fn environment(
        &self,
        context: &Context,
        wanted: &Container,
    ) -> Result<Vec<(String, String)>, Failed> {
        let sources = self.sources(context, wanted).await?;
        let all = self.deps.objects.services().await;
        let pod_ips = context.ips(&self.deps);
        let context = EnvContext {
            pod: &context.pod,
            container: wanted,
            node: &self.deps.node,
            pod_ips: &pod_ips,
            services: services::variables(&context.pod, &all),
        };
        env::build(&context, &sources).map_err(config_error)
    }

    /// What does not exist is left out: whether that is an error is [`env`]'s to say.
    async fn sources(&self, context: &Context, wanted: &Container) -> Result<Sources, Failed> {
        let space = namespace(&context.pod);
        let names = env::wanted(wanted);
        let mut sources = Sources::default();
        for name in names.config_maps {
            match self.deps.objects.config_map(space, &name).await {
                Ok(found) => drop(sources.config_maps.insert(name, found)),
                Err(ObjectError::NotFound { .. }) => {}
                Err(error) => return Err(config_error(error)),
            }
        }
        for name in names.secrets {
            match self.deps.objects.secret(space, &name).await {
                Ok(found) => drop(sources.secrets.insert(name, found)),
                Err(ObjectError::NotFound { .. }) => {}
                Err(error) => return Err(config_error(error)),
            }
        }
        for (volume, path) in names.files {
            let root = self.deps.node.kubelet_root.join("pods");
            let root = root
                .join(spec::uid(&context.pod))
                .join("volumes/kubernetes.io~empty-dir")
                .join(&volume);
            let inside = path.clone();
            let read = panics::blocking(move || env_files::read(&root, &inside)).await;
            let text = read.map_err(|e| e.to_string());
            sources.files.insert((volume, path), text);
        }
        Ok(sources)
    }
}

/// The container whose processes an ephemeral one is to see.
fn target(context: &Context, name: &str) -> Option<String> {
    let spec = context.pod.spec.as_ref()?;
    let mut ephemeral = spec.ephemeral_containers.iter().flatten();
    let own = ephemeral.find(|e| e.name == name)?;
    let target = own.target_container_name.as_deref()?;
    context.seen.newest(target).map(|c| c.id.clone())
}
