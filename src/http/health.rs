//! Whether the server lives and is ready, what it measures, and its contract.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::access::Caller;
use super::beside::Unheld;
use super::error::{ApiError, Kind};
use super::{App, answer};
use crate::embed::{Model, Placed};

/// The contract of all routes, served as it is.
const OPENAPI: &str = include_str!("../../openapi.yaml");

pub(super) async fn livez(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    alive(&app, &caller).await?;
    answer::json(&json!({ "status": "alive" }))
}

/// Every engine answers an inference within its deadline.
pub(super) async fn alive(app: &App, caller: &Caller) -> Result<(), ApiError> {
    let deadline = app.0.config.liveness_deadline;
    let models = app.0.embedder.models();
    let told = |model: &Model| match model.longest_run(deadline) {
        longest if longest > deadline => {
            format!(
                "{} (whose runs may take {})",
                model.id(),
                humantime::format_duration(Duration::from_secs(longest.as_secs() + 1))
            )
        }
        _ => model.id(),
    };
    let checks = models.iter().map(async |model| (told(model), model.is_alive(deadline).await));
    let dead: Vec<String> =
        join_all(checks).await.into_iter().filter(|(_, alive)| !alive).map(|(name, _)| name).collect();
    if dead.is_empty() {
        return Ok(());
    }
    let named = if caller.may_see_models() { dead.join(", ") } else { format!("{} versions", dead.len()) };
    let message = format!("no answer within {} from: {named}", humantime::format_duration(deadline));
    Err(ApiError::new(Kind::Unavailable, message))
}

/// Models are loaded before the first connection is accepted, so only a stop makes it unready. A missing model does not: it is missing on
/// every replica, and unready replicas would take the other models down with it. Where keys are set, it names them to
/// whoever has one.
pub(super) async fn readyz(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    ready(&app)?;
    let mut answer = json!({ "status": "ready" });
    if caller.may_see_models() {
        let models = app.models(&caller);
        answer["models"] = models.iter().map(|model| model.id()).collect();
        let placed = models.iter().filter_map(|model| Some((model.id(), placed(model.placed.as_ref()?))));
        answer["placement"] = placed.collect::<serde_json::Map<_, _>>().into();
        let missing = app.0.embedder.missing();
        let missing = missing.iter().filter(|(model, _)| caller.may_use(model));
        answer["missing"] = missing.map(|(model, reason)| (model.clone(), json!(reason))).collect();
    }
    answer::json(&answer)
}

/// On which devices a version runs, and which of the runtime's providers have how many nodes of its graph.
fn placed(placed: &Placed) -> Value {
    json!({ "devices": placed.devices.names(), "nodes": placed.nodes })
}

/// [`readyz`] in the TEI dialect: nothing but a status.
pub(super) async fn health(State(app): State<App>) -> Result<(), ApiError> {
    ready(&app)
}

pub(super) fn ready(app: &App) -> Result<(), ApiError> {
    if app.is_draining() {
        return Err(ApiError::new(Kind::Unavailable, "the server is stopping"));
    }
    Ok(())
}

pub(super) async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    let render = || app.0.metrics.render().map_err(|error| ApiError::new(Kind::Internal, error.to_string()));
    let page = app.0.beside.page(render)?;
    let kind = HeaderValue::from_static(prometheus::TEXT_FORMAT);
    Ok(([(header::CONTENT_TYPE, kind)], Extension(Unheld), page).into_response())
}

pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/yaml"))], Extension(Unheld), OPENAPI)
}
