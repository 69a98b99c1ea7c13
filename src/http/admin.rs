//! The administrators' routes: which versions there are, which serve, and changes of that.

mod certificate;
mod local;

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Caller;
use super::audit::Asked;
use super::error::{ApiError, Kind};
use super::extract::Json;
use super::{App, answer};
use crate::drift::watcher::Watcher;
use crate::embed::{ModelError, Resident};
use crate::rollout::gate::GateError;
use crate::rollout::{
    Change, Log, OperateError, Operator, Overview, Percent, Refusal, RolloutError, SecretError, Signature,
};
pub use certificate::WithoutCertificate;
pub(super) use certificate::certified;
pub use local::Peer;
pub(super) use local::is_from_here;

/// A change of the version that serves, or of the one on trial where a share is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RolloutRequest {
    version: u32,
    #[serde(default)]
    canary_percent: Option<Percent>,
    #[serde(default)]
    shadow_percent: Option<Percent>,
    /// Loaded for requests that name it, and for no other.
    #[serde(default)]
    standby: bool,
    #[serde(default)]
    force: bool,
    reason: String,
    /// Nothing is loaded or written.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PromoteRequest {
    #[serde(default)]
    version: Option<u32>,
    #[serde(default)]
    force: bool,
    reason: String,
    /// Nothing is loaded or written.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackRequest {
    #[serde(default)]
    of: Option<u32>,
    #[serde(default)]
    to: Option<u32>,
    reason: String,
    /// Nothing is loaded or written.
    #[serde(default)]
    dry_run: bool,
}

/// Which version on standby is to be unloaded.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetireRequest {
    version: u32,
    reason: String,
    /// Nothing is written.
    #[serde(default)]
    dry_run: bool,
}

/// Another name for the model.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AliasRequest {
    name: String,
    /// Takes it away.
    #[serde(default)]
    remove: bool,
    reason: String,
    /// Nothing is written.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VerifyRequest {
    version: u32,
}

/// Every model of the repository.
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    let repository = app.operator()?.repository();
    let mut models = Vec::new();
    for model in repository.models().await?.into_iter().filter(|model| caller.may_use(model)) {
        models.push(shown(&app, Overview::read(repository, &model).await?));
    }
    answer::json(&json!({ "models": models }))
}

/// One model.
pub(super) async fn show(
    State(app): State<App>,
    Path(model): Path<String>,
    caller: Caller,
) -> Result<Response, ApiError> {
    let repository = app.operator()?.repository();
    let model = app.allowed(&model, &caller)?;
    known(&app, &model, &caller).await?;
    answer::json(&shown(&app, Overview::read(repository, &model).await?))
}

/// The log of a model, the oldest document first.
pub(super) async fn history(
    State(app): State<App>,
    Path(model): Path<String>,
    caller: Caller,
) -> Result<Response, ApiError> {
    let model = app.allowed(&model, &caller)?;
    known(&app, &model, &caller).await?;
    let documents = Log::open(app.operator()?.repository(), &model)?.history().await?;
    let documents: Vec<Value> = documents.iter().map(Overview::document).collect();
    answer::json(&json!({ "model": model, "documents": documents }))
}

/// What is known of a model's drift on this server.
pub(super) async fn drift(
    State(app): State<App>,
    Path(model): Path<String>,
    caller: Caller,
) -> Result<Response, ApiError> {
    let model = app.allowed(&model, &caller)?;
    known(&app, &model, &caller).await?;
    let (mut versions, mut learning) = (Vec::new(), Vec::new());
    for loaded in app.0.embedder.resident(&model).iter().flat_map(Resident::all) {
        match loaded.watcher().as_deref() {
            Some(Watcher::Monitor(monitor)) => versions.push(monitor.state()),
            Some(Watcher::Learner(learner)) => {
                learning.push(json!({ "version": loaded.id(), "vectors": learner.len() }));
            }
            None => {}
        }
    }
    answer::json(&json!({ "model": model, "versions": versions, "learning": learning }))
}

