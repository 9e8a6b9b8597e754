//! An image ready to run: found, or pulled with the pod's credentials.

use super::{ABANDONED, Context, Executor, Failed, Report, rpc};
use crate::event::EventType;
use crate::pod::Options;
use crate::pod::image::{auth, reference};
use crate::pod::lifecycle::ERR_IMAGE_PULL;
use crate::pod::observed::ImageReady;
use crate::pod::spec::namespace;
use crate::pod::spec::security::ImageUser;
use cri_proto::{Status, v1};
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Semaphore};

/// An image that a container needs: its own, or that of a volume.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    container: &'a str,
    image: &'a str,
    policy: Option<&'a str>,
}

/// How many pulls at once, and how many a second.
pub(super) struct Pulls {
    slots: Semaphore,
    bucket: Option<Mutex<Bucket>>,
}

struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl Pulls {
    pub fn new(options: &Options) -> Self {
        let burst = f64::from(options.registry_burst.max(1));
        let bucket = (options.registry_pull_qps > 0).then(|| {
            Mutex::new(Bucket {
                per_second: f64::from(options.registry_pull_qps),
                burst,
                tokens: burst,
                filled: Instant::now(),
            })
        });
        Self {
            slots: Semaphore::new(options.max_parallel_image_pulls.max(1)),
            bucket,
        }
    }

    /// Waits for the rate limit.
    async fn pace(&self) {
        let Some(bucket) = &self.bucket else { return };
        let wait = bucket.lock().await.take();
        tokio::time::sleep(wait).await;
    }
}

impl Bucket {
    /// How long to wait for the token taken now.
    fn take(&mut self) -> Duration {
        let now = Instant::now();
        let earned = now.duration_since(self.filled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + earned).min(self.burst) - 1.0;
        self.filled = now;
        Duration::from_secs_f64((-self.tokens).max(0.0) / self.per_second)
    }
}

impl Executor {
    pub(super) async fn ensure_image(
        &self,
        context: &Context,
        name: &str,
        attempt: u32,
    ) -> Result<Report, Failed> {
        let container = context.container(name)?;
        let work = self.all_images(context, &container);
        let image = tokio::select! {
            result = work => result?,
            () = context.abandon.cancelled() => return Err(Failed::new(ABANDONED, "")),
        };
        let ready = ImageReady {
            attempt,
            image: container.image.clone().unwrap_or_default(),
            image_ref: image.id,
            user: ImageUser {
                uid: image.uid.map(|u| u.value),
                name: image.username,
            },
        };
        Ok(Report::Image(name.to_owned(), ready))
    }

    /// The container's image, once those of its image volumes are here too.
    async fn all_images(
        &self,
        context: &Context,
        container: &Container,
    ) -> Result<v1::Image, Failed> {
        for wanted in volume_images(&context.pod, container) {
            self.find_or_pull(context, wanted).await?;
        }
        let own = Wanted {
            container: &container.name,
            image: container.image.as_deref().unwrap_or_default(),
            policy: container.image_pull_policy.as_deref(),
        };
        self.find_or_pull(context, own).await
    }

    async fn find_or_pull(
        &self,
        context: &Context,
        wanted: Wanted<'_>,
    ) -> Result<v1::Image, Failed> {
        let image = wanted.image;
        let subject = self.subject(&context.pod);
        let event = |kind, reason: &str, message: &str| {
            subject.of_container(wanted.container, kind, reason, message);
        };
        let parsed = reference::parse(image).map_err(|error| {
            let message = format!("Failed to apply default image tag {image:?}: {error}");
            event(EventType::Warning, "InspectFailed", &message);
            event(EventType::Warning, "Failed", "Error: InvalidImageName");
            Failed::new("InvalidImageName", message)
        })?;
        let policy = wanted.policy.unwrap_or_else(|| parsed.default_policy());
        if policy != "Always" {
            let found = self.image_status(image).await.map_err(|status| {
                let message = format!("Failed to inspect image {image:?}: {}", rpc(&status));
                event(EventType::Warning, "InspectFailed", &message);
                Failed::new("ImageInspectError", message)
            })?;
            if let Some(found) = found {
                let message = format!(
                    "Container image {image:?} already present on machine and can be accessed by the pod"
                );
                event(EventType::Normal, "Pulled", &message);
                return Ok(found);
            }
        }
        if policy == "Never" {
            let message =
                format!("Container image {image:?} is not present with pull policy of Never");
            event(EventType::Warning, "ErrImageNeverPull", &message);
            event(EventType::Warning, "Failed", "Error: ErrImageNeverPull");
            return Err(Failed::new("ErrImageNeverPull", message));
        }
        let pulled = self.pull(context, wanted, &parsed).await;
        pulled.inspect_err(|failed| {
            let message = format!("Failed to pull image {image:?}: {}", failed.message);
            event(EventType::Warning, "Failed", &message);
            event(EventType::Warning, "Failed", "Error: ErrImagePull");
        })
    }

    async fn image_status(&self, image: &str) -> Result<Option<v1::Image>, Status> {
        let request = v1::ImageStatusRequest {
            image: Some(spec(image)),
            verbose: false,
        };
        Ok(self.deps.cri.image_status(request).await?.image)
    }

