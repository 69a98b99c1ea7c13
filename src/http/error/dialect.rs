//! What each dialect answers a refusal with: the status, and the envelope.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{ApiError, Kind};

/// Whose contract a path follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    OpenAi,
    TextEmbeddingsInference,
    OpenInference,
    Admin,
}

impl Dialect {
    pub(super) fn of(path: &str) -> Self {
        if path == "/v1" || path.starts_with("/v1/") {
            Self::OpenAi
        } else if path == "/v2" || path.starts_with("/v2/") {
            Self::OpenInference
        } else if path == "/admin" || path.starts_with("/admin/") {
            Self::Admin
        } else {
            Self::TextEmbeddingsInference
        }
    }

    pub(super) fn status(self, kind: Kind) -> StatusCode {
        match (self, kind) {
            (Self::TextEmbeddingsInference, Kind::Malformed | Kind::Invalid) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            (Self::TextEmbeddingsInference, Kind::Internal | Kind::OtherTask) => {
                StatusCode::FAILED_DEPENDENCY
            }
            (_, kind) => kind.status(),
        }
    }

    pub(super) fn body(self, error: &ApiError) -> Value {
        match self {
            Self::OpenAi => {
                let (kind, code) = match error.kind {
                    Kind::UnknownModel => ("invalid_request_error", Some("model_not_found")),
                    Kind::SpaceMismatch => ("invalid_request_error", Some("space_mismatch")),
                    Kind::NotFound => ("invalid_request_error", Some("unknown_url")),
                    Kind::MethodNotAllowed => ("invalid_request_error", Some("method_not_supported")),
                    Kind::Overloaded => ("rate_limit_error", Some("overloaded")),
                    Kind::RateLimited => ("rate_limit_error", Some("rate_limit_exceeded")),
                    Kind::Internal => ("server_error", None),
                    Kind::Unavailable => ("server_error", Some("unavailable")),
                    Kind::DeadlineExceeded => ("server_error", Some("deadline_exceeded")),
                    Kind::Unauthorized => ("authentication_error", Some("invalid_api_key")),
                    Kind::Forbidden => ("permission_error", None),
                    Kind::Malformed
                    | Kind::Invalid
                    | Kind::OtherTask
                    | Kind::Empty
                    | Kind::TooLarge
                    | Kind::BodyTimeout
                    | Kind::StateConflict
                    | Kind::GateNotPassed
                    | Kind::NotServedYet
                    | Kind::UnsupportedMediaType => ("invalid_request_error", None),
                };
                json!({ "error": { "message": error.message, "type": kind, "param": error.param, "code": code } })
            }
            Self::OpenInference => json!({ "error": error.message }),
            Self::Admin => {
                let code = match error.kind {
                    Kind::Malformed | Kind::Invalid | Kind::Empty | Kind::OtherTask => "invalid",
                    Kind::UnknownModel => "unknown_version",
                    Kind::SpaceMismatch => "space_conflict",
                    Kind::StateConflict => "state_conflict",
                    Kind::GateNotPassed => "gate_not_passed",
                    Kind::NotServedYet => "written_not_served",
                    Kind::Unauthorized => "unauthorized",
                    Kind::Forbidden => "forbidden",
                    Kind::NotFound => "not_found",
                    Kind::MethodNotAllowed => "method_not_allowed",
                    Kind::TooLarge => "too_large",
                    Kind::UnsupportedMediaType => "unsupported_media_type",
                    Kind::Overloaded | Kind::RateLimited => "overloaded",
                    Kind::Internal => "internal",
                    Kind::Unavailable => "unavailable",
                    Kind::DeadlineExceeded | Kind::BodyTimeout => "timeout",
                };
                let details = error.details.as_ref();
                json!({ "error": { "code": code, "message": error.message, "param": error.param, "details": details } })
            }
            Self::TextEmbeddingsInference => {
                let kind = match error.kind {
                    Kind::Empty => "Empty",
                    Kind::Overloaded | Kind::RateLimited => "Overloaded",
                    Kind::Internal | Kind::OtherTask => "Backend",
                    Kind::Unavailable => "Unhealthy",
                    Kind::DeadlineExceeded => "DeadlineExceeded",
                    Kind::NotFound | Kind::UnknownModel => "NotFound",
                    Kind::SpaceMismatch => "SpaceMismatch",
                    Kind::Unauthorized | Kind::Forbidden => "Unauthorized",
                    Kind::Malformed
                    | Kind::Invalid
                    | Kind::TooLarge
                    | Kind::BodyTimeout
                    | Kind::MethodNotAllowed
                    | Kind::StateConflict
                    | Kind::GateNotPassed
                    | Kind::NotServedYet
                    | Kind::UnsupportedMediaType => "Validation",
                };
                json!({ "error": error.message, "error_type": kind })
            }
        }
    }
}
