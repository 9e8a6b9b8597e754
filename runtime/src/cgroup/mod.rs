//! Limits and accounting: cgroup v2, v1 and hybrid hosts behind one module.
