//! Refusals: one enum behind all dialects, and one place where each gets its envelope.

mod dialect;

use std::any::Any;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tower_http::request_id::RequestId;

use super::access::used_up;
use crate::batch::BatchError;
use crate::embed::{EmbedError, NOT_FINITE};
use crate::engine::EngineError;
use crate::repository::RepositoryError;
use crate::rollout::gate::GateError;
use crate::tokenize::InputError;
use dialect::Dialect;

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
    /// The place of the input at fault among all, and what is wrong with it.
    input: Option<Box<(usize, String)>>,
    /// More than a sentence, for the administrators' routes.
    details: Option<Value>,
    retry_after: Option<Duration>,
}

impl ApiError {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None, input: None, details: None, retry_after: None }
    }

    pub(super) fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Where a route has its inputs in several fields: calls the one at fault by its field, `name` of its place among all.
    pub(super) fn naming_input(self, name: impl Fn(usize) -> String) -> Self {
        let Some((index, fault)) = self.input.as_deref() else { return self };
        let name = name(*index);
        Self { message: format!("{name}: {fault}"), ..self }.at(name)
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
            EmbedError::AmbiguousModel { .. } | EmbedError::NoDefaultModel(_) => {
                Self::new(Kind::Invalid, message).at("model")
            }
            EmbedError::SpaceMismatch { .. } => Self::new(Kind::SpaceMismatch, message),
            EmbedError::UnknownPrompt { .. } => Self::new(Kind::Invalid, message).at("prompt_name"),
            EmbedError::Dimensions { .. } => Self::new(Kind::Invalid, message).at("dimensions"),
            EmbedError::Input { index, source } => {
                let input = Some(Box::new((index, source.to_string())));
                Self { message, input, ..Self::from(source) }.at(format!("input[{index}]"))
            }
            EmbedError::NotFinite { index } => {
                let input = Some(Box::new((index, NOT_FINITE.to_owned())));
                Self { input, ..Self::new(Kind::Internal, message) }.at(format!("input[{index}]"))
            }
            EmbedError::TooManyTokenVectors { .. } => Self::new(Kind::TooLarge, message),
            EmbedError::Batch(BatchError::Overloaded { retry_after }) => {
                Self::overloaded(message, retry_after)
            }
            EmbedError::Batch(BatchError::Engine(error)) if matches!(*error, EngineError::NoTokenOutput) => {
                Self::new(Kind::Invalid, message)
            }
            EmbedError::Missing { .. } | EmbedError::Batch(BatchError::Stopped) => {
                Self::new(Kind::Unavailable, message)
            }
            // Elsewhere, or a little later, it may well succeed.
            EmbedError::Batch(BatchError::Engine(error))
                if matches!(
                    *error,
                    EngineError::OutOfMemory(_) | EngineError::DeviceLost { .. } | EngineError::Stopped
                ) =>
            {
                Self::new(Kind::Unavailable, message)
            }
            EmbedError::NoRoom { .. } => Self::new(Kind::Overloaded, message),
            EmbedError::UsedUp { wait } => used_up(wait),
            EmbedError::NoReference { .. } => Self::new(Kind::StateConflict, message).at("ood"),
            EmbedError::Batch(BatchError::Engine(_)) | EmbedError::Scoring | EmbedError::Tokenizing => {
                Self::new(Kind::Internal, message)
            }
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
            GateError::NoRoom(_) => Self::new(Kind::StateConflict, error.to_string()),
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
