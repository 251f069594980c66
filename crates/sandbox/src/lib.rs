//! Namespaces, cgroups, Landlock, seccomp and limits for one process tree.

pub mod secret_memory;
