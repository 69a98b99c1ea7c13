//! What becomes of a version that does not load, and of a canary that the guard finds bad.

use tokio::time::Instant;

use super::{GUARD, LONGEST_PAUSE, Sync};
use crate::embed::ModelError;
use crate::rollout::gate::{GateError, Verdict};
use crate::rollout::guard::{Cause, Figure};
use crate::rollout::log::Signature;
use crate::rollout::roles::Role;
use crate::rollout::state::Change;

impl Sync {
    /// A version could not be loaded, which matters if it has a role.
    pub(super) fn not_loaded(&mut self, model: &str, version: u32, error: &ModelError) {
        let Some(followed) = self.logs.get_mut(model) else { return };
        let role = followed.seen.state().role(version);
        if !followed.roles().is_some_and(|roles| roles.versions().any(|known| known == version)) {
            return;
        }
        self.loader.metrics.sync_failures.load.inc();
        let before = followed.retry.get(&version);
        let pause = before.map_or(self.interval, |(_, pause)| (*pause * 2).min(LONGEST_PAUSE));
        followed.retry.insert(version, (Instant::now() + pause, pause));
        tracing::warn!(
            retry = ?pause,
            "serving on with what is loaded: {model}@{version} cannot be served: {error}"
        );
        followed.answer(Err(format!("{model}@{version} cannot be served here: {error}")));
        let since = followed.number();
        if role == Some(Role::Stable) {
            self.miss(model, &format!("{model}@{version} cannot be served: {error}"));
        }
        // What fails here by its own fault fails elsewhere; a full disk is no fault of the version.
        if let (Some(Role::Canary), ModelError::Gate(GateError::NotPassed(report))) = (role, error) {
            let failed = report.with_verdict(Verdict::Failed).next();
            let bound = failed.and_then(|check| check.bound).map(|bound| bound.value());
            let value = failed.and_then(|check| check.figure).filter(|figure| figure.is_finite());
            let sentence = report.failures();
            self.take_back(model, version, since, Cause { figure: Figure::Gate, value, bound, sentence });
        }
    }

    /// A model that should be served is missing, unless a version of it is loaded.
    pub(super) fn miss(&self, model: &str, reason: &str) {
        if let Some(embedder) = self.embedder.upgrade().filter(|embedder| embedder.resident(model).is_none())
        {
            embedder.miss(model, reason);
            self.loader.metrics.model_missing(model, true);
        }
    }

    /// Holds every canary to the rules.
    pub(super) fn guard(&mut self) {
        let Some(embedder) = self.embedder.upgrade() else { return };
        for model in self.logs.keys().cloned().collect::<Vec<_>>() {
            let Some(resident) = embedder.resident(&model) else { continue };
            let Some(candidate) = resident.candidate else { continue };
            if let Some(cause) = candidate.watch.look(std::time::Instant::now()) {
                self.take_back(&model, candidate.trial.version, candidate.since, cause.clone());
                continue;
            }
            let Some(followed) = self.logs.get_mut(&model) else { continue };
            let is_probing = followed.probing.as_ref().is_some_and(|task| !task.is_finished());
            if candidate.watch.is_in_doubt() && !is_probing {
                followed.probing = Some(tokio::spawn(candidate.probe(resident.stable)));
            }
        }
    }

    /// Writes a rollback of a canary, on the document that put it on trial and on no later one. It gets no requests here any more;
    /// should the log not be writable now, it is tried again at the next look.
    fn take_back(&mut self, model: &str, version: u32, since: u64, cause: Cause) {
        let Some(followed) = self.logs.get_mut(model) else { return };
        if followed.number() != since || followed.taking_back.as_ref().is_some_and(|task| !task.is_finished())
        {
            return;
        }
        tracing::warn!("the guard takes back {model}@{version}: {}: {}", cause.figure, cause.sentence);
        let (operator, model) = (self.operator.clone(), model.to_owned());
        followed.taking_back = Some(tokio::spawn(async move {
            let at = Signature::now();
            let reason = format!("{}: {}", cause.figure, cause.sentence);
            let signature = Signature { by: GUARD, at: &at, reason: &reason, cause: Some(&cause) };
            let change = Change::Rollback { of: Some(version), to: None };
            if let Err(error) = operator.change(&model, change, Some(since), signature).await {
                tracing::warn!("{model}@{version} is not taken back yet: {error}");
            }
        }));
    }
}
