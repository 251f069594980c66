//! The parts of what a caller gets.

use contracts::network::v1::{self as wire, NetworkErrorKind, fetch_part::Part, web_socket_event::Event};
use tokio::{sync::mpsc::Sender, time::timeout};
use tonic::Status;

use crate::core::{CallError, limits::LAST_WORD_TIMEOUT};

pub(super) type Parts = Sender<Result<wire::FetchPart, Status>>;
pub(super) type Events = Sender<Result<wire::WebSocketEvent, Status>>;

pub(super) fn error(error: &CallError) -> wire::NetworkError {
    let kind = match error {
        CallError::PolicyDenied(_) => NetworkErrorKind::PolicyDenied,
        CallError::Dns(_) => NetworkErrorKind::DnsError,
        CallError::ConnectionFailed(_) => NetworkErrorKind::ConnectionFailed,
        CallError::Timeout(_) => NetworkErrorKind::Timeout,
        CallError::InvalidUrl(_) => NetworkErrorKind::InvalidUrl,
        CallError::RateLimitExceeded(_) => NetworkErrorKind::RateLimitExceeded,
        CallError::Other(_) => NetworkErrorKind::Other,
    };
    // What a peer said may be in it.
    let text = base::visible(&error.to_string()).chars().take(512).collect();
    wire::NetworkError { kind: kind.into(), text }
}

/// False if nobody listens any more.
pub(super) async fn part(out: &Parts, part: Part) -> bool {
    out.send(Ok(wire::FetchPart { part: Some(part) })).await.is_ok()
}

/// The last one; a caller that does not read it is not waited for.
pub(super) async fn last_part(out: &Parts, part: Part) {
    let last = out.send(Ok(wire::FetchPart { part: Some(part) }));
    drop(timeout(LAST_WORD_TIMEOUT, last).await);
}

pub(super) async fn event(out: &Events, event: Event) -> bool {
    out.send(Ok(wire::WebSocketEvent { event: Some(event) })).await.is_ok()
}

pub(super) async fn last_event(out: &Events, event: Event) {
    let last = out.send(Ok(wire::WebSocketEvent { event: Some(event) }));
    drop(timeout(LAST_WORD_TIMEOUT, last).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: NET-45
    #[test]
    fn what_brought_no_answer_has_one_of_the_eight_kinds_and_a_line() {
        let text = || "one\ntwo".to_owned();
        let said = [
            (CallError::PolicyDenied(text()), "POLICY_DENIED"),
            (CallError::Dns(text()), "DNS_ERROR"),
            (CallError::ConnectionFailed(text()), "CONNECTION_FAILED"),
            (CallError::Timeout(30_000), "TIMEOUT"),
            (CallError::InvalidUrl(text()), "INVALID_URL"),
            (CallError::RateLimitExceeded(text()), "RATE_LIMIT_EXCEEDED"),
            (CallError::Other("x".repeat(600)), "OTHER"),
        ];
        for (error, kind) in said {
            let wire = super::error(&error);
            assert_eq!(wire.kind().as_str_name(), format!("NETWORK_ERROR_KIND_{kind}"));
            assert!(!wire.text.contains('\n') && wire.text.chars().count() <= 512, "{}", wire.text);
        }
        // The eighth is there, and is said by nobody.
        assert_eq!(NetworkErrorKind::CorsError as i32, 6);
        assert!(NetworkErrorKind::try_from(9).is_err());
    }
}
