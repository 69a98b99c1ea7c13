//! A version on trial beside the stable one: which requests it is given, and how its vectors are compared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{EmbedError, EmbedRequest, Embeddings, Input, Model, Prompt};
use crate::batch::BatchError;
use crate::compare;
use crate::engine::EngineError;
use crate::metrics::TrialMetrics;
use crate::rollout::Trial;
use crate::rollout::guard::{Outcome, Pair, Side, Watch};
use crate::tokenize::{InputError, Truncate};

/// Inputs that wait to be compared: more are not, so that comparing never stands in the way of answering.
const WAITING: usize = 32;
/// A run that takes longer than that is as good as none.
const LONGEST_RUN: Duration = Duration::from_secs(10);

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
    jobs: mpsc::Sender<Job>,
}

/// Who gives up later has waited for long enough.
const PATIENCE: Duration = Duration::from_secs(1);
/// Neighbours are looked for after so many pairs: some milliseconds each time.
const OVERLAP_EVERY: u64 = 32;

/// An input to run on both versions.
struct Job {
    drawn: Drawn,
    stable: Arc<Model>,
}

impl Candidate {
    /// Puts `model` on trial. Must be called inside a tokio runtime: pairs are compared in a task that ends with the last clone.
    pub fn new(model: Arc<Model>, trial: Trial, since: u64, watch: Watch, metrics: TrialMetrics) -> Self {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let watch = Arc::new(watch);
        tokio::spawn(compare(waiting, Arc::clone(&model), Arc::clone(&watch), metrics));
        Self { model, trial, since, watch, jobs }
    }

    /// The same trial under a later document, which changed nothing of it.
    pub fn since(self, since: u64) -> Self {
        Self { since, ..self }
    }

    /// Whether a request that names no version goes to this one: always the same answer for the same `key`, by chance without.
    pub(super) fn takes(&self, key: Option<&str>) -> bool {
        let Some(percent) = self.trial.canary_percent else { return false };
        let drawn = key.map_or_else(fastrand::f64, |key| self.place(key));
        drawn < percent.share() && self.watch.tripped().is_none()
    }

    /// The place of a key on the scale from 0 to 1, the same in every process. Other versions have other places for it, so that it
    /// is not always the same who try what is new; and who is within 10 % is within 50 %.
    fn place(&self, key: &str) -> f64 {
        let digest =
            Sha256::new().chain_update(self.model.id()).chain_update([0]).chain_update(key).finalize();
        let leading = digest.iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        f64::from(leading) / 2_f64.powi(32)
    }

    /// Begins a request that `side` is about to answer, and draws an input of it, if it is one to compare: one only, because the
    /// texts of a request resemble each other.
    pub(super) fn asked(self, side: Side, request: &EmbedRequest, stable: Arc<Model>) -> Asked {
        let wanted = match side {
            Side::Canary => self.watch.wants_pair(),
            Side::Stable => {
                self.trial.shadow_percent.is_some_and(|percent| fastrand::f64() < percent.share())
            }
        };
        let input = fastrand::choice(&request.inputs).filter(|_| wanted).cloned();
        let drawn =
            input.map(|input| Drawn { input, prompt: request.prompt.clone(), truncate: request.truncate });
        Asked { candidate: self, side, drawn, stable, since: Instant::now(), ended: false }
    }
}

/// A request that one of the two versions answers while there is a trial.
pub(super) struct Asked {
    candidate: Candidate,
    side: Side,
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
        self.candidate.watch.answered(self.side, outcome);
        if let (Some(drawn), Outcome::Answered) = (self.drawn.take(), outcome) {
            // A full queue says that comparing takes longer than drawing: the sample is smaller then.
            let _ = self.candidate.jobs.try_send(Job { drawn, stable: Arc::clone(&self.stable) });
        }
    }
}

/// Dropped before its end: its caller has given up, as on a version that hangs. A caller with no patience says nothing of it.
impl Drop for Asked {
    fn drop(&mut self) {
        if !self.ended && self.since.elapsed() >= PATIENCE {
            self.candidate.watch.answered(self.side, Outcome::Failed);
        }
    }
}

/// An input that was drawn before its request took it away.
#[derive(Clone)]
pub(super) struct Drawn {
    input: Input,
    prompt: Prompt,
    truncate: Option<Truncate>,
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

/// Runs what was drawn on both versions, one after the other in either order, off the way of the requests.
async fn compare(
    mut jobs: mpsc::Receiver<Job>,
    candidate: Arc<Model>,
    watch: Arc<Watch>,
    metrics: TrialMetrics,
) {
    for pairs in 1_u64.. {
        let Some(Job { drawn, stable }) = jobs.recv().await else { return };
        let (of_stable, of_candidate) = if fastrand::bool() {
            let first = run(&stable, &drawn).await;
            (first, run(&candidate, &drawn).await)
        } else {
            let first = run(&candidate, &drawn).await;
            (run(&stable, &drawn).await, first)
        };
        // What the stable version cannot run says nothing.
        let (Some(of_stable), took) = of_stable else { continue };
        let same_space = stable.manifest.space == candidate.manifest.space;
        metrics.stable_seconds.observe(took.as_secs_f64());
        metrics.candidate_seconds.observe(of_candidate.1.as_secs_f64());
        if let Some(vector) = &of_candidate.0 {
            metrics.length_ratio.set(compare::length(vector) / compare::length(&of_stable));
        } else {
            metrics.failed.inc();
        }
        // In another space every vector is another one: only its time can be compared.
        let of_candidate =
            if same_space { of_candidate } else { (of_candidate.0.map(|_| Vec::new()), of_candidate.1) };
        if let Some(cosine) = watch.compared(Pair { stable: (of_stable, took), candidate: of_candidate }) {
            metrics.cosine.observe(cosine);
        }
        if pairs.is_multiple_of(OVERLAP_EVERY) {
            metrics.overlap.set(watch.overlap().unwrap_or(f64::NAN));
        }
    }
}

/// The vector and the time of its run, without the wait for a session; no vector if it cannot be run, or takes too long.
async fn run(model: &Arc<Model>, job: &Drawn) -> (Option<Vec<f32>>, Duration) {
    let (tokenizing, Drawn { input, prompt, truncate }) = (Arc::clone(model), job.clone());
    let tokenize = move || {
        let text = tokenizing.prompt(&prompt)?;
        let tokens = tokenizing.tokens(&input, text, &prompt, truncate);
        tokens.map_err(|source| EmbedError::Input { index: 0, source })
    };
    let tokens = spawn_blocking(tokenize).await;
    let Ok(Ok(tokens)) = tokens else { return (None, Duration::ZERO) };
    match timeout(LONGEST_RUN, model.run_alone(tokens.ids)).await {
        Ok(Ok((vector, ran))) => (Some(vector), ran),
        Ok(Err(_)) => (None, Duration::ZERO),
        Err(_) => (None, LONGEST_RUN),
    }
}
