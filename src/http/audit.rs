//! One line for each action of an administrator, whatever came of it, and for each change of the keys. It is for whoever keeps logs:
//! the rollout log has the changes that were made, and neither those that were refused nor where they came from.

mod tally;

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::RwLock;
use tokio::time::Instant;
use tower_http::request_id::RequestId;

use super::App;
use super::access::Caller;
use super::admin::Peer;
use super::error::{ApiError, Kind};
use crate::keys::follow::Look;
use tally::{Line, Rest, Tallies};

/// Characters of a path's part that are told: the rest can only be nonsense.
const LONGEST: usize = 128;

/// What is kept from one action to the next.
#[derive(Default)]
pub(super) struct Ledger {
    tallies: Mutex<Tallies>,
    /// Read while an action is at work.
    at_work: Arc<RwLock<()>>,
}

impl Ledger {
    /// Waits for the actions whose callers have hung up, and tells the number of the lines that were left out. Only when no more actions can
    /// begin.
    pub(super) async fn finished(&self) {
        drop(self.at_work.write().await);
        for (caller, rest) in self.tallies(Tallies::all) {
            tell_rest(&caller, rest);
        }
    }

    fn tallies<T>(&self, change: impl FnOnce(&mut Tallies) -> T) -> T {
        change(&mut self.tallies.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

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
    fn of(app: &App, request: &Request) -> Option<Self> {
        let extensions = request.extensions();
        let route = extensions.get::<MatchedPath>()?.as_str().strip_prefix("/admin/v1/models")?;
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let mut parts =
            request.uri().path().split('/').skip(4).map(|part| part.chars().take(LONGEST).collect());
        let model: String = parts.next().unwrap_or_default();
        // By its real name, whatever the request calls it.
        let real = app.0.embedder.real_name(&model.replace("%2F", "/").replace("%2f", "/"));
        let model = real.ok().flatten().unwrap_or(model);
        // `/{model}/rollout`: the action is the route's own word, never the client's.
        let action = match route.rsplit('/').next() {
            _ if is_read => "read",
            Some(action @ ("rollout" | "promote" | "rollback" | "retire" | "alias" | "verify")) => action,
            // A method that the route does not have.
            _ => "none",
        };
        let id = extensions.get::<RequestId>().and_then(|id| id.header_value().to_str().ok());
        let from = extensions.get::<Peer>().map(|Peer(address)| address.to_string()).unwrap_or_default();
        Some(Self { what: action.to_owned(), model, id: id.unwrap_or_default().to_owned(), from, is_read })
    }

    fn tell(&self, app: &App, asked: &Asked, response: &Response) {
        let status = response.status();
        let outcome = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "denied",
            _ if self.is_read => return,
            status if status.is_success() => "done",
            status if status.is_client_error() => "refused",
            _ => "failed",
        };
        let who = response.extensions().get::<Caller>().map_or("none", Caller::name);
        let error = response.extensions().get::<ApiError>();
        let Details { version, reason, dry_run, outcome: came_to } = asked.change(|details| details.clone());
        let is_written = error.is_some_and(|error| error.kind == Kind::NotServedYet);
        let has_changed = (outcome == "done" && !dry_run) || is_written;
        if !has_changed && !is_told(app, who, outcome) {
            return;
        }
        let Self { what, model, id, from, .. } = self;
        // What was malformed may be anything, a text too, and its message says what it was.
        let error = error.map_or("", |error| match error.kind {
            Kind::Malformed => "the body is not what the route takes",
            _ => &error.message,
        });
        let (outcome, status) = (came_to.unwrap_or(outcome), status.as_u16());
        tracing::info!(target: "audit", who, what, model, version, dry_run, outcome, status, reason, error, id, from, "audit");
    }
}

/// Whether another line of a caller is told. The number of those that are not will be.
fn is_told(app: &App, who: &str, outcome: &'static str) -> bool {
    let line = app.0.ledger.tallies(|tallies| tallies.count(who, outcome, Instant::now()));
    if let Line::FirstCounted(end) = line {
        let (app, who) = (app.clone(), who.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep_until(end).await;
            tell_rest(&who, app.0.ledger.tallies(|tallies| tallies.rest(&who)));
        });
    }
    line == Line::Told
}

fn tell_rest(who: &str, rest: Rest) {
    for (outcome, count) in rest {
        tracing::info!(target: "audit", who, what = "more", outcome, count, "audit");
    }
}

/// Tells what an administrator asked for and what came of it.
///
/// The work goes on when the caller hangs up, and the server waits for it when it stops: a change is not left half made, nor made and
/// not told.
pub(super) async fn audit(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let Some(action) = Action::of(&app, &request) else { return next.run(request).await };
    let asked = Asked::default();
    request.extensions_mut().insert(asked.clone());
    let at_work = Arc::clone(&app.0.ledger.at_work).read_owned().await;
    let work = tokio::spawn(async move {
        let response = next.run(request).await;
        action.tell(&app, &asked, &response);
        drop(at_work);
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
