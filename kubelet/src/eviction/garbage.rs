//! Which images go, and when to look again. Pure.

use crate::config::ImageGc;
use crate::defaults::IMAGE_GC_PERIOD;
use crate::node::disk::Disk;
use cri_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// No sooner than this, however often something comes of age.
const SOONEST: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
struct Record {
    first_seen: Instant,
    last_used: Option<Instant>,
}

/// Since when each image is there, and when it was used last.
#[derive(Debug, Default)]
pub(super) struct Records(BTreeMap<String, Record>);

/// An image that nobody uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unused {
    pub id: String,
    pub bytes: u64,
    first_seen: Instant,
    last_used: Option<Instant>,
}

impl Unused {
    fn idle_since(&self) -> Instant {
        self.last_used.unwrap_or(self.first_seen)
    }
}

impl Records {
    /// Takes note of what there is; answers what nobody uses and nobody pinned, the longest
    /// unused first.
    pub(super) fn observe(
        &mut self,
        images: &[v1::Image],
        used: &BTreeSet<String>,
        now: Instant,
    ) -> Vec<Unused> {
        let there: BTreeSet<&str> = images.iter().map(|i| i.id.as_str()).collect();
        self.0.retain(|id, _| there.contains(id.as_str()));
        let mut unused = Vec::new();
        for image in images {
            let record = self.0.entry(image.id.clone()).or_insert(Record {
                first_seen: now,
                last_used: None,
            });
            if names(image).any(|n| used.contains(n)) {
                record.last_used = Some(now);
            } else if !image.pinned {
                unused.push(Unused {
                    id: image.id.clone(),
                    bytes: image.size,
                    first_seen: record.first_seen,
                    last_used: record.last_used,
                });
            }
        }
        unused.sort_by_key(|i| (i.last_used, i.first_seen));
        unused
    }
}

/// By everything that a container may call it.
fn names(image: &v1::Image) -> impl Iterator<Item = &str> {
    let tags = image.repo_tags.iter().chain(&image.repo_digests);
    tags.chain([&image.id]).map(String::as_str)
}

/// How many bytes must go so that the disk is as empty as it should be; `None` if it is.
pub(super) fn excess(disk: &Disk, policy: &ImageGc) -> Option<u64> {
    let free = disk.available.min(disk.capacity);
    let percent = 100 - u128::from(free) * 100 / u128::from(disk.capacity.max(1));
    let over = percent >= u128::from(policy.high_percent);
    let wanted = u128::from(disk.capacity) * u128::from(100 - policy.low_percent.min(100)) / 100;
    let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
    over.then(|| wanted.saturating_sub(free))
}

/// What is unused for longer than any image may be. Before the agent's time nothing is known,
/// so nothing counts from before.
pub(super) fn aged(unused: &[Unused], policy: &ImageGc, now: Instant) -> Vec<Unused> {
    let old = |i: &&Unused| {
        let idle = now.duration_since(i.idle_since());
        policy.max_age.is_some_and(|most| idle > most)
    };
    unused.iter().filter(old).cloned().collect()
}

/// What may go for the sake of space.
pub(super) fn old_enough(unused: &[Unused], policy: &ImageGc, now: Instant) -> Vec<Unused> {
    let age = |i: &&Unused| now.duration_since(i.first_seen) >= policy.min_age;
    unused.iter().filter(age).cloned().collect()
}

/// When to look again: at the latest after the usual period, sooner when an image that is
/// still too young comes of age before. `short`: the disk is too full.
pub(super) fn wait(unused: &[Unused], policy: &ImageGc, now: Instant, short: bool) -> Duration {
    let left = |since: Instant, age: Duration| age.saturating_sub(now.duration_since(since));
    let young = unused.iter().filter(|_| short).filter_map(|i| {
        let left = left(i.first_seen, policy.min_age);
        (!left.is_zero()).then_some(left)
    });
    let most = policy.max_age.into_iter();
    let expiring = most.flat_map(|most| unused.iter().map(move |i| left(i.idle_since(), most)));
    // One that comes meanwhile expires no sooner.
    let usual = policy.max_age.unwrap_or(IMAGE_GC_PERIOD);
    let soonest = young.chain(expiring).min().unwrap_or(usual);
    soonest.clamp(SOONEST, usual.clamp(SOONEST, IMAGE_GC_PERIOD))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tag: &str, pinned: bool) -> v1::Image {
        v1::Image {
            id: id.into(),
            repo_tags: vec![tag.into()],
            size: 10,
            pinned,
            ..v1::Image::default()
        }
    }

    fn policy(max_age: Option<u64>) -> ImageGc {
        ImageGc {
            high_percent: 85,
            low_percent: 80,
            min_age: Duration::from_secs(120),
            max_age: max_age.map(Duration::from_secs),
        }
    }

    fn ids(unused: &[Unused]) -> Vec<&str> {
        unused.iter().map(|i| i.id.as_str()).collect()
    }

    fn used(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn images_are_unused_when_no_container_names_them_in_any_way() {
        let images = [
            image("sha256:a", "a:1", false),
            image("sha256:b", "b:1", false),
            image("sha256:c", "c:1", false),
            image("sha256:p", "pause:3", true),
        ];
        let mut records = Records::default();
        let unused = records.observe(&images, &used(&["sha256:a", "b:1"]), Instant::now());
        assert_eq!(ids(&unused), ["sha256:c"]);
    }

    #[test]
    fn longest_unused_goes_first_and_the_young_stay() {
        let images = [image("a", "a:1", false), image("b", "b:1", false)];
        let mut records = Records::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        records.observe(&images[..1], &used(&["a"]), at(0));
        let unused = records.observe(&images, &used(&[]), at(60));
        assert_eq!(ids(&unused), ["b", "a"], "never used counts as longest ago");
        assert_eq!(ids(&old_enough(&unused, &policy(None), at(130))), ["a"]);
        let next = |short| wait(&unused, &policy(None), at(130), short).as_secs();
        assert_eq!((next(true), next(false)), (50, 300));
    }

    #[test]
    fn disk_is_emptied_down_to_the_low_threshold_once_it_reaches_the_high_one() {
        let disk = |available| Disk {
            capacity: 1000,
            available,
            ..Disk::default()
        };
        assert_eq!(excess(&disk(160), &policy(None)), None);
        assert_eq!(excess(&disk(150), &policy(None)), Some(50));
        assert_eq!(excess(&disk(2000), &policy(None)), None);
    }

    #[test]
    fn images_expire_when_nobody_used_them_for_so_long() {
        let images = [image("a", "a:1", false), image("b", "b:1", false)];
        let mut records = Records::default();
        let began = Instant::now();
        let at = |s| began + Duration::from_secs(s);
        records.observe(&images, &used(&["a"]), at(100));
        let unused = records.observe(&images, &used(&[]), at(300));
        let policy = policy(Some(200));
        let wait = |now| wait(&unused, &policy, now, false).as_secs();
        assert_eq!((wait(at(250)), wait(at(300))), (50, 1));
        assert_eq!(aged(&unused, &policy, at(300)), []);
        assert_eq!(aged(&unused, &policy, at(301)).len(), 2);
        assert_eq!(super::wait(&[], &policy, at(301), false).as_secs(), 200);
    }
}
