//! The file in which a node keeps what its TPM has sealed, and where that TPM is. Layout in docs/format.md.

use thiserror::Error;

use crate::{PART_BYTES_MAX, Sealed};

const MAGIC: &[u8; 16] = b"bailiwick-tpm2\0\n";
const VERSION: u16 = 1;
/// Bytes of the path of a TPM.
pub const DEVICE_BYTES_MAX: usize = 1024;
/// Magic, version, three sizes, and what they are the sizes of.
pub const FILE_BYTES_MAX: usize = 16 + 2 + 3 * 2 + DEVICE_BYTES_MAX + 2 * PART_BYTES_MAX;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FileError {
    #[error("this is no secret that a TPM has sealed")]
    Magic,
    #[error("this is in format {0}, this build reads format {VERSION}; use a newer one")]
    Version(u16),
    #[error("the file is damaged: {0}")]
    Form(&'static str),
    #[error("the path of a TPM has 1 to {DEVICE_BYTES_MAX} bytes, not {0}")]
    Device(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmFile {
    /// A character device, or the Unix socket of a software TPM.
    pub device: String,
    pub sealed: Sealed,
}

impl TpmFile {
    pub fn encode(&self) -> Result<Vec<u8>, FileError> {
        if self.device.is_empty() || self.device.len() > DEVICE_BYTES_MAX {
            return Err(FileError::Device(self.device.len()));
        }
        let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
        for part in [self.device.as_bytes(), &self.sealed.public, &self.sealed.private] {
            let size = u16::try_from(part.len()).map_err(|_| FileError::Form("a part is too long"))?;
            bytes.extend(size.to_le_bytes());
            bytes.extend(part);
        }
        Ok(bytes)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FileError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(FileError::Magic)?;
        let (version, mut rest) = rest.split_first_chunk().ok_or(FileError::Form("it ends too early"))?;
        let version = u16::from_le_bytes(*version);
        if version != VERSION {
            return Err(FileError::Version(version));
        }
        let device = part(&mut rest, DEVICE_BYTES_MAX)?;
        let device = std::str::from_utf8(device).map_err(|_| FileError::Form("the path is no text"))?;
        if device.is_empty() {
            return Err(FileError::Device(0));
        }
        let public = part(&mut rest, PART_BYTES_MAX)?.to_vec();
        let private = part(&mut rest, PART_BYTES_MAX)?.to_vec();
        if !rest.is_empty() {
            return Err(FileError::Form("something stands behind its end"));
        }
        Ok(Self { device: device.to_owned(), sealed: Sealed { public, private } })
    }
}

fn part<'a>(rest: &mut &'a [u8], bytes_max: usize) -> Result<&'a [u8], FileError> {
    let (size, behind) = rest.split_first_chunk().ok_or(FileError::Form("it ends too early"))?;
    let size = usize::from(u16::from_le_bytes(*size));
    if size > bytes_max {
        return Err(FileError::Form("a part is too long"));
    }
    let (part, behind) = behind.split_at_checked(size).ok_or(FileError::Form("it ends too early"))?;
    *rest = behind;
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(device: usize, public: usize, private: usize) -> TpmFile {
        let sealed = Sealed { public: vec![1; public], private: vec![2; private] };
        TpmFile { device: "d".repeat(device), sealed }
    }

    #[test]
    fn the_vector_of_the_format_holds() {
        let text = include_str!("../../../docs/format.md");
        let vector = text.lines().find_map(|line| line.strip_prefix("sealed-by-tpm: ")).unwrap();
        let file = TpmFile { device: "/dev/tpmrm0".to_owned(), ..file(1, 3, 2) };
        let hex: String = file.encode().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, vector);
    }

    #[test]
    fn every_part_is_measured() {
        let most = file(DEVICE_BYTES_MAX, PART_BYTES_MAX, PART_BYTES_MAX);
        let bytes = most.encode().unwrap();
        assert_eq!((bytes.len(), TpmFile::decode(&bytes)), (FILE_BYTES_MAX, Ok(most)));
        for device in [0, DEVICE_BYTES_MAX + 1] {
            assert_eq!(file(device, 1, 1).encode(), Err(FileError::Device(device)));
        }
        for over in [file(1, PART_BYTES_MAX + 1, 1), file(1, 1, PART_BYTES_MAX + 1)] {
            let read = TpmFile::decode(&over.encode().unwrap());
            assert_eq!(read, Err(FileError::Form("a part is too long")));
        }
        let good = file(3, 4, 5).encode().unwrap();
        for end in 0..good.len() {
            assert!(TpmFile::decode(&good[..end]).is_err(), "{end}");
        }
        assert!(TpmFile::decode(&[&good[..], &[0]].concat()).is_err());
        let mut newer = good;
        newer[16] = 2;
        assert_eq!(TpmFile::decode(&newer), Err(FileError::Version(2)));
    }

    proptest! {
        #[test]
        fn what_reads_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let framed = [&MAGIC[..], &[1, 0], &bytes].concat();
            for bytes in [bytes, framed] {
                if let Ok(file) = TpmFile::decode(&bytes) {
                    prop_assert_eq!(file.encode().unwrap(), bytes);
                }
            }
        }
    }
}
