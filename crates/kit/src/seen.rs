//! What a caller has seen of the log travels with its calls: whoever it asks next knows at least as much (DESIGN 2).
//!
//! Each service folds the log at its own pace. Without this a caller that was answered by one service could be told by
//! the next that what was just done is not there.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use base::Sequence;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::KitError;

/// Request metadata and HTTP header: the highest sequence that the caller has seen, decimal.
pub const SEEN_METADATA: &str = "bailiwick-seen";
/// The same in an answer: what the service knew when it answered.
pub const SEQUENCE_METADATA: &str = "bailiwick-sequence";

const SEEN_HEADER: HeaderName = HeaderName::from_static(SEEN_METADATA);
const SEQUENCE_HEADER: HeaderName = HeaderName::from_static(SEQUENCE_METADATA);

/// The highest sequence that somebody has seen. Cheap to clone; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<AtomicU64>);

impl Seen {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn note(&self, sequence: Sequence) {
        self.0.fetch_max(sequence.0, Ordering::AcqRel);
    }

    /// Zero, so genesis, for who has seen nothing.
    #[must_use]
    pub fn get(&self) -> Sequence {
        Sequence(self.0.load(Ordering::Acquire))
    }

    pub(crate) fn cite(&self, headers: &mut HeaderMap) {
        insert(headers, SEEN_HEADER, self.get());
    }

    pub(crate) fn answer(&self, headers: &mut HeaderMap) {
        insert(headers, SEQUENCE_HEADER, self.get());
    }

    /// An answer without it, or with nonsense in it, says nothing.
    pub(crate) fn learn(&self, headers: &HeaderMap) {
        if let Some(sequence) = headers.get(SEQUENCE_HEADER).and_then(read) {
            self.note(sequence);
        }
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, sequence: Sequence) {
    if sequence.0 > 0 {
        headers.insert(name, HeaderValue::from(sequence.0));
    }
}

fn read(value: &HeaderValue) -> Option<Sequence> {
    value.to_str().ok()?.parse().ok().map(Sequence)
}

/// What the caller says that it has seen.
pub(crate) fn cited(headers: &HeaderMap) -> Result<Option<Sequence>, KitError> {
    let Some(value) = headers.get(SEEN_HEADER) else { return Ok(None) };
    let wrong = || KitError::EnvelopeInvalid(format!("the header `{SEEN_METADATA}` is no sequence number"));
    read(value).map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_is_kept_cited_and_learned() {
        let (service, caller) = (Seen::new(), Seen::new());
        service.note(Sequence(7));
        service.note(Sequence(5));
        let mut headers = HeaderMap::new();
        service.answer(&mut headers);
        caller.learn(&headers);
        assert_eq!(caller.get(), Sequence(7));
        let mut headers = HeaderMap::new();
        caller.clone().cite(&mut headers);
        assert_eq!(cited(&headers), Ok(Some(Sequence(7))));
        let mut none = HeaderMap::new();
        Seen::new().cite(&mut none);
        assert_eq!(cited(&none), Ok(None));
    }

    #[test]
    fn what_is_no_number_is_refused_in_a_request_and_ignored_in_an_answer() {
        for wrong in ["", "x", "-1", "1.5", "18446744073709551616"] {
            let mut headers = HeaderMap::new();
            headers.insert(SEEN_HEADER, HeaderValue::from_static(wrong));
            headers.insert(SEQUENCE_HEADER, HeaderValue::from_static(wrong));
            assert!(matches!(cited(&headers), Err(KitError::EnvelopeInvalid(_))), "{wrong}");
            let seen = Seen::new();
            seen.learn(&headers);
            assert_eq!(seen.get(), Sequence(0), "{wrong}");
        }
    }
}
