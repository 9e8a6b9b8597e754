//! The gRPC of it.

use super::view;
use crate::allocation::Allocations;
use crate::api::recorder::spend::Bucket;
use crate::metrics::{Answer, Metrics, PodResourcesCall};
use crate::pod::{PodView, spec};
use crate::proto::podresources as api;
use crate::proto::podresources::pod_resources_lister_server::{
    PodResourcesLister, PodResourcesListerServer,
};
use crate::proto::podresources_v1alpha1 as alpha;
use crate::proto::podresources_v1alpha1::pod_resources_lister_server::{
    PodResourcesLister as AlphaLister, PodResourcesListerServer as AlphaListerServer,
};
use crate::socket;
use crate::topology::CpuSet;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// kubernetes v1.37 pkg/kubelet/apis/podresources/constants.go `DefaultQPS`.
const QPS: u32 = 100;
/// See [`QPS`]: `DefaultBurstTokens`.
const BURST: u32 = 10;
/// kubernetes v1.37 pkg/kubelet/util/util_unix.go `CreateListener`.
const FOLDER_MODE: u32 = 0o750;

const V1: &str = "v1";
const V1_ALPHA1: &str = "v1alpha1";

/// Tells who was given what.
#[derive(Clone)]
pub struct PodResources {
    pods: Arc<dyn PodView>,
    allocations: Arc<Allocations>,
    metrics: Metrics,
}

impl PodResources {
    /// Of these pods.
    pub fn new(
        pods: Arc<dyn PodView>,
        allocations: Arc<Allocations>,
        metrics: Metrics,
    ) -> PodResources {
        PodResources {
            pods,
            allocations,
            metrics,
        }
    }

    /// Answers on `<root>/pod-resources/kubelet.sock` until `shutdown`.
    pub async fn serve(self, root: PathBuf, shutdown: CancellationToken) {
        let path = Path::new("pod-resources").join("kubelet.sock");
        let listener = match socket::bind(&root.join(path), FOLDER_MODE) {
            Ok(listener) => listener,
            Err(error) => {
                let why = crate::join::report::chain(&error);
                tracing::warn!(why, "resources of pods are told to nobody");
                return;
            }
        };
        let bucket = Arc::new(Mutex::new(Bucket::new(QPS, BURST, Instant::now())));
        let limit = move |request: Request<()>| {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            match bucket.allow(Instant::now()) {
                true => Ok(request),
                false => Err(Status::resource_exhausted("rejected by rate limit")),
            }
        };
        let served = tonic::transport::Server::builder()
            .add_service(PodResourcesListerServer::with_interceptor(
                self.clone(),
                limit.clone(),
            ))
            .add_service(AlphaListerServer::with_interceptor(self, limit))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown.cancelled());
        if let Err(error) = served.await {
            let why = crate::join::report::chain(&error);
            tracing::warn!(why, "pod resources are no longer served");
        }
    }

    fn pod(&self, pod: &Pod) -> api::PodResources {
        view::pod(pod, |c| self.container(pod, c))
    }

    fn container(&self, pod: &Pod, container: &Container) -> api::ContainerResources {
        let uid = spec::uid(pod);
        let devices = &self.allocations.devices;
        let cpus = self.allocations.cpus.of(uid, &container.name);
        let cpus = cpus.iter().flat_map(CpuSet::iter).map(i64::from).collect();
        api::ContainerResources {
            name: container.name.clone(),
            devices: devices.look(|all| view::devices(all, uid, &container.name)),
            cpu_ids: cpus,
            memory: view::memory(&self.allocations.memory.of(uid, &container.name)),
            dynamic_resources: view::claims(self.allocations.dra.of(pod, container)),
        }
    }

    /// It tells of app containers alone.
    fn first_version(&self, pod: &Pod) -> alpha::PodResources {
        let spec = pod.spec.as_ref();
        let containers = spec.into_iter().flat_map(|s| &s.containers);
        alpha::PodResources {
            name: spec::name(pod).to_owned(),
            namespace: spec::namespace(pod).to_owned(),
            containers: containers
                .map(|c| without_topology(self.container(pod, c)))
                .collect(),
        }
    }

    fn all(&self) -> Vec<api::PodResources> {
        let pods = self.pods.pods().into_iter().filter(view::active);
        pods.map(|known| self.pod(&known.pod)).collect()
    }
}

#[tonic::async_trait]
impl PodResourcesLister for PodResources {
    async fn list(
        &self,
        _: Request<api::ListPodResourcesRequest>,
    ) -> Result<Response<api::ListPodResourcesResponse>, Status> {
        let call = PodResourcesCall::List;
        self.metrics.pod_resources_asked(V1, call, Answer::Given);
        Ok(Response::new(api::ListPodResourcesResponse {
            pod_resources: self.all(),
        }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<api::AllocatableResourcesRequest>,
    ) -> Result<Response<api::AllocatableResourcesResponse>, Status> {
        let call = PodResourcesCall::GetAllocatable;
        self.metrics.pod_resources_asked(V1, call, Answer::Given);
        let cpus = self.allocations.cpus.allocatable();
        let cpus = cpus.iter().map(i64::from).collect();
        Ok(Response::new(api::AllocatableResourcesResponse {
            devices: self.allocations.devices.look(view::all_devices),
            cpu_ids: cpus,
            memory: view::memory(&self.allocations.memory.allocatable()),
        }))
    }

    async fn get(
        &self,
        request: Request<api::GetPodResourcesRequest>,
    ) -> Result<Response<api::GetPodResourcesResponse>, Status> {
        let request = request.into_inner();
        let (namespace, name) = (&request.pod_namespace, &request.pod_name);
        let found = self.pods.pod(namespace, name);
        let answer = match found {
            Some(_) => Answer::Given,
            None => Answer::Refused,
        };
        let call = PodResourcesCall::Get;
        self.metrics.pod_resources_asked(V1, call, answer);
        let known = found.ok_or_else(|| {
            Status::unknown(format!("pod {name} in namespace {namespace} not found"))
        })?;
        Ok(Response::new(api::GetPodResourcesResponse {
            pod_resources: Some(self.pod(&known.pod)),
        }))
    }
}

#[tonic::async_trait]
impl AlphaLister for PodResources {
    async fn list(
        &self,
        _: Request<alpha::ListPodResourcesRequest>,
    ) -> Result<Response<alpha::ListPodResourcesResponse>, Status> {
        let call = PodResourcesCall::ListAlpha;
        self.metrics
            .pod_resources_asked(V1_ALPHA1, call, Answer::Given);
        let pods = self.pods.pods().into_iter().filter(view::active);
        let pods = pods.map(|known| self.first_version(&known.pod));
        Ok(Response::new(alpha::ListPodResourcesResponse {
            pod_resources: pods.collect(),
        }))
    }
}

fn without_topology(container: api::ContainerResources) -> alpha::ContainerResources {
    let devices = container.devices.into_iter().map(|d| {
        let (resource_name, device_ids) = (d.resource_name, d.device_ids);
        alpha::ContainerDevices {
            resource_name,
            device_ids,
        }
    });
    alpha::ContainerResources {
        name: container.name,
        devices: devices.collect(),
    }
}
