use super::*;
use cri_proto::v1::{KeyValue, Mount as CriMount, MountPropagation};
use oci_spec::image::{ConfigBuilder, ImageConfigurationBuilder};
use oci_spec::runtime::Mount;
use std::collections::HashMap;

struct Case {
    config: ContainerConfig,
    sandbox: PodSandboxConfig,
}

impl Case {
    fn new() -> Self {
        Self {
            config: ContainerConfig::default(),
            sandbox: PodSandboxConfig {
                hostname: "web-0".to_owned(),
                ..Default::default()
            },
        }
    }

    fn security(&mut self) -> &mut LinuxContainerSecurityContext {
        let linux = self.config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default()
    }

    fn plan(&self) -> Result<Plan, SpecError> {
        let config = ConfigBuilder::default()
            .entrypoint(vec!["/server".to_owned()])
            .cmd(vec!["--help".to_owned()])
            .env(vec!["PATH=/bin".to_owned(), "A=image".to_owned()])
            .working_dir("/srv")
            .volumes(vec!["/../../etc".to_owned()])
            .labels(HashMap::from([(
                "io.kubernetes.cri.sandbox-id".to_owned(),
                "another".to_owned(),
            )]))
            .build()
            .expect("config");
        let image = ImageConfigurationBuilder::default().config(config);
        let image = image
            .architecture("amd64")
            .os("linux")
            .build()
            .expect("image");
        container(Input {
            config: &self.config,
            sandbox: &self.sandbox,
            sandbox_id: "s",
            image: &image,
            accounts: &Accounts::parse("root:x:0:0::/root:/bin/sh", ""),
            host: &HostSecurity {
                bounding: capabilities::names(u64::MAX >> 23),
                ..HostSecurity::default()
            },
            selinux_level: "",
            files: &PodFiles {
                hosts: Some("/pod/hosts".into()),
                ..PodFiles::default()
            },
            image_mounts: &[],
            devices: Vec::new(),
            seccomp_dir: Path::new("/seccomp"),
        })
    }

    fn args(&self) -> Vec<String> {
        let plan = self.plan().expect("plan");
        let process = plan.spec.process().clone().expect("process");
        process.args().clone().expect("args")
    }

    fn env(&self) -> Vec<String> {
        let plan = self.plan().expect("plan");
        let process = plan.spec.process().clone().expect("process");
        process.env().clone().expect("env")
    }

    fn mount(&self, path: &str) -> Option<Mount> {
        let plan = self.plan().expect("plan");
        let mounts = plan.spec.mounts().clone().expect("mounts");
        let at: Vec<&Mount> = mounts
            .iter()
            .filter(|m| m.destination() == Path::new(path))
            .collect();
        assert!(at.len() < 2, "{path} is mounted {} times", at.len());
        at.first().map(|m| (*m).clone())
    }

    fn options(&self, path: &str) -> Vec<String> {
        let mount = self.mount(path).expect("mounted");
        mount.options().clone().expect("options")
    }
}

#[test]
fn command_and_args_replace_entrypoint_and_cmd() {
    let mut case = Case::new();
    assert_eq!(case.args(), ["/server", "--help"]);
    case.config.args = vec!["-x".to_owned()];
    assert_eq!(case.args(), ["/server", "-x"]);
    case.config.command = vec!["/other".to_owned()];
    assert_eq!(case.args(), ["/other", "-x"]);
    case.config.args.clear();
    assert_eq!(case.args(), ["/other"]);
}

#[test]
fn environment_of_the_request_wins_over_the_images() {
    let mut case = Case::new();
    case.config.envs = vec![KeyValue {
        key: "A".to_owned(),
        value: b"request".to_vec(),
    }];
    let expected = ["PATH=/bin", "HOSTNAME=web-0", "A=request", "HOME=/root"];
    assert_eq!(case.env(), expected);
    case.config.tty = true;
    assert!(case.env().contains(&"TERM=xterm".to_owned()));
    case.config.envs[0].key = "A=B".to_owned();
    assert!(matches!(case.plan(), Err(SpecError::Env { .. })));
}

#[test]
fn requested_mount_takes_the_place_of_a_default_one() {
    let mut case = Case::new();
    assert_eq!(
        case.mount("/etc/hosts").and_then(|m| m.source().clone()),
        Some("/pod/hosts".into())
    );
    let mount = |path: &str, host: &str| CriMount {
        container_path: path.to_owned(),
        host_path: host.to_owned(),
        ..Default::default()
    };
    case.config.mounts = vec![mount("/etc/hosts", "/k/hosts"), mount("/dev/", "/dev")];
    assert_eq!(
        case.mount("/etc/hosts").and_then(|m| m.source().clone()),
        Some("/k/hosts".into())
    );
    assert_eq!(case.options("/dev"), ["rbind", "rprivate", "rw"]);
    assert_eq!(case.mount("/dev/pts"), None);
    assert!(case.mount("/proc").is_some());
}

