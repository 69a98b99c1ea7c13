//! Refusals: one enum behind all dialects, and one place where each gets its envelope.

use std::any::Any;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tower_http::request_id::RequestId;

use super::access::used_up;
use crate::batch::BatchError;
use crate::embed::EmbedError;
use crate::repository::RepositoryError;
use crate::rollout::gate::GateError;
use crate::tokenize::InputError;

/// What kind of refusal: it decides the status and the names that the dialects have for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not the JSON or the fields that the route takes.
    Malformed,
    /// A field's value cannot be.
    Invalid,
    /// Nothing to embed.
    Empty,
    /// No such model, version or space.
    UnknownModel,
    /// The caller's vectors are of another space.
    SpaceMismatch,
    /// The change does not fit what serves now.
    StateConflict,
    /// The version may not serve here.
    GateNotPassed,
    /// It is written, and not served here yet.
    NotServedYet,
    /// No key, or none that is known.
    Unauthorized,
    /// Not from there, or not with that key.
    Forbidden,
    /// No such path.
    NotFound,
    /// The path has other methods.
    MethodNotAllowed,
    /// The body, or its number of inputs.
    TooLarge,
    /// The body is not called JSON.
    UnsupportedMediaType,
    /// No model of this server is made for it.
    OtherTask,
    /// Too much is waiting.
    Overloaded,
    /// The key has used up what it may.
    RateLimited,
    /// Our fault.
    Internal,
    /// Not ready.
    Unavailable,
    /// The caller's own deadline has passed.
    DeadlineExceeded,
    /// The caller did not send its body in time.
    BodyTimeout,
}

impl Kind {
    fn status(self) -> StatusCode {
        match self {
            Self::Malformed | Self::Invalid | Self::Empty | Self::OtherTask => StatusCode::BAD_REQUEST,
            Self::UnknownModel | Self::NotFound => StatusCode::NOT_FOUND,
            Self::SpaceMismatch | Self::StateConflict | Self::GateNotPassed => StatusCode::CONFLICT,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Overloaded | Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable | Self::NotServedYet => StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// The kind of a refusal that the framework made.
    fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            status if status.is_client_error() => Self::Malformed,
            _ => Self::Internal,
        }
    }
}

/// A refusal, before it has its envelope.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    pub(super) kind: Kind,
    pub(super) message: String,
    /// The field at fault.
    pub(super) param: Option<String>,
    /// More than a sentence, for the administrators' routes.
    details: Option<Value>,
    retry_after: Option<Duration>,
}

impl ApiError {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None, details: None, retry_after: None }
    }

    pub(super) fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub(super) fn with_details(self, details: Option<Value>) -> Self {
        Self { details, ..self }
    }

    pub(super) fn overloaded(message: impl Into<String>, retry_after: Duration) -> Self {
        Self::later(Kind::Overloaded, message, retry_after)
    }

    /// A refusal that may be none later.
    pub(super) fn later(kind: Kind, message: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(kind, message) }
    }
}

impl From<EmbedError> for ApiError {
    fn from(error: EmbedError) -> Self {
        let message = error.to_string();
        match error {
            EmbedError::UnknownModel { .. } => Self::new(Kind::UnknownModel, message).at("model"),
            EmbedError::NoDefaultModel(_) => Self::new(Kind::Invalid, message).at("model"),
            EmbedError::SpaceMismatch { .. } => Self::new(Kind::SpaceMismatch, message),
            EmbedError::UnknownPrompt { .. } => Self::new(Kind::Invalid, message).at("prompt_name"),
            EmbedError::Dimensions { .. } => Self::new(Kind::Invalid, message).at("dimensions"),
            EmbedError::Input { index, source } => {
                Self { message, ..Self::from(source) }.at(format!("input[{index}]"))
            }
            EmbedError::TooManyTokenVectors { .. } => Self::new(Kind::TooLarge, message),
            EmbedError::Batch(BatchError::Overloaded { retry_after }) => {
                Self::overloaded(message, retry_after)
            }
            EmbedError::Batch(BatchError::Engine(error))
                if matches!(*error, crate::engine::EngineError::NoTokenOutput) =>
            {
                Self::new(Kind::Invalid, message)
            }
            EmbedError::Batch(BatchError::Stopped) => Self::new(Kind::Unavailable, message),
            EmbedError::UsedUp { wait } => used_up(wait),
            EmbedError::NoReference { .. } => Self::new(Kind::StateConflict, message).at("ood"),
            EmbedError::Batch(BatchError::Engine(_))
            | EmbedError::NotFinite
            | EmbedError::Scoring
            | EmbedError::Tokenizing => Self::new(Kind::Internal, message),
        }
    }
}

