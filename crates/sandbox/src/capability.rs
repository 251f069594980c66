//! Names of Linux capabilities, as `capabilities(7)` has them without `CAP_`, in lower case.

/// By number.
const NAMES: [&str; 41] = [
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

/// The bit of a capability in [`Plan::capabilities_kept`](crate::Plan::capabilities_kept).
#[must_use]
pub fn capability_bit(name: &str) -> Option<u64> {
    NAMES.iter().position(|known| *known == name).map(|number| 1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_kernels_numbers() {
        for (name, number) in [
            ("chown", libc_number::CHOWN),
            ("net_bind_service", libc_number::NET_BIND_SERVICE),
            ("sys_admin", libc_number::SYS_ADMIN),
            ("checkpoint_restore", libc_number::CHECKPOINT_RESTORE),
        ] {
            assert_eq!(capability_bit(name), Some(1 << number));
        }
        assert_eq!(capability_bit("CAP_CHOWN"), None);
    }

    /// From `linux/capability.h`.
    mod libc_number {
        pub(super) const CHOWN: u64 = 0;
        pub(super) const NET_BIND_SERVICE: u64 = 10;
        pub(super) const SYS_ADMIN: u64 = 21;
        pub(super) const CHECKPOINT_RESTORE: u64 = 40;
    }
}
