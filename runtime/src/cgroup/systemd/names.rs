//! Names of units.

/// Before a container's id, after it `.scope`; as containerd's `cri-containerd`.
const PREFIX: &str = "lighter-";
/// Below it are the sandboxes whose kubelet names no parent.
pub const OWN: &str = "/lighter.slice";

/// A slice's cgroup: `a-b.slice` lies in `a.slice` (systemd.slice(5)). CRI's
/// parent is the name alone or a path that ends in it, as the kubelet gives it.
pub fn expand(parent: &str) -> Option<String> {
    let name = parent.trim_end_matches('/').rsplit('/').next()?;
    let stem = name.strip_suffix(".slice")?;
    if stem == "-" {
        return Some(String::new());
    }
    if stem.split('-').any(str::is_empty) {
        return None;
    }
    let mut path = String::new();
    for (at, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
        path.push('/');
        path.push_str(&stem[..at]);
        path.push_str(".slice");
    }
    Some(path)
}

/// The scope of a container.
pub fn of_container(id: &str) -> String {
    format!("{PREFIX}{id}.scope")
}

/// The slice of a sandbox that has no parent, as a path.
pub fn of_sandbox(id: &str) -> String {
    format!("{OWN}/{PREFIX}{id}.slice")
}

/// The container whose scope this is.
pub fn container_of(scope: &str) -> Option<&str> {
    scope.strip_prefix(PREFIX)?.strip_suffix(".scope")
}

/// The sandbox whose slice this is.
pub fn sandbox_of(slice: &str) -> Option<&str> {
    slice.strip_prefix(PREFIX)?.strip_suffix(".slice")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slice_lies_in_all_that_its_name_starts_with() {
        let path = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice";
        assert_eq!(
            expand("kubepods-burstable-pod1_2.slice").as_deref(),
            Some(path)
        );
        assert_eq!(expand(path).as_deref(), Some(path));
        assert_eq!(expand("/test.slice").as_deref(), Some("/test.slice"));
        assert_eq!(expand("-.slice").as_deref(), Some(""));
    }

    #[test]
    fn what_is_no_slice_has_no_cgroup() {
        for name in [
            "/kubepods/pod1",
            "a--b.slice",
            "-a.slice",
            "a-.slice",
            ".slice",
            "",
        ] {
            assert_eq!(expand(name), None, "{name}");
        }
    }

    #[test]
    fn ids_are_read_back_from_units() {
        assert_eq!(container_of(&of_container("abc")), Some("abc"));
        let slice = of_sandbox("abc");
        assert_eq!(
            sandbox_of(slice.rsplit('/').next().expect("name")),
            Some("abc")
        );
        assert_eq!(expand("lighter-abc.slice"), Some(slice));
        assert_eq!(container_of("init.scope"), None);
    }
}
