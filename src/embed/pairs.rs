//! Inputs that both versions of a trial run, one after the other, off the way of the requests.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{EmbedError, Input, Model, Prompt};
use crate::compare;
use crate::import::probe;
use crate::metrics::TrialMetrics;
use crate::rollout::guard::{Pair, Probed, Watch};
use crate::tokenize::Truncate;

/// A run that takes longer than that is as good as none.
const LONGEST_RUN: Duration = Duration::from_secs(10);
/// Neighbours are looked for after so many pairs: some milliseconds each time.
const OVERLAP_EVERY: u64 = 32;

/// An input that was drawn before its request took it away.
#[derive(Clone)]
pub(super) struct Drawn {
    pub(super) input: Input,
    pub(super) prompt: Prompt,
    pub(super) truncate: Option<Truncate>,
}

/// An input to run on both versions.
pub(super) struct Job {
    pub(super) drawn: Drawn,
    /// Who sent it.
    pub(super) caller: Arc<str>,
    pub(super) stable: Arc<Model>,
}

/// Runs what was drawn on both versions and tells `watch` of it.
pub(super) async fn compare(
    mut jobs: mpsc::Receiver<Job>,
    candidate: Arc<Model>,
    watch: Arc<Watch>,
    metrics: TrialMetrics,
) {
    for pairs in 1_u64.. {
        let Some(Job { drawn, caller, stable }) = jobs.recv().await else { return };
        // What the stable version cannot run says nothing.
        let Some(mut pair) = both(&stable, &candidate, &drawn).await else { continue };
        metrics.stable_seconds.observe(pair.stable.1.as_secs_f64());
        metrics.candidate_seconds.observe(pair.candidate.1.as_secs_f64());
        if let Some(vector) = &pair.candidate.0 {
            metrics.length_ratio.set(compare::length(vector) / compare::length(&pair.stable.0));
        } else {
            metrics.failed.inc();
        }
        // In another space every vector is another one; and ids may stand in an order that no text gives, where int8 and fp32 of one
        // good model lie far apart. Only the times of those can be compared.
        let is_text = matches!(drawn.input, Input::Text(_));
        if !is_text || stable.manifest.space != candidate.manifest.space {
            pair.candidate.0 = pair.candidate.0.map(|_| Vec::new());
        }
        if let Some(cosine) = watch.compared(&caller, pair) {
            metrics.cosine.observe(cosine);
        }
        if pairs.is_multiple_of(OVERLAP_EVERY) {
            metrics.overlap.set(watch.overlap().unwrap_or(f64::NAN));
        }
    }
}

/// Runs the built-in probe texts on both versions: what they show no caller can have brought about.
pub(super) async fn probe(stable: &Arc<Model>, candidate: &Arc<Model>, watch: &Watch) -> Probed {
    let texts: Vec<&str> = probe::texts().collect();
    let mut probed = watch.probing(texts.len());
    for text in texts {
        let drawn = Drawn { input: Input::Text(text.to_owned()), prompt: Prompt::Default, truncate: None };
        if let Some(pair) = both(stable, candidate, &drawn).await {
            probed.ran(&pair);
        }
        if probed.is_decided() {
            break;
        }
    }
    probed
}

/// Runs an input on both versions, one after the other in either order. None if the stable version cannot run it.
async fn both(stable: &Arc<Model>, candidate: &Arc<Model>, drawn: &Drawn) -> Option<Pair> {
    let (of_stable, candidate) = if fastrand::bool() {
        let first = run(stable, drawn).await;
        (first, run(candidate, drawn).await)
    } else {
        let first = run(candidate, drawn).await;
        (run(stable, drawn).await, first)
    };
    Some(Pair { stable: (of_stable.0?, of_stable.1), candidate })
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