pub(super) async fn rollout(
    State(app): State<App>,
    Path(model): Path<String>,
    caller: Caller,
    asked: Asked,
    Json(request): Json<RolloutRequest>,
) -> Result<Response, ApiError> {
    let RolloutRequest { version, canary_percent, shadow_percent, standby, force, reason, dry_run } = request;
    asked.of(Some(version), &reason, dry_run);
    if standby && (canary_percent.is_some() || shadow_percent.is_some() || force) {
        let message =
            "a version on standby has no share of the requests, and needs no `force`: leave those out";
        return Err(ApiError::new(Kind::Invalid, message).at("standby"));
    }
    let change = if standby {
        Change::Standby { version }
    } else {
        Change::rollout(version, canary_percent, shadow_percent, force)
    };
    make(&app, &model, change, &caller, &reason, dry_run).await
}

pub(super) async fn promote(
    State(app): State<App>,
    Path(model): Path<String>,
    caller: Caller,
    asked: Asked,
    Json(PromoteRequest { version, force, reason, dry_run }): Json<PromoteRequest>,
) -> Result<Response, ApiError> {
    asked.of(version, &reason, dry_run);
    make(&app, &model, Change::Promote { version, force }, &caller, &reason, dry_run).await
}

pub(super) async fn rollback(
    State(app): State<App>,
    Path(model): Path<String>,
    caller: Caller,
    asked: Asked,
    Json(RollbackRequest { of, to, reason, dry_run }): Json<RollbackRequest>,
) -> Result<Response, ApiError> {
    asked.of(of.or(to), &reason, dry_run);
    make(&app, &model, Change::Rollback { of, to }, &caller, &reason, dry_run).await
}

pub(super) async fn retire(
    State(app): State<App>,
    Path(model): Path<String>,
    caller: Caller,
    asked: Asked,
    Json(RetireRequest { version, reason, dry_run }): Json<RetireRequest>,
) -> Result<Response, ApiError> {
    asked.of(Some(version), &reason, dry_run);
    make(&app, &model, Change::Retire { version }, &caller, &reason, dry_run).await
}

pub(super) async fn alias(
    State(app): State<App>,
    Path(model): Path<String>,
    caller: Caller,
    asked: Asked,
    Json(AliasRequest { name, remove, reason, dry_run }): Json<AliasRequest>,
) -> Result<Response, ApiError> {
    asked.of(None, &reason, dry_run);
    make(&app, &model, Change::Alias { name, remove }, &caller, &reason, dry_run).await
}

/// The gate, on this server. A version that does not pass is an answer, not an error.
pub(super) async fn verify(
    State(app): State<App>,
    Path(model): Path<String>,
    caller: Caller,
    asked: Asked,
    Json(VerifyRequest { version }): Json<VerifyRequest>,
) -> Result<Response, ApiError> {
    let model = app.allowed(&model, &caller)?;
    asked.of(Some(version), "", false);
    let report = app.operator()?.verify(&model, version).await?;
    asked.came_to(if report.passed { "passed" } else { "not passed" });
    answer::json(&report)
}

async fn make(
    app: &App,
    model: &str,
    change: Change,
    caller: &Caller,
    reason: &str,
    dry_run: bool,
) -> Result<Response, ApiError> {
    let (operator, reason) = (app.operator()?, reason.trim());
    if reason.is_empty() {
        return Err(
            ApiError::new(Kind::Invalid, "say why: whoever reads the log later needs it").at("reason")
        );
    }
    let model = &app.allowed(model, caller)?;
    known(app, model, caller).await?;
    let at = Signature::now();
    let signature = Signature { by: caller.name(), at: &at, reason, ..Signature::default() };
    // The layer of the audit log sees to it that a caller that hangs up does not leave a change half made.
    let made = if dry_run {
        operator.decide(model, &change, signature).await?
    } else {
        operator.change(model, change, None, signature).await?
    };
    let mut answer = json!({ "model": model, "written": !dry_run, "rollout": made });
    if let Some(resident) = app.0.embedder.resident(model) {
        answer["serving"] = serving(&resident);
    }
    answer::json(&answer)
}

