//! Linux capabilities as bits.

use base::LINUX_CAPABILITIES;

/// The bit of a capability in [`Plan::capabilities_kept`](crate::Plan::capabilities_kept).
#[must_use]
pub fn capability_bit(name: &str) -> Option<u64> {
    LINUX_CAPABILITIES.iter().position(|known| *known == name).map(|number| 1 << number)
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
