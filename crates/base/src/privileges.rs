//! Linux capabilities by name: as `capabilities(7)` has them without `CAP_`, in lower case.

/// By the kernel's number.
pub const LINUX_CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// Those that a program of the user may keep. With the others it could leave its sandbox or change the host.
pub const PRIVILEGES: [&str; 19] = [
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_chroot",
    "sys_nice",
    "sys_resource",
    "audit_write",
    "lease",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_kept_leads_nowhere_out() {
        assert!(PRIVILEGES.iter().all(|name| LINUX_CAPABILITIES.contains(name)));
        for out in ["sys_admin", "sys_ptrace", "dac_read_search", "sys_module", "mknod", "setfcap", "bpf"] {
            assert!(LINUX_CAPABILITIES.contains(&out) && !PRIVILEGES.contains(&out), "{out}");
        }
    }
}
