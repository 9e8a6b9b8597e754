//! Joining a cluster as kubeadm does: discovery, TLS bootstrap, files.
