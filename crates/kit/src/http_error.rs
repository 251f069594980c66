//! The HTTP form of an error: `{code, category, message, data}`, its status a pure function of the code (ERR rows).

use serde_json::{Map, Value, json};
use tonic::{Code, Status};

use crate::{error::error_info, phase::Phase};

/// A registered code (ERR-03, ERR-04).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpCode {
    pub code: &'static str,
    pub category: &'static str,
    pub http: u16,
}

const fn row(code: &'static str, category: &'static str, http: u16) -> HttpCode {
    HttpCode { code, category, http }
}

pub const HTTP_CODES: [HttpCode; 25] = [
    row("envelope_invalid", "structural", 400),
    row("object_invalid", "structural", 400),
    row("identifier_invalid", "structural", 400),
    row("schema_unknown_type", "schema", 400),
    row("schema_validation_failed", "schema", 400),
    row("acl_denied", "acl", 400),
    row("storage_error", "storage", 400),
    row("sequence_error", "state", 400),
    row("config_invalid", "config", 400),
    row("network_rejected", "network", 400),
    row("dos_challenge_required", "dos", 400),
    row("auth_required", "auth", 401),
    row("auth_invalid", "auth", 401),
    row("app_not_found", "state", 404),
    row("internal_error", "internal", 500),
    row("ERR_SVC_SYS_NOT_READY", "state", 503),
    row("ERR_SVC_SYS_DISABLED", "state", 503),
    row("ERR_SVC_SYS_DEPENDENCY_UNAVAILABLE", "state", 503),
    row("ERR_SVC_SYS_DRAINING", "state", 503),
    row("ERR_SVC_SYS_LOAD_FAILED", "state", 503),
    row("ERR_SVC_APP_NOT_READY", "state", 503),
    row("ERR_SVC_APP_DISABLED", "state", 503),
    row("ERR_SVC_APP_DEPENDENCY_UNAVAILABLE", "state", 503),
    row("ERR_SVC_APP_DRAINING", "state", 503),
    row("ERR_SVC_APP_LOAD_FAILED", "state", 503),
];

/// What anything else falls back to: nothing about the inside leaves.
const INTERNAL: HttpCode = row("internal_error", "internal", 500);

fn find(code: &str) -> Option<HttpCode> {
    HTTP_CODES.into_iter().find(|row| row.code == code)
}

/// The registered code for a failed call: the reason itself if it is registered, else by kind of failure.
#[must_use]
pub fn http_code(reason: &str, code: Code) -> HttpCode {
    let by_kind = match code {
        Code::InvalidArgument | Code::OutOfRange => "object_invalid",
        Code::NotFound => "identifier_invalid",
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => "sequence_error",
        Code::PermissionDenied => "acl_denied",
        Code::Unauthenticated => "auth_invalid",
        // A guard that refuses on a local socket never challenges (ADM-11).
        Code::ResourceExhausted => "network_rejected",
        Code::DataLoss => "storage_error",
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => "ERR_SVC_SYS_DEPENDENCY_UNAVAILABLE",
        Code::Ok | Code::Unknown | Code::Unimplemented | Code::Internal => "internal_error",
    };
    find(reason).or_else(|| find(by_kind)).unwrap_or(INTERNAL)
}

/// Status and body of a failed call.
#[must_use]
pub(crate) fn http_error(service: &str, phase: Phase, status: &Status) -> (u16, Value) {
    let info = error_info(status).unwrap_or_default();
    let row = http_code(&info.reason, status.code());
    let mut data = Map::new();
    if !info.reason.is_empty() && info.reason != row.code {
        data.insert("reason".to_owned(), json!(info.reason));
    }
    if !info.domain.is_empty() {
        data.insert("domain".to_owned(), json!(info.domain));
    }
    if info.refusal != 0 {
        data.insert("refusal".to_owned(), json!(info.refusal));
    }
    if row.http == 503 {
        availability(&mut data, service, phase, row.code);
    } else if info.retry {
        data.insert("retryable".to_owned(), json!(true));
    }
    if info.retry_after_ms != 0 {
        data.insert("retry_after_ms".to_owned(), json!(info.retry_after_ms));
    }
    let message =
        if row.code == "internal_error" { "the service failed; see its log" } else { status.message() };
    (row.http, json!({ "code": row.code, "category": row.category, "message": message, "data": data }))
}

