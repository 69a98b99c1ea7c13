//! One line for each action of an administrator, whatever came of it, and for each change of the keys. It is for whoever keeps logs:
//! the rollout log has the changes that were made, and neither those that were refused nor where they came from.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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

/// Characters of a path's part that are told: the rest can only be nonsense.
const LONGEST: usize = 128;

/// Denials of callers whom nobody knows that are told one by one, of each [`PERIOD`]; the rest is a number. Whoever finds the port could
/// fill a disk with them otherwise.
const STRANGERS_TOLD: u64 = 10;
const PERIOD: Duration = Duration::from_secs(10);

/// What is kept from one action to the next.
#[derive(Default)]
pub(super) struct Ledger {
    strangers: Mutex<Strangers>,
    /// Read while an action is at work.
    at_work: Arc<RwLock<()>>,
}

impl Ledger {
    /// Waits for the actions whose callers have hung up. Only when no more can begin.
    pub(super) async fn finished(&self) {
        drop(self.at_work.write().await);
    }

    fn strangers<T>(&self, change: impl FnOnce(&mut Strangers) -> T) -> T {
        change(&mut self.strangers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Denials of those whom nobody knows, in this period.
#[derive(Default)]
struct Strangers {
    since: Option<Instant>,
    denied: u64,
}

/// What becomes of the denial of a stranger.
#[derive(Debug, PartialEq, Eq)]
enum Denial {
    Told,
    /// The first that is not told: from now on somebody must tell their number, when the period ends.
    FirstCounted(Instant),
    Counted,
}

impl Strangers {
    fn denied(&mut self, now: Instant) -> Denial {
        // A period with a rest ends when that is told.
        if self.denied <= STRANGERS_TOLD && self.since.is_none_or(|since| now >= since + PERIOD) {
            *self = Self { since: Some(now), denied: 0 };
        }
        self.denied += 1;
        match self.denied.saturating_sub(STRANGERS_TOLD) {
            0 => Denial::Told,
            1 => Denial::FirstCounted(self.since.unwrap_or(now) + PERIOD),
            _ => Denial::Counted,
        }
    }

    /// How many were not told. The period is over.
    fn rest(&mut self) -> u64 {
        std::mem::take(self).denied.saturating_sub(STRANGERS_TOLD)
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
        let caller = response.extensions().get::<Caller>();
        if outcome == "denied" && caller.is_none_or(|caller| !caller.is_known()) && !is_told(app) {
            return;
        }
        let Details { version, reason, dry_run, outcome: came_to } = asked.change(|details| details.clone());
        let who = caller.map_or("none", Caller::name);
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

/// Whether another denial of a stranger is told. The number of those that are not will be.
fn is_told(app: &App) -> bool {
    let denial = app.0.ledger.strangers(|strangers| strangers.denied(Instant::now()));
    if let Denial::FirstCounted(end) = denial {
        let app = app.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(end).await;
            let count = app.0.ledger.strangers(Strangers::rest);
            tracing::info!(target: "audit", who = "none", what = "more", outcome = "denied", count, "audit");
        });
    }
    denial == Denial::Told
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_denials_of_strangers_are_told_and_the_rest_is_a_number() {
        let (mut strangers, begun) = (Strangers::default(), Instant::now());
        for _ in 0..STRANGERS_TOLD {
            assert_eq!(strangers.denied(begun), Denial::Told);
        }
        // A new period, without a rest.
        let later = begun + PERIOD;
        for _ in 0..STRANGERS_TOLD {
            assert_eq!(strangers.denied(later), Denial::Told);
        }
        assert_eq!(strangers.denied(later), Denial::FirstCounted(later + PERIOD));
        assert_eq!(strangers.denied(later), Denial::Counted);
        // Whoever tells the number may come late.
        assert_eq!(strangers.denied(later + PERIOD * 2), Denial::Counted);
        assert_eq!(strangers.rest(), 3);
        assert_eq!(strangers.denied(later), Denial::Told);
        assert_eq!(strangers.rest(), 0);
    }
}
