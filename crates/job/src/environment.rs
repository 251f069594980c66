//! Which environment a job ran in (ACT-32).

use base::Hash;

/// What surrounds every job of this build: the sandbox's rules and the instruction set. A change that a program inside
/// could see gets a new number, and a verifier then says `EnvironmentMismatch` instead of comparing outputs.
pub const ENVIRONMENT_VERSION: &str = "bailiwick-job/1 linux-x86_64";

/// What kind of thing is executed; the codes are part of the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EnvironmentType {
    NativeBinary = 1,
    Wasm = 2,
    Container = 3,
}

/// BLAKE3 over type (u32, little endian), image hash, version text and configuration bytes, laid end to end.
#[must_use]
pub fn environment_id(kind: EnvironmentType, image: &Hash, version: &str, configuration: &[u8]) -> Hash {
    Hash::of_parts(&[&(kind as u32).to_le_bytes(), image.as_bytes(), version.as_bytes(), configuration])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: ACT-32
    #[test]
    fn an_environment_is_the_hash_of_its_four_parts_in_order() {
        let image = Hash::of(b"image");
        let id = environment_id(EnvironmentType::NativeBinary, &image, "v1", b"config");
        let bytes = [&[1, 0, 0, 0][..], image.as_bytes(), b"v1", b"config"].concat();
        assert_eq!(id, Hash::of(&bytes));
        for other in [
            environment_id(EnvironmentType::Wasm, &image, "v1", b"config"),
            environment_id(EnvironmentType::NativeBinary, &Hash::ZERO, "v1", b"config"),
            environment_id(EnvironmentType::NativeBinary, &image, "v2", b"config"),
            environment_id(EnvironmentType::NativeBinary, &image, "v1", b"other"),
        ] {
            assert_ne!(other, id);
        }
    }
}
