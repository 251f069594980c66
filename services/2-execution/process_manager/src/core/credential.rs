//! Secrets that `network` puts into what a program asks for: named on record, handed on in memory, shown to nobody.

use contracts::process_manager::v1 as pb;
use kit::way_out::{Credential, Written, check_all};
use zeroize::Zeroizing;

use super::ProcessError;

/// Before one in the grants of an entry.
const GRANT: &str = "credential:";

pub(super) fn parse(given: Vec<pb::Credential>, proxy: bool) -> Result<Vec<Credential>, ProcessError> {
    let invalid = |text: String| ProcessError::invalid("credentials", text);
    let read = |one: pb::Credential| {
        let value = Zeroizing::new(one.value);
        let written = Written {
            secret: &one.secret,
            host: &one.host,
            header: &one.header,
            format: &one.format,
            authority: &one.authority,
        };
        Credential::new(written, Some(value))
    };
    // All are wiped, whatever is wrong with one of them.
    let all: Vec<_> = given.into_iter().map(read).collect();
    let all = all.into_iter().collect::<Result<Vec<_>, _>>().map_err(invalid)?;
    check_all(&all).map_err(invalid)?;
    match !all.is_empty() && !proxy {
        true => Err(invalid("they are put into what is asked of the proxy; ask for `proxy` too".to_owned())),
        false => Ok(all),
    }
}

/// As the log has it.
#[must_use]
pub fn logged_credential(credential: &Credential) -> String {
    format!("{GRANT}{}", credential.named())
}

/// Of a grant in the log: without the value, which is gone with the process that had it. None if it is another grant.
#[must_use]
pub fn parse_credential(grant: &str) -> Option<Credential> {
    let (secret, host) = grant.strip_prefix(GRANT)?.split_once('@')?;
    Credential::new(Written { secret, host, ..Written::default() }, None).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::way_out::{CREDENTIAL_BYTES_MAX, CREDENTIALS_MAX};

    fn given(host: &str, bytes: usize) -> pb::Credential {
        pb::Credential {
            secret: "key".to_owned(),
            host: host.to_owned(),
            value: vec![b'x'; bytes],
            ..Default::default()
        }
    }

    #[test]
    fn credentials_are_bounded_and_need_the_proxy() {
        let many = |count: usize| (0..count).map(|n| given(&format!("h{n}.test"), 1)).collect::<Vec<_>>();
        assert_eq!(parse(many(CREDENTIALS_MAX), true).unwrap().len(), CREDENTIALS_MAX);
        assert!(parse(many(CREDENTIALS_MAX + 1), true).is_err());
        assert!(parse(vec![given("a.test", CREDENTIAL_BYTES_MAX)], true).is_ok());
        assert!(parse(vec![given("a.test", CREDENTIAL_BYTES_MAX + 1)], true).is_err());
        assert!(parse(vec![given("a.test", 0)], true).is_err());
        assert!(parse(many(1), false).is_err() && parse(Vec::new(), false).is_ok());
        assert!(parse(vec![given("a.test", 1), given("A.test.:443", 1)], true).is_err());
    }

    #[test]
    fn its_name_and_its_place_survive_the_log_and_its_value_does_not() {
        let one = parse(vec![given("API.test:8443", 7)], true).unwrap().remove(0);
        assert_eq!(logged_credential(&one), "credential:key@api.test:8443");
        let read = parse_credential(&logged_credential(&one)).unwrap();
        assert_eq!((read.named(), read.value), (one.named(), None));
        assert_eq!(parse_credential("secret:key:7"), None);
        assert_eq!(parse_credential("egress:api.test"), None);
    }
}