/// ERR-05, ERR-06.
fn availability(data: &mut Map<String, Value>, service: &str, phase: Phase, code: &str) {
    let (state, retryable) = match code.rsplit_once("_SYS_").or_else(|| code.rsplit_once("_APP_")) {
        Some((_, "DRAINING")) => ("draining", true),
        Some((_, "DISABLED")) => ("disabled", false),
        Some((_, "LOAD_FAILED")) => ("load_failed", false),
        Some((_, "DEPENDENCY_UNAVAILABLE")) => ("dependency_unavailable", true),
        _ if phase == Phase::Initializing => ("initializing", true),
        _ => ("not_ready", true),
    };
    data.insert("service_class".to_owned(), json!("system"));
    data.insert("service_name".to_owned(), json!(service));
    data.insert("service_state".to_owned(), json!(state));
    data.insert("retryable".to_owned(), json!(retryable));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{IntoRefusal, KitError};

    fn check(error: &KitError) -> (u16, Value) {
        http_error("keys", Phase::Serving, &error.to_status())
    }

    /// covers: ERR-01, ERR-02
    #[test]
    fn a_body_has_four_members_and_a_known_category() {
        let known = [
            "structural",
            "schema",
            "acl",
            "storage",
            "state",
            "config",
            "auth",
            "network",
            "dos",
            "internal",
        ];
        for row in HTTP_CODES {
            assert!(known.contains(&row.category), "{row:?}");
        }
        for code in (0..17).map(Code::from_i32) {
            let (_, body) = http_error("keys", Phase::Serving, &Status::new(code, "text"));
            let mut members: Vec<&String> = body.as_object().unwrap().keys().collect();
            members.sort_unstable();
            assert_eq!(members, ["category", "code", "data", "message"]);
            assert!(body["data"].is_object());
        }
    }

    /// covers: ERR-03, ERR-10
    #[test]
    fn the_status_is_a_function_of_the_code() {
        for (code, http) in [
            ("envelope_invalid", 400),
            ("object_invalid", 400),
            ("identifier_invalid", 400),
            ("acl_denied", 400),
            ("schema_unknown_type", 400),
            ("schema_validation_failed", 400),
            ("storage_error", 400),
            ("sequence_error", 400),
            ("config_invalid", 400),
            ("network_rejected", 400),
            ("dos_challenge_required", 400),
            ("auth_required", 401),
            ("auth_invalid", 401),
            ("app_not_found", 404),
            ("internal_error", 500),
        ] {
            for kind in (0..17).map(Code::from_i32) {
                assert_eq!((http_code(code, kind).code, http_code(code, kind).http), (code, http));
            }
        }
        assert_eq!(http_code("PolicyDenied", Code::PermissionDenied).code, "acl_denied");
        assert_eq!(http_code("Busy", Code::ResourceExhausted).code, "network_rejected");
    }

    /// covers: ERR-04, ERR-05, ERR-06
    #[test]
    fn unavailability_says_which_service_and_whether_to_retry() {
        for area in ["SYS", "APP"] {
            for (name, retryable) in [
                ("NOT_READY", true),
                ("DEPENDENCY_UNAVAILABLE", true),
                ("DRAINING", true),
                ("DISABLED", false),
                ("LOAD_FAILED", false),
            ] {
                let code = format!("ERR_SVC_{area}_{name}");
                assert_eq!(http_code(&code, Code::Unknown).http, 503, "{code}");
                let mut data = Map::new();
                availability(&mut data, "keys", Phase::Serving, &code);
                assert_eq!(data["retryable"], json!(retryable), "{code}");
                assert_eq!(data["service_name"], json!("keys"));
            }
        }
        let (http, body) = check(&KitError::Draining { service: "keys" });
        assert_eq!((http, &body["data"]["service_state"]), (503, &json!("draining")));
        assert_eq!(body["data"]["retry_after_ms"], json!(500));
        let not_ready = KitError::NotReady { service: "keys" }.to_status();
        assert_eq!(
            http_error("keys", Phase::Initializing, &not_ready).1["data"]["service_state"],
            "initializing"
        );
    }

    #[test]
    fn the_inside_does_not_leak() {
        let (http, body) = http_error("keys", Phase::Serving, &Status::internal("src/keys.rs:7 secret"));
        assert_eq!(http, 500);
        assert!(!body.to_string().contains("secret"));
    }
}
