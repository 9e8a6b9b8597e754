//! Huge pages: what Kubernetes and the kernel call their sizes, and how much of each a container,
//! a pod or a volume has. Pure.

use crate::node::resources::hugepage_name;
use crate::quantity::Amount;
use cri_proto::v1::HugepageLimit;

/// Bytes of a page, by the name of the resource: `hugepages-2Mi`.
#[must_use]
pub fn size_of(resource: &str) -> Option<u64> {
    size(resource.strip_prefix("hugepages-")?)
}

/// Bytes of `2Mi`.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    let bytes = u64::try_from(Amount::parse(text)?.units()).ok()?;
    (bytes > 0).then_some(bytes)
}

/// As the kernel names its files: linux mm/hugetlb_cgroup.c `mem_fmt`.
#[must_use]
pub fn kernel_name(size: u64) -> String {
    match size {
        n if n >= 1 << 30 => format!("{}GB", n >> 30),
        n if n >= 1 << 20 => format!("{}MB", n >> 20),
        n => format!("{}KB", n >> 10),
    }
}

/// A limit for each size that the machine knows: who asks for none gets none. `amount` answers by
/// the name of the resource.
#[must_use]
pub fn limits(sizes: &[u64], amount: impl Fn(&str) -> Option<Amount>) -> Vec<HugepageLimit> {
    let limit = |size: &u64| HugepageLimit {
        page_size: kernel_name(*size),
        limit: amount(&hugepage_name(*size))
            .map_or(0, |a| u64::try_from(a.units()).unwrap_or_default()),
    };
    sizes.iter().map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_name_in_kubernetes_and_another_in_the_kernel() {
        assert_eq!(size_of("hugepages-2Mi"), Some(2 << 20));
        assert_eq!(size_of("hugepages-"), None);
        assert_eq!(size_of("hugepages-0"), None);
        assert_eq!(size_of("memory"), None);
        let names = [64 << 10, 2 << 20, 1 << 30].map(kernel_name);
        assert_eq!(names, ["64KB", "2MB", "1GB"]);
    }

    #[test]
    fn who_asks_for_no_pages_of_a_size_may_have_none() {
        let had = |name: &str| (name == "hugepages-2Mi").then(|| Amount::from_units(4 << 20));
        let limits = limits(&[2 << 20, 1 << 30], had);
        let seen: Vec<_> = limits.iter().map(|l| (&*l.page_size, l.limit)).collect();
        assert_eq!(seen, [("2MB", 4 << 20), ("1GB", 0)]);
    }
}
