//! Namespaces, cgroups, Landlock, seccomp and limits for one process tree.