#[test]
fn recursive_read_only_is_checked() {
    let mut case = Case::new();
    let mut mount = CriMount {
        container_path: "/data".to_owned(),
        host_path: "/srv".to_owned(),
        readonly: true,
        recursive_read_only: true,
        ..Default::default()
    };
    case.config.mounts = vec![mount.clone()];
    assert_eq!(case.options("/data"), ["rbind", "rprivate", "rro"]);
    mount.set_propagation(MountPropagation::PropagationHostToContainer);
    case.config.mounts = vec![mount.clone()];
    assert!(case.plan().is_err());
    mount.set_propagation(MountPropagation::PropagationPrivate);
    mount.readonly = false;
    case.config.mounts = vec![mount];
    assert!(case.plan().is_err());
}

#[test]
fn mounts_are_made_parents_first() {
    let mut case = Case::new();
    for path in ["/a/b/c", "/a", "/a/b"] {
        case.config.mounts.push(CriMount {
            container_path: path.to_owned(),
            host_path: "/srv".to_owned(),
            ..Default::default()
        });
    }
    let plan = case.plan().expect("plan");
    let mounts = plan.spec.mounts().clone().expect("mounts");
    let last: Vec<String> = mounts[mounts.len() - 3..]
        .iter()
        .map(|m| m.destination().display().to_string())
        .collect();
    assert_eq!(last, ["/a", "/a/b", "/a/b/c"]);
}

#[test]
fn privileged_container_sees_the_host_unhidden() {
    let mut case = Case::new();
    let linux = |case: &Case| {
        case.plan()
            .expect("plan")
            .spec
            .linux()
            .clone()
            .expect("linux")
    };
    let masked = linux(&case).masked_paths().clone().expect("masked");
    assert!(masked.contains(&"/proc/kcore".to_owned()));
    assert!(masked.contains(&"/sys/devices/virtual/powercap".to_owned()));
    assert!(case.options("/sys").contains(&"ro".to_owned()));
    case.security().privileged = true;
    assert_eq!(linux(&case).masked_paths().as_deref(), Some(&[][..]));
    assert!(case.options("/sys").contains(&"rw".to_owned()));
    assert!(case.options("/sys/fs/cgroup").contains(&"rw".to_owned()));
}

#[test]
fn cve_2026_53488_labels_of_the_image_are_no_annotations() {
    let plan = Case::new().plan().expect("plan");
    let annotations = plan.spec.annotations().clone().expect("annotations");
    assert_eq!(annotations["io.kubernetes.cri.sandbox-id"], "s");
    assert!(!annotations.values().any(|v| v == "another"));
}

#[test]
fn cve_2023_6476_and_2024_3154_annotations_of_the_pod_decide_nothing() {
    let mut case = Case::new();
    let before = case.plan().expect("plan").spec;
    for key in [
        "io.kubernetes.cri-o.userns-mode",
        "io.kubernetes.cri-o.DevicesX",
        "org.systemd.property.ExecStart",
        "run.oci.hooks.stdout",
    ] {
        let value = ("anything".to_owned(), key.to_owned());
        case.sandbox
            .annotations
            .insert(value.1.clone(), value.0.clone());
        case.config.annotations.insert(value.1, value.0);
    }
    assert_eq!(case.plan().expect("plan").spec, before);
}

#[test]
fn cve_2022_23648_volumes_of_the_image_make_no_mount() {
    let plan = Case::new().plan().expect("plan");
    let mounts = plan.spec.mounts().clone().expect("mounts");
    let odd = mounts.iter().find(|m| {
        let path = m.destination().to_string_lossy();
        path.contains("..") || path == "/etc"
    });
    assert!(odd.is_none(), "{odd:?}");
}

#[test]
fn cve_2021_21334_variables_of_one_container_are_not_anothers() {
    let variable = |key: &str| {
        let mut case = Case::new();
        case.config.envs = vec![KeyValue {
            key: key.to_owned(),
            value: b"x".to_vec(),
        }];
        case.env()
    };
    let (one, other) = (variable("ONE"), variable("OTHER"));
    assert!(!other.contains(&"ONE=x".to_owned()), "{other:?}");
    assert!(!one.contains(&"OTHER=x".to_owned()), "{one:?}");
}

#[test]
fn cve_2022_24769_inheritable_capabilities_are_empty() {
    let plan = Case::new().plan().expect("plan");
    let process = plan.spec.process().clone().expect("process");
    let capabilities = process.capabilities().clone().expect("capabilities");
    assert_eq!(
        capabilities.inheritable().as_ref().map(|s| s.len()),
        Some(0)
    );
    assert_eq!(capabilities.effective().as_ref().map(|s| s.len()), Some(14));
}

#[test]
fn relative_working_directory_is_refused() {
    let mut case = Case::new();
    case.config.working_dir = "proc/self/fd/7".to_owned();
    assert!(matches!(case.plan(), Err(SpecError::WorkingDir { .. })));
}

#[test]
fn default_pid_namespace_is_the_pods() {
    let mut case = Case::new();
    assert_eq!(case.plan().expect("plan").pid, ContainerPid::Pod);
    let options = case.security().namespace_options.get_or_insert_default();
    options.set_pid(NamespaceMode::Target);
    assert!(matches!(case.plan(), Err(SpecError::NoTarget)));
}
