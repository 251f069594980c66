//! Fixed-width little-endian fields without a panicking path.

/// `N` bytes from `at`, or None where `bytes` ends before.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

/// Lays `fields` end to end into a buffer of fixed size; what does not fit is left out, so sizes are asserted by tests.
pub(crate) fn lay<const N: usize>(fields: &[&[u8]]) -> [u8; N] {
    let mut bytes = [0; N];
    let mut rest = bytes.iter_mut();
    for byte in fields.iter().flat_map(|field| field.iter()) {
        if let Some(slot) = rest.next() {
            *slot = *byte;
        }
    }
    bytes
}
