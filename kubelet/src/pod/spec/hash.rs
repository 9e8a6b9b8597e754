//! The hash by which a changed definition is told: what a stock kubelet would
//! write, so that either can take over the other's containers.
//!
//! kubernetes v1.36 pkg/kubelet/container/helpers.go `HashContainer`: FNV-1a of 32
//! bits over the Go-syntax dump of the bytes of a JSON object that holds name
//! and image.

use k8s_openapi::api::core::v1::Container;
use std::fmt::Write;

const OFFSET: u32 = 0x811c_9dc5;
const PRIME: u32 = 0x0100_0193;

/// In hex, as the annotation `io.kubernetes.container.hash` holds it.
#[must_use]
pub fn hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let json = format!(
        "{{\"image\":{},\"name\":{}}}",
        serde_json::Value::from(image),
        serde_json::Value::from(container.name.as_str())
    );
    let mut dump = String::from("([]uint8)[");
    for (index, byte) in json.bytes().enumerate() {
        let gap = if index == 0 { "" } else { " " };
        let _ = write!(dump, "{gap}{byte}");
    }
    dump.push(']');
    format!("{:x}", fnv1a(dump.as_bytes()))
}

fn fnv1a(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(OFFSET, |h, b| (h ^ u32::from(*b)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, image: &str) -> Container {
        Container {
            name: name.into(),
            image: Some(image.into()),
            ..Container::default()
        }
    }

    #[test]
    fn hash_is_the_one_that_kubernetes_computes() {
        // k8s.io/apimachinery v0.37.2 util/dump over hash/fnv.New32a.
        assert_eq!(hash(&container("web", "nginx:1")), "855627a5");
    }

    #[test]
    fn hash_changes_with_the_image_and_with_nothing_else() {
        let one = container("web", "nginx:1");
        let mut same = one.clone();
        same.args = Some(vec!["-x".into()]);
        assert_eq!(hash(&one), hash(&same));
        assert_ne!(hash(&one), hash(&container("web", "nginx:2")));
    }
}