impl From<RepositoryError> for ApiError {
    fn from(error: RepositoryError) -> Self {
        let kind = match error {
            RepositoryError::NoSuchVersion { .. } => Kind::UnknownModel,
            _ => Kind::Unavailable,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<GateError> for ApiError {
    fn from(error: GateError) -> Self {
        match error {
            GateError::Repository(error) => error.into(),
            GateError::NotPassed(_) => Self::new(Kind::GateNotPassed, error.to_string()),
            GateError::Interrupted => Self::new(Kind::Internal, error.to_string()),
        }
    }
}

impl From<InputError> for ApiError {
    fn from(error: InputError) -> Self {
        let kind = match error {
            InputError::Empty => Kind::Empty,
            InputError::TooLarge { .. } => Kind::TooLarge,
            InputError::TooLong { .. }
            | InputError::OutOfRange { .. }
            | InputError::Unframed { .. }
            | InputError::PromptBeforeIds => Kind::Invalid,
            InputError::Failed(_) => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl IntoResponse for ApiError {
    /// Only the status and the refusal itself: [`envelope`] makes the body, because it knows the path.
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if self.kind == Kind::Unauthorized {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Answers a path that is not there.
pub(super) async fn not_found(request: Request) -> ApiError {
    ApiError::new(
        Kind::NotFound,
        format!("there is nothing at {} {}", request.method(), request.uri().path()),
    )
}

/// Answers for a handler that panicked.
#[expect(clippy::needless_pass_by_value, reason = "the signature is the layer's")]
pub(super) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    // The hook has written where it was; the caller gets no more than that it happened.
    tracing::debug!(panic = text.unwrap_or("of another type"), "a handler panicked");
    ApiError::new(Kind::Internal, "the server made a mistake").into_response()
}

/// Characters of a message, which may repeat what the caller sent: a model's name may have a million.
const LONGEST_MESSAGE: usize = 2000;

/// The beginning of a text that is too long to be sent back.
fn beginning(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST_MESSAGE) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Gives every refusal that passes the envelope of the path's dialect.
pub(super) async fn envelope(request: Request, next: Next) -> Response {
    let dialect = Dialect::of(request.uri().path());
    let id = request.extensions().get::<RequestId>().cloned();
    let response = next.run(request).await;
    if !response.status().is_client_error() && !response.status().is_server_error() {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    let mut error = parts.extensions.remove::<ApiError>().unwrap_or_else(|| {
        let kind = Kind::of_status(parts.status);
        ApiError::new(kind, parts.status.canonical_reason().unwrap_or("refused").to_lowercase())
    });
    error.message = beginning(error.message);
    error.param = error.param.map(beginning);
    if error.kind == Kind::Internal {
        let id = id.as_ref().and_then(|id| id.header_value().to_str().ok()).unwrap_or("");
        tracing::error!(id, error = error.message, "a request failed");
    }
    parts.status = dialect.status(error.kind);
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Response::from_parts(parts, dialect.body(&error).to_string().into())
}

/// Whose contract a path follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    OpenAi,
    TextEmbeddingsInference,
    OpenInference,
    Admin,
}

impl Dialect {
    fn of(path: &str) -> Self {
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

    fn status(self, kind: Kind) -> StatusCode {
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

    fn body(self, error: &ApiError) -> Value {
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
            // It has no field for the one at fault, and where the JSON is not what it should be the message does not say.
            Self::OpenInference => match &error.param {
                Some(param) if error.kind == Kind::Malformed => {
                    json!({ "error": format!("{param}: {}", error.message) })
                }
                _ => json!({ "error": error.message }),
            },
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
