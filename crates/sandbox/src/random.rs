//! The kernel's random source, by its system call alone: a sandbox has no `/dev/urandom` to fall back to, and a statically
//! linked program finds no `getrandom` by name at run time, which is how the usual crate looks for it.

use std::io;

/// Fills the buffer with unpredictable bytes.
pub fn fill(mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        // SAFETY: the pointer and the length are those of a buffer that is borrowed mutably for the call.
        let filled = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match usize::try_from(filled) {
            Ok(filled) => buffer = buffer.get_mut(filled..).unwrap_or_default(),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_byte_is_filled_and_no_two_fillings_are_equal() {
        let (mut one, mut other) = ([0; 1024], [0; 1024]);
        super::fill(&mut one).unwrap();
        super::fill(&mut other).unwrap();
        assert_ne!(one, other);
        // 1024 random bytes without any 64 zeros in a row, or the machine is broken.
        assert!(!one.windows(64).any(|window| window.iter().all(|byte| *byte == 0)));
        super::fill(&mut []).unwrap();
    }
}