    async fn pull(
        &self,
        context: &Context,
        wanted: Wanted<'_>,
        parsed: &reference::Reference,
    ) -> Result<v1::Image, Failed> {
        let image = wanted.image;
        let subject = self.subject(&context.pod);
        let say = |reason: &str, message: &str| {
            subject.of_container(wanted.container, EventType::Normal, reason, message);
        };
        let asked = Instant::now();
        let mut auths = auth::credentials(parsed, &self.pull_secrets(context).await);
        let providers = &self.deps.options.credential_providers;
        auths.extend(providers.credentials(parsed).await);
        let slot = self.pulls.slots.acquire().await;
        self.pulls.pace().await;
        say("Pulling", &format!("Pulling image {image:?}"));
        let begun = Instant::now();
        let answer = self.pull_with_any(context, image, auths).await;
        drop(slot);
        let id = answer.map_err(|status| Failed::rpc(ERR_IMAGE_PULL, &status))?;
        let found = self.image_status(&id).await;
        let found = found.map_err(|status| Failed::rpc(ERR_IMAGE_PULL, &status))?;
        let found = found.ok_or_else(|| {
            Failed::new(
                ERR_IMAGE_PULL,
                format!("pulled image {id} is not to be found"),
            )
        })?;
        let took = begun.elapsed();
        self.deps.metrics.image_pulled(found.size, took);
        let message = format!(
            "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {} bytes.",
            seconds(took),
            seconds(asked.elapsed()),
            found.size
        );
        say("Pulled", &message);
        Ok(found)
    }

    /// With each of the credentials, or without if there are none.
    async fn pull_with_any(
        &self,
        context: &Context,
        image: &str,
        auths: Vec<v1::AuthConfig>,
    ) -> Result<String, Status> {
        let attempt = context.seen.sandbox().map_or(0, |s| s.attempt);
        let sandbox_config = self.sandbox_config(context, attempt).ok();
        let mut last = Status::unknown("no credentials to try");
        let tries = match auths.is_empty() {
            true => vec![None],
            false => auths.into_iter().map(Some).collect(),
        };
        for auth in tries {
            let request = v1::PullImageRequest {
                image: Some(spec(image)),
                auth,
                sandbox_config: sandbox_config.clone(),
            };
            match self.deps.cri.pull_image(request).await {
                Ok(answer) => return Ok(answer.image_ref),
                Err(status) => last = status,
            }
        }
        Err(last)
    }

    async fn pull_secrets(&self, context: &Context) -> Vec<Secret> {
        let spec = context.pod.spec.as_ref();
        let wanted = spec.and_then(|s| s.image_pull_secrets.as_ref());
        let space = namespace(&context.pod);
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for wish in wanted.into_iter().flatten() {
            match self.deps.objects.secret(space, &wish.name).await {
                Ok(secret) => found.push(Secret::clone(&secret)),
                Err(_) => missing.push(wish.name.as_str()),
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.subject(&context.pod)
                .warning("FailedToRetrieveImagePullSecret", &message);
        }
        found
    }
}

/// Images of the volumes that a container mounts; an empty reference is nothing yet.
fn volume_images<'a>(pod: &'a Pod, container: &'a Container) -> Vec<Wanted<'a>> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref());
    let mounted = |name: &str| {
        let mut mounts = container.volume_mounts.iter().flatten();
        mounts.any(|m| m.name == name)
    };
    let of_volume = |volume: &'a k8s_openapi::api::core::v1::Volume| {
        let source = volume.image.as_ref().filter(|_| mounted(&volume.name))?;
        Some(Wanted {
            container: &container.name,
            image: source.reference.as_deref().filter(|r| !r.is_empty())?,
            policy: source.pull_policy.as_deref(),
        })
    };
    let volumes = volumes.unwrap_or_default().iter();
    volumes.filter_map(of_volume).collect()
}

fn spec(image: &str) -> v1::ImageSpec {
    v1::ImageSpec {
        image: image.to_owned(),
        ..v1::ImageSpec::default()
    }
}

/// As Go prints a Duration cut to milliseconds: 45ms, 1.203s.
fn seconds(took: Duration) -> String {
    if took < Duration::from_secs(1) {
        return format!("{}ms", took.as_millis());
    }
    let text = format!("{:.3}", took.as_secs_f64());
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_reads_as_in_upstreams_events() {
        assert_eq!(seconds(Duration::from_millis(45)), "45ms");
        assert_eq!(seconds(Duration::from_millis(1230)), "1.23s");
        assert_eq!(seconds(Duration::from_secs(2)), "2s");
    }

    #[test]
    fn bucket_makes_wait_when_the_burst_is_spent() {
        let mut bucket = Bucket {
            per_second: 5.0,
            burst: 2.0,
            tokens: 2.0,
            filled: Instant::now(),
        };
        let waits: Vec<bool> = (0..3).map(|_| bucket.take() > Duration::ZERO).collect();
        assert_eq!(waits, vec![false, false, true]);
    }

    #[test]
    fn images_of_volumes_are_wanted_by_the_containers_that_mount_them() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "containers": [{"name": "a", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}, {"name": "b"}],
            "volumes": [{"name": "v", "image": {"reference": "data:1", "pullPolicy": "Always"}},
                        {"name": "other", "image": {"reference": "data:2"}}],
        }}))
        .unwrap();
        let containers = &pod.spec.as_ref().unwrap().containers;
        let wanted = volume_images(&pod, &containers[0]);
        let seen: Vec<_> = wanted.iter().map(|w| (w.image, w.policy)).collect();
        assert_eq!(seen, [("data:1", Some("Always"))]);
        assert!(volume_images(&pod, &containers[1]).is_empty());
    }
}
