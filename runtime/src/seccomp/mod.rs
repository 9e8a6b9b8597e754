//! seccomp profiles and their compiler to BPF.