/// Refuses a model that the repository does not have.
async fn known(app: &App, model: &str, caller: &Caller) -> Result<(), ApiError> {
    let mut models = app.operator()?.repository().models().await?;
    models.retain(|model| caller.may_use(model));
    if models.iter().any(|known| known == model) {
        return Ok(());
    }
    // A directory that is not mounted looks like an empty one.
    if app.0.embedder.resident(model).is_some() {
        let message = format!("the repository has no model `{model}` any more, which is served here");
        return Err(ApiError::new(Kind::Unavailable, message));
    }
    let message = format!("there is no model `{model}` in the repository; there are: {}", models.join(", "));
    Err(ApiError::new(Kind::UnknownModel, message))
}

/// What the repository says of a model, and what this server makes of it.
fn shown(app: &App, overview: Overview) -> Value {
    let resident = app.0.embedder.resident(&overview.model);
    let mut shown = json!(overview);
    shown["serving"] = resident.as_ref().map_or(Value::Null, serving);
    shown
}

/// The versions that are loaded here: what the gate found, and what the guard sees.
fn serving(resident: &Resident) -> Value {
    let roles = resident.roles();
    let versions = resident.all().map(|model| {
        let number = model.manifest.version;
        json!({
            "version": number,
            "role": roles.role(number),
            "space": model.manifest.space,
            "gate": model.gate,
        })
    });
    let trial = resident
        .candidate
        .as_ref()
        .map(|candidate| json!({ "trial": candidate.trial, "seen": candidate.watch.summary() }));
    json!({ "versions": versions.collect::<Vec<_>>(), "trial": trial })
}

impl App {
    fn operator(&self) -> Result<&Operator, ApiError> {
        let refused = || ApiError::new(Kind::Unavailable, "this server follows no repository");
        self.0.operator.as_ref().ok_or_else(refused)
    }
}

impl From<OperateError> for ApiError {
    fn from(error: OperateError) -> Self {
        let message = error.to_string();
        let report = error.report().map(|report| json!(report));
        let (kind, details) = match error {
            OperateError::Rollout(error) => return error.into(),
            OperateError::NotLoaded { .. } if report.is_some() => (Kind::GateNotPassed, report),
            OperateError::NotLoaded { ref source, .. }
                if matches!(**source, ModelError::Gate(GateError::NoRoom(_))) =>
            {
                (Kind::StateConflict, None)
            }
            OperateError::NotServed { written, .. } => (Kind::NotServedYet, Some(json!(written))),
            OperateError::NotLoaded { .. } | OperateError::Stopping => (Kind::Unavailable, None),
        };
        Self::new(kind, message).with_details(details)
    }
}

impl From<RolloutError> for ApiError {
    fn from(error: RolloutError) -> Self {
        let kind = match &error {
            RolloutError::Refused { refusal, .. } => match refusal {
                Refusal::UnknownVersion { .. } => Kind::UnknownModel,
                Refusal::BadAlias(_) => Kind::Invalid,
                Refusal::SpaceConflict { .. }
                | Refusal::SpaceUnknown { .. }
                | Refusal::CanaryAcrossSpaces { .. } => Kind::SpaceMismatch,
                _ => Kind::StateConflict,
            },
            RolloutError::Repository(_) | RolloutError::NotWritten { .. } => Kind::Unavailable,
            RolloutError::NoNumberLeft(_)
            | RolloutError::Blocked { .. }
            | RolloutError::Newer(_)
            | RolloutError::Secret(SecretError::Damaged) => Kind::StateConflict,
            RolloutError::Secret(SecretError::Repository(_)) => Kind::Unavailable,
            RolloutError::Secret(SecretError::Random(_))
            | RolloutError::Encoding(_)
            | RolloutError::Contradicts(_) => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}
