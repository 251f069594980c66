//! Which programs may run as a service of the node: static ELF64 of this machine (SUP-73).
//!
//! A `[program]` of the user is not meant: its launcher is the node's own image, and what it launches may be anything.

use std::{io, ops::Range};

use thiserror::Error;

/// Bytes of an ELF64 header.
const HEADER_BYTES: usize = 64;
/// Bytes of one program header of ELF64.
const SEGMENT_BYTES: usize = 56;
/// Program headers that are looked at; linkers write about a dozen.
pub const SEGMENTS_MAX: u16 = 128;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const EXECUTABLE: u16 = 2;
/// Of a position-independent executable too; a library has the same, and an interpreter segment tells neither apart.
const SHARED: u16 = 3;
const X86_64: u16 = 62;
const AARCH64: u16 = 183;
/// The segment that names a dynamic linker.
const INTERPRETER: u32 = 3;

/// The machine that this build runs on.
pub const HOST_MACHINE: u16 = if cfg!(target_arch = "aarch64") { AARCH64 } else { X86_64 };

/// Why an image is no service binary.
#[derive(Debug, Error)]
pub enum ElfFault {
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("it is no ELF file")]
    NotElf,
    #[error("it is no little-endian ELF64 file")]
    Class,
    #[error("it is an ELF file of type {0}, not an executable")]
    NotExecutable(u16),
    #[error("it is built for machine {found}, this host is machine {HOST_MACHINE}")]
    Machine { found: u16 },
    #[error("it has {0} program headers of a size or number that no linker writes")]
    Segments(u16),
    #[error("it is linked dynamically; link it statically (`-C target-feature=+crt-static`)")]
    Dynamic,
}

/// Checks an image; `read` fills the buffer from an offset, or fails.
pub fn check(mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>) -> Result<(), ElfFault> {
    let mut header = [0; HEADER_BYTES];
    match read(0, &mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(ElfFault::NotElf),
        result => result?,
    }
    if header.get(..4) != Some(b"\x7fELF") {
        return Err(ElfFault::NotElf);
    }
    if header.get(4..6) != Some(&[CLASS_64, LITTLE_ENDIAN]) {
        return Err(ElfFault::Class);
    }
    let half = |at| u16::from_le_bytes(field(&header, at..at + 2));
    match half(16) {
        EXECUTABLE | SHARED => {}
        other => return Err(ElfFault::NotExecutable(other)),
    }
    if half(18) != HOST_MACHINE {
        return Err(ElfFault::Machine { found: half(18) });
    }
    let (size, count) = (half(54), half(56));
    if usize::from(size) != SEGMENT_BYTES || count == 0 || count > SEGMENTS_MAX {
        return Err(ElfFault::Segments(count));
    }
    let first = u64::from_le_bytes(field(&header, 32..40));
    for index in 0..u64::from(count) {
        let mut kind = [0; 4];
        read(first.saturating_add(index * SEGMENT_BYTES as u64), &mut kind)?;
        if u32::from_le_bytes(kind) == INTERPRETER {
            return Err(ElfFault::Dynamic);
        }
    }
    Ok(())
}

fn field<const N: usize>(header: &[u8; HEADER_BYTES], at: Range<usize>) -> [u8; N] {
    header.get(at).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_bytes(image: &[u8]) -> Result<(), ElfFault> {
        check(|offset, buffer| {
            let from = usize::try_from(offset).ok().filter(|from| from + buffer.len() <= image.len());
            let from = from.ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(&image[from..from + buffer.len()]);
            Ok(())
        })
    }

    /// A header and segments of these kinds.
    fn elf(class: u8, kind: u16, machine: u16, segments: &[u32]) -> Vec<u8> {
        let mut image = vec![0; HEADER_BYTES + segments.len() * SEGMENT_BYTES];
        image[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, LITTLE_ENDIAN]);
        image[16..18].copy_from_slice(&kind.to_le_bytes());
        image[18..20].copy_from_slice(&machine.to_le_bytes());
        image[32..40].copy_from_slice(&(HEADER_BYTES as u64).to_le_bytes());
        image[54..56].copy_from_slice(&(SEGMENT_BYTES as u16).to_le_bytes());
        image[56..58].copy_from_slice(&(segments.len() as u16).to_le_bytes());
        for (index, segment) in segments.iter().enumerate() {
            let at = HEADER_BYTES + index * SEGMENT_BYTES;
            image[at..at + 4].copy_from_slice(&segment.to_le_bytes());
        }
        image
    }

    /// covers: SUP-73
    #[test]
    fn only_a_static_elf64_executable_of_this_machine_is_a_service_binary() {
        const LOAD: u32 = 1;
        let good = elf(CLASS_64, EXECUTABLE, HOST_MACHINE, &[LOAD, LOAD]);
        check_bytes(&good).unwrap();
        check_bytes(&elf(CLASS_64, SHARED, HOST_MACHINE, &[LOAD])).unwrap();
        let dynamic = elf(CLASS_64, SHARED, HOST_MACHINE, &[LOAD, INTERPRETER]);
        assert!(matches!(check_bytes(&dynamic), Err(ElfFault::Dynamic)));
        assert!(matches!(check_bytes(b"#!/bin/sh\nexit 0\n"), Err(ElfFault::NotElf)));
        let script = format!("#!/bin/sh\n{}", "# long enough for a header\n".repeat(9));
        assert!(matches!(check_bytes(script.as_bytes()), Err(ElfFault::NotElf)));
        assert!(matches!(check_bytes(&elf(1, EXECUTABLE, HOST_MACHINE, &[LOAD])), Err(ElfFault::Class)));
        let other = if HOST_MACHINE == X86_64 { AARCH64 } else { X86_64 };
        let foreign = check_bytes(&elf(CLASS_64, EXECUTABLE, other, &[LOAD]));
        assert!(matches!(foreign, Err(ElfFault::Machine { found }) if found == other));
        assert!(matches!(
            check_bytes(&elf(CLASS_64, 1, HOST_MACHINE, &[LOAD])),
            Err(ElfFault::NotExecutable(1))
        ));
        for cut in [0, 4, HEADER_BYTES - 1] {
            assert!(matches!(check_bytes(&good[..cut]), Err(ElfFault::NotElf)), "{cut}");
        }
        assert!(matches!(check_bytes(&good[..HEADER_BYTES]), Err(ElfFault::Read(_))));
    }

    #[test]
    fn a_disk_that_does_not_answer_is_told_from_a_file_that_is_no_program() {
        let broken = check(|_, _| Err(io::ErrorKind::PermissionDenied.into()));
        assert!(
            matches!(broken, Err(ElfFault::Read(error)) if error.kind() == io::ErrorKind::PermissionDenied)
        );
    }

    #[test]
    fn headers_beyond_the_limit_are_refused_before_they_are_read() {
        let image = |count: u16| elf(CLASS_64, EXECUTABLE, HOST_MACHINE, &vec![1; usize::from(count)]);
        check_bytes(&image(SEGMENTS_MAX)).unwrap();
        for count in [0, SEGMENTS_MAX + 1] {
            assert!(matches!(check_bytes(&image(count)), Err(ElfFault::Segments(found)) if found == count));
        }
    }
}
