//! Which epoch each key path is in: the fold of rotations (KEY-36). A path that was never rotated is in epoch 0.
//!
//! Only the key of the path itself changes; the paths below it keep theirs. What was signed or encrypted in an older
//! epoch still verifies and decrypts; nothing new is.

use std::collections::{BTreeMap, BTreeSet};

use base::KeyPath;
use chain::payload::identity::KeyRotation;
use minicbor::{Decode, Encode};

use super::{KeyError, Purpose};

/// Paths that were ever rotated; one more is refused, so that the fold stays bounded.
pub const ROTATED_PATHS_MAX: usize = 65_536;
/// Epochs of one path.
pub const EPOCH_MAX: u32 = 1_000_000;
/// What stands before a ciphertext of a later epoch: the format's version, and the epoch.
pub const EPOCH_HEADER_BYTES: usize = 5;
const EPOCH_VERSION: u8 = 2;

#[derive(Debug, Default, Encode, Decode)]
#[cbor(array)]
pub(super) struct Epochs {
    #[n(0)]
    current: BTreeMap<KeyPath, u32>,
    /// Paths of identities: an identity's id is the hash of its key, so that key never changes.
    #[n(1)]
    pinned: BTreeSet<KeyPath>,
}

impl Epochs {
    pub(super) fn pin(&mut self, path: &KeyPath) {
        self.pinned.insert(path.clone());
    }

    pub(super) fn rotate(&mut self, rotation: &KeyRotation) {
        self.current.insert(rotation.new_path.clone(), rotation.new_epoch);
    }

    pub(super) fn current(&self, path: &KeyPath) -> u32 {
        self.current.get(path).copied().unwrap_or(0)
    }

    /// An epoch that there is: the current one, or an older one that was asked for.
    pub(super) fn known(&self, path: &KeyPath, asked: Option<u32>) -> Result<u32, KeyError> {
        let current = self.current(path);
        match asked {
            Some(epoch) if epoch > current => Err(KeyError::NoEpoch { epoch, current }),
            Some(epoch) => Ok(epoch),
            None => Ok(current),
        }
    }

    /// From which epoch to which the path would go.
    pub(super) fn next(&self, path: &KeyPath) -> Result<(u32, u32), KeyError> {
        if self.pinned.contains(path) {
            return Err(KeyError::NotRotatable(
                "it is the key of an identity, whose id is the hash of it; rotate a path below it, or make another identity"
                    .to_owned(),
            ));
        }
        if matches!(Purpose::of(path), Ok(Some(Purpose::X509 | Purpose::Jwt))) {
            return Err(KeyError::NotRotatable(
                "it is the key of an authority of SPIFFE, and who trusts it knows one key".to_owned(),
            ));
        }
        let current = self.current(path);
        if current >= EPOCH_MAX {
            return Err(KeyError::NotRotatable(format!("it is in epoch {EPOCH_MAX}, the last one")));
        }
        if current == 0 && self.current.len() >= ROTATED_PATHS_MAX {
            return Err(KeyError::NotRotatable(format!(
                "{ROTATED_PATHS_MAX} paths were rotated, which is the limit"
            )));
        }
        Ok((current, current + 1))
    }
}

/// What goes before a ciphertext of this epoch; nothing in epoch 0.
#[must_use]
pub(crate) fn header(epoch: u32) -> Vec<u8> {
    match epoch {
        0 => Vec::new(),
        _ => [&[EPOCH_VERSION][..], &epoch.to_le_bytes()].concat(),
    }
}

/// The epoch of a ciphertext, and what it encrypts in that epoch's form. None for one that could be written shorter.
#[must_use]
pub(crate) fn split(sealed: &[u8]) -> Option<(u32, &[u8])> {
    let Some((header, rest)) = sealed.split_first_chunk::<EPOCH_HEADER_BYTES>() else {
        return Some((0, sealed));
    };
    match header {
        [EPOCH_VERSION, a, b, c, d] => {
            let epoch = u32::from_le_bytes([*a, *b, *c, *d]);
            (epoch != 0).then_some((epoch, rest))
        }
        _ => Some((0, sealed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::IdentityId;

    fn path(text: &str) -> KeyPath {
        KeyPath::parse(text).unwrap()
    }

    fn rotation(text: &str, new_epoch: u32) -> KeyRotation {
        KeyRotation {
            old_path: path(text),
            old_epoch: new_epoch - 1,
            new_path: path(text),
            new_epoch,
            rotated_by: IdentityId([1; 32]),
            reason: String::new(),
        }
    }

    #[test]
    fn a_path_goes_from_epoch_to_epoch_and_older_ones_stay_known() {
        let mut epochs = Epochs::default();
        assert_eq!((epochs.current(&path("/a/b")), epochs.next(&path("/a/b"))), (0, Ok((0, 1))));
        epochs.rotate(&rotation("/a/b", 1));
        epochs.rotate(&rotation("/a/b", 2));
        assert_eq!(epochs.current(&path("/a/b")), 2);
        assert_eq!(epochs.current(&path("/a/b/c")), 0, "paths below keep theirs");
        let known = |asked| epochs.known(&path("/a/b"), asked);
        assert_eq!((known(None), known(Some(0)), known(Some(2))), (Ok(2), Ok(0), Ok(2)));
        assert_eq!(known(Some(3)), Err(KeyError::NoEpoch { epoch: 3, current: 2 }));
    }

    #[test]
    fn keys_of_identities_and_one_past_the_limits_are_not_rotated() {
        let mut epochs = Epochs::default();
        epochs.pin(&path("/orbital/users/admin"));
        assert!(matches!(epochs.next(&path("/orbital/users/admin")), Err(KeyError::NotRotatable(_))));
        assert_eq!(epochs.next(&path("/orbital/users/admin/@ssh")), Ok((0, 1)));
        for authority in ["/a/home/@x509", "/a/home/@jwt"] {
            assert!(matches!(epochs.next(&path(authority)), Err(KeyError::NotRotatable(_))), "{authority}");
        }
        epochs.rotate(&rotation("/last", EPOCH_MAX - 1));
        assert_eq!(epochs.next(&path("/last")), Ok((EPOCH_MAX - 1, EPOCH_MAX)));
        epochs.rotate(&rotation("/last", EPOCH_MAX));
        assert!(matches!(epochs.next(&path("/last")), Err(KeyError::NotRotatable(_))));
        (epochs.current.len()..ROTATED_PATHS_MAX - 1)
            .for_each(|n| epochs.rotate(&rotation(&format!("/n/{n}"), 1)));
        assert_eq!(epochs.next(&path("/one")), Ok((0, 1)));
        epochs.rotate(&rotation("/one", 1));
        assert!(matches!(epochs.next(&path("/two")), Err(KeyError::NotRotatable(_))));
        assert_eq!(epochs.next(&path("/one")), Ok((1, 2)), "those that are there go on");
    }

    #[test]
    fn a_ciphertext_names_its_epoch_and_the_first_one_does_not() {
        let with = |epoch| [header(epoch), vec![1, 9, 9, 9, 9, 9]].concat();
        for epoch in [0, 1, 258, u32::MAX] {
            assert_eq!(split(&with(epoch)), Some((epoch, &[1, 9, 9, 9, 9, 9][..])));
        }
        assert_eq!(with(0).len() + EPOCH_HEADER_BYTES, with(258).len());
        assert_eq!(split(&[2, 0, 0, 0, 0, 1]), None, "epoch 0 has the short form alone");
        assert_eq!(split(&[2, 1]), Some((0, &[2, 1][..])));
    }
}
