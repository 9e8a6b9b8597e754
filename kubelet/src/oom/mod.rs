//! The kernel's OOM kills that no cgroup's limit is to blame for: the machine itself is out of
//! memory, and whoever looks at the Node should see it (`SystemOOM`).
//!
//! What the kernel says is read from /dev/kmsg; `parser` finds the kills in it.
//! Rules: kubernetes v1.37 pkg/kubelet/oom/oom_watcher_linux.go.

mod parser;
mod watcher;

pub use watcher::OomWatcher;
