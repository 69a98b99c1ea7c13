//! One line for each action of an administrator, whatever came of it, and for each change of the keys. It is for whoever keeps logs:
//! the rollout log has the changes that were made, and neither those that were refused nor where they came from.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::request_id::RequestId;

use super::access::Caller;
use super::admin::Peer;
use super::error::{ApiError, Kind};
use crate::keys::follow::Look;

/// Characters of a path's part that are told: the rest can only be nonsense.
const LONGEST: usize = 128;

/// What was asked for, as far as the handler has read it. The layer puts it beside the request, and the handler fills it in.
#[derive(Clone, Default)]
pub(super) struct Asked(Arc<Mutex<Details>>);

#[derive(Default, Clone)]
struct Details {
    version: Option<u32>,
    reason: String,
    dry_run: bool,
    outcome: Option<&'static str>,
}

impl Asked {
    /// For which version, and why.
    pub(super) fn of(&self, version: Option<u32>, reason: &str, dry_run: bool) {
        self.change(|details| {
            *details = Details { version, reason: reason.to_owned(), dry_run, outcome: None }
        });
    }

    /// What came of it, where the status does not say.
    pub(super) fn came_to(&self, outcome: &'static str) {
        self.change(|details| details.outcome = Some(outcome));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Details) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// Who asks from where for what.
struct Action {
    what: String,
    model: String,
    id: String,
    from: String,
    /// Reads change nothing: only those that are denied are told.
    is_read: bool,
}

impl Action {
    /// Of a request for an administrators' route.
    fn of(request: &Request) -> Option<Self> {
        let extensions = request.extensions();
        let route = extensions.get::<MatchedPath>()?.as_str().strip_prefix("/admin/v1/models")?;
        let is_read = *request.method() != Method::POST;
        let mut parts =
            request.uri().path().split('/').skip(4).map(|part| part.chars().take(LONGEST).collect());
        let model: String = parts.next().unwrap_or_default();
        // `/{model}/rollout`: the action is the route's own word, never the client's.
        let action = if is_read { "read" } else { route.rsplit('/').next().unwrap_or_default() };
        let id = extensions.get::<RequestId>().and_then(|id| id.header_value().to_str().ok());
        let from = extensions.get::<Peer>().map(|Peer(address)| address.to_string()).unwrap_or_default();
        Some(Self { what: action.to_owned(), model, id: id.unwrap_or_default().to_owned(), from, is_read })
    }

    fn tell(&self, asked: &Asked, response: &Response) {
        let status = response.status();
        let outcome = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "denied",
            _ if self.is_read => return,
            status if status.is_success() => "done",
            status if status.is_client_error() => "refused",
            _ => "failed",
        };
        let Details { version, reason, dry_run, outcome: came_to } = asked.change(|details| details.clone());
        let who = response.extensions().get::<Caller>().map_or("none", Caller::name);
        let Self { what, model, id, from, .. } = self;
        // What was malformed may be anything, a text too, and its message says what it was.
        let error = response.extensions().get::<ApiError>().map_or("", |error| match error.kind {
            Kind::Malformed => "the body is not what the route takes",
            _ => &error.message,
        });
        let (outcome, status) = (came_to.unwrap_or(outcome), status.as_u16());
        tracing::info!(target: "audit", who, what, model, version, dry_run, outcome, status, reason, error, id, from, "audit");
    }
}

/// Tells what an administrator asked for and what came of it.
///
/// The work goes on when the caller hangs up: a change is not left half made, nor made and not told.
pub(super) async fn audit(mut request: Request, next: Next) -> Response {
    let Some(action) = Action::of(&request) else { return next.run(request).await };
    let asked = Asked::default();
    request.extensions_mut().insert(asked.clone());
    let work = tokio::spawn(async move {
        let response = next.run(request).await;
        action.tell(&asked, &response);
        response
    });
    work.await.unwrap_or_else(|error| ApiError::new(Kind::Internal, error.to_string()).into_response())
}

/// Tells of a change of the keys, and of a file that is wrong, once.
pub(super) fn keys(look: &Look) {
    match look {
        Look::Same | Look::Failed { known: true, .. } => {}
        Look::Changed { added, removed, changed } => {
            let [added, removed, changed] = [added, removed, changed].map(|names| names.join(" "));
            tracing::info!(target: "audit", what = "keys", outcome = "done", added, removed, changed, "audit");
        }
        Look::Failed { error, known: false } => {
            tracing::info!(target: "audit", what = "keys", outcome = "failed", error = %error, "audit");
            tracing::error!(%error, "the keys file is wrong: the keys before stay in force");
        }
    }
}
