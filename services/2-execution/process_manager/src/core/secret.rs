//! Secrets of one program: shown to it as files in memory, named on record, kept nowhere.

use std::fmt;

use contracts::process_manager::v1 as pb;
use kit::env::CREDENTIALS_FOLDER;
use sandbox::{Mount, SealedFile};
use zeroize::Zeroizing;

use super::{
    ProcessError,
    limits::{SECRET_BYTES_MAX, SECRET_NAME_BYTES_MAX, SECRETS_BYTES_MAX, SECRETS_MAX},
};

/// Its content is in no message, no entry and no file; not even its hash is, for many secrets can be guessed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    pub name: String,
    pub content: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret {} of {} bytes", self.name, self.content.len())
    }
}

impl Secret {
    /// As `grants` of an entry has it.
    #[must_use]
    pub fn logged(&self) -> String {
        format!("secret:{}:{}", self.name, self.content.len())
    }
}

pub(super) fn parse(secrets: Vec<pb::Secret>) -> Result<Vec<Secret>, ProcessError> {
    let invalid = |text: String| Err(ProcessError::invalid("secrets", text));
    if secrets.len() > SECRETS_MAX {
        return invalid(format!("{} secrets, at most {SECRETS_MAX} are allowed", secrets.len()));
    }
    let mut parsed: Vec<Secret> = Vec::with_capacity(secrets.len());
    for pb::Secret { name, content } in secrets {
        let content = Zeroizing::new(content);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if name.is_empty()
            || name.len() > SECRET_NAME_BYTES_MAX
            || name.starts_with('.')
            || !name.bytes().all(plain)
        {
            return invalid(format!(
                "{name:?} is not 1 to {SECRET_NAME_BYTES_MAX} letters, digits, `_`, `-` and `.` that do not start with `.`"
            ));
        }
        if content.len() > SECRET_BYTES_MAX {
            return invalid(format!(
                "{name} has {} bytes, at most {SECRET_BYTES_MAX} are allowed",
                content.len()
            ));
        }
        if parsed.iter().any(|other| other.name == name) {
            return invalid(format!("{name} is given twice"));
        }
        parsed.push(Secret { name, content });
    }
    let bytes: usize = parsed.iter().map(|secret| secret.content.len()).sum();
    if bytes > SECRETS_BYTES_MAX {
        return invalid(format!("{bytes} bytes in all, at most {SECRETS_BYTES_MAX} are allowed"));
    }
    Ok(parsed)
}

/// The mount that shows them, from a slot of the launch.
pub(super) fn mount(secrets: &[Secret], slot: u32) -> Option<Mount> {
    let file =
        |secret: &Secret| SealedFile { name: secret.name.clone(), size_bytes: secret.content.len() as u64 };
    let target = CREDENTIALS_FOLDER.to_owned();
    (!secrets.is_empty()).then(|| Mount::Sealed { target, slot, files: secrets.iter().map(file).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, bytes: usize) -> pb::Secret {
        pb::Secret { name: name.to_owned(), content: vec![7; bytes] }
    }

    #[test]
    fn every_limit_of_secrets_holds_at_the_limit_and_one_past_it() {
        let many = |count: usize| (0..count).map(|n| secret(&format!("n{n}"), 1)).collect::<Vec<_>>();
        assert_eq!(parse(many(SECRETS_MAX)).unwrap().len(), SECRETS_MAX);
        assert!(parse(many(SECRETS_MAX + 1)).is_err());
        assert!(parse(vec![secret("a", SECRET_BYTES_MAX)]).is_ok());
        assert!(parse(vec![secret("a", SECRET_BYTES_MAX + 1)]).is_err());
        let full = || ["a", "b", "c", "d"].map(|name| secret(name, SECRETS_BYTES_MAX / 4)).to_vec();
        assert!(parse(full()).is_ok());
        assert!(parse([full(), vec![secret("e", 1)]].concat()).is_err());
        let longest = "n".repeat(SECRET_NAME_BYTES_MAX);
        assert!(parse(vec![secret(&longest, 1)]).is_ok());
        assert!(parse(vec![secret(&format!("{longest}n"), 1)]).is_err());
        for wrong in ["", ".", "..", ".a", "a/b", "a b", "a:rw"] {
            assert!(parse(vec![secret(wrong, 1)]).is_err(), "{wrong:?}");
        }
        assert!(parse(vec![secret("a", 1), secret("a", 1)]).is_err());
    }

    #[test]
    fn a_secret_is_shown_by_name_and_size() {
        let parsed =
            parse(vec![pb::Secret { name: "key".to_owned(), content: b"hunter2".to_vec() }]).unwrap();
        assert_eq!(format!("{parsed:?}"), "[secret key of 7 bytes]");
        assert_eq!(parsed[0].logged(), "secret:key:7");
        assert_eq!(mount(&[], 7), None);
    }
}
