//! A version on trial beside the stable one: which requests it is given, and how its vectors are compared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::pairs::{self, Drawn, Job};
use super::{EmbedError, EmbedRequest, Embeddings, Model};
use crate::batch::BatchError;
use crate::compare;
use crate::engine::EngineError;
use crate::metrics::TrialMetrics;
use crate::rollout::guard::{Outcome, Side, Watch};
use crate::rollout::{SharedSecret, Trial};
use crate::tokenize::InputError;

/// Inputs that wait to be compared: more are not, so that comparing never stands in the way of answering.
const WAITING: usize = 32;

/// A version on trial.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The version.
    pub model: Arc<Model>,
    /// Which requests it is given.
    pub trial: Trial,
    /// Number of the document that put it on trial: the same version may be tried again later.
    pub since: u64,
    /// What is seen of it here.
    pub watch: Arc<Watch>,
    secret: SharedSecret,
    jobs: mpsc::Sender<Job>,
}

/// Who gives up later has waited for long enough.
const PATIENCE: Duration = Duration::from_secs(1);
impl Candidate {
    /// Puts `model` on trial, with users drawn by `secret`. Must be called inside a tokio runtime: pairs are compared in a task that
    /// ends with the last clone.
    pub fn new(
        model: Arc<Model>,
        trial: Trial,
        since: u64,
        watch: Watch,
        secret: SharedSecret,
        metrics: TrialMetrics,
    ) -> Self {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let watch = Arc::new(watch);
        tokio::spawn(pairs::compare(waiting, Arc::clone(&model), Arc::clone(&watch), metrics));
        Self { model, trial, since, watch, secret, jobs }
    }

    /// The same trial under a later document, which changed nothing of it.
    pub fn since(self, since: u64) -> Self {
        Self { since, ..self }
    }

    /// Whether a request that names no version goes to this one: always the same answer for the same `key`, by chance without. While
    /// the secret is not known here a request with a key does not: another server may have drawn it for the stable version.
    pub(super) fn takes(&self, key: Option<&str>) -> bool {
        let Some(percent) = self.trial.canary_percent else { return false };
        let drawn = match key {
            None => Some(fastrand::f64()),
            Some(key) => self.secret.get().map(|secret| secret.place(&self.model.id(), key)),
        };
        drawn.is_some_and(|drawn| drawn < percent.share()) && self.watch.tripped().is_none()
    }

    /// Runs the server's own probe texts on this version and on `stable`, because the guard is in doubt, and tells it what they showed.
    pub async fn probe(self, stable: Arc<Model>) {
        let probed = pairs::probe(&stable, &self.model, &self.watch).await;
        self.watch.probed(&probed);
    }

    /// Begins a request that `side` is about to answer, and draws an input of it, if it is one to compare: one only, because the
    /// texts of a request resemble each other.
    pub(super) fn asked(self, side: Side, request: &EmbedRequest, stable: Arc<Model>) -> Asked {
        let wanted = match side {
            Side::Canary => self.watch.wants_pair(&request.caller, Instant::now()),
            Side::Stable => {
                self.trial.shadow_percent.is_some_and(|percent| fastrand::f64() < percent.share())
            }
        };
        let input = fastrand::choice(&request.inputs).filter(|_| wanted).cloned();
        let drawn =
            input.map(|input| Drawn { input, prompt: request.prompt.clone(), truncate: request.truncate });
        let caller = Arc::clone(&request.caller);
        Asked { candidate: self, side, caller, drawn, stable, since: Instant::now(), ended: false }
    }
}

/// A request that one of the two versions answers while there is a trial.
pub(super) struct Asked {
    candidate: Candidate,
    side: Side,
    caller: Arc<str>,
    drawn: Option<Drawn>,
    stable: Arc<Model>,
    since: Instant,
    ended: bool,
}

impl Asked {
    /// Tells how it ended, and has its drawn input compared if it was answered.
    pub(super) fn ended(mut self, ended: &Result<Embeddings, EmbedError>) {
        self.ended = true;
        let Some(outcome) = outcome(ended) else { return };
        self.candidate.watch.answered(&self.caller, self.side, outcome);
        if let (Some(drawn), Outcome::Answered) = (self.drawn.take(), outcome) {
            // A full queue says that comparing takes longer than drawing: the sample is smaller then.
            let (caller, stable) = (Arc::clone(&self.caller), Arc::clone(&self.stable));
            let _ = self.candidate.jobs.try_send(Job { drawn, caller, stable });
        }
    }
}

/// Dropped before its end: its caller has given up, as on a version that hangs. A caller that gives up sooner says nothing of it.
impl Drop for Asked {
    fn drop(&mut self) {
        if !self.ended && self.since.elapsed() >= PATIENCE {
            self.candidate.watch.answered(&self.caller, self.side, Outcome::Failed);
        }
    }
}

/// How a request ended, if it says anything about the version.
fn outcome(ended: &Result<Embeddings, EmbedError>) -> Option<Outcome> {
    match ended {
        Ok(embeddings) if embeddings.vectors.iter().any(|vector| compare::fault(vector).is_some()) => {
            Some(Outcome::BadVector)
        }
        Ok(_) => Some(Outcome::Answered),
        Err(EmbedError::NotFinite { .. }) => Some(Outcome::BadVector),
        // The caller's own mistake, or the machine's.
        Err(EmbedError::Batch(BatchError::Engine(error)))
            if matches!(**error, EngineError::NoTokenOutput | EngineError::DeviceLost { .. }) =>
        {
            None
        }
        // Too much traffic is no fault of the version; that it is slow is seen by its runs.
        Err(EmbedError::Batch(BatchError::Overloaded { .. })) => None,
        Err(
            EmbedError::Batch(BatchError::Engine(_) | BatchError::Stopped)
            | EmbedError::Scoring
            | EmbedError::Tokenizing
            | EmbedError::Input { source: InputError::Failed(_), .. },
        ) => Some(Outcome::Failed),
        Err(_) => None,
    }
}
