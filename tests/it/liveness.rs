//! When an engine counts as dead: on a clock that stands still, with an engine that is held.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sextant::embed::Model;
use sextant::metrics::Metrics;
use sextant::tokenize::Tokenizer;
use tokio::time::Instant;

use crate::support::app::{config, settings};
use crate::support::checkpoint::TinyCheckpoint;
use crate::support::fake::{DIMENSIONS, Fake};
use crate::support::manifest;

const DEADLINE: Duration = Duration::from_secs(10);
/// Its batches may run for five times as long.
const LONGEST_RUN: Duration = Duration::from_secs(8);

/// Whether a model lives that may run a batch for `longest_run`, whose session has run one for so many seconds, or none.
async fn lives(longest_run: Duration, runs_for: Option<u64>, break_it: impl FnOnce(&Fake)) -> bool {
    let directory = tempfile::tempdir().unwrap();
    TinyCheckpoint::bert().write(directory.path());
    let tokenizer = Tokenizer::load(&directory.path().join("tokenizer.json"), 64).unwrap();
    let (fake, runs) = (Fake::new(), Arc::new(AtomicU64::new(runs_for.unwrap_or(0))));
    break_it(&fake);
    let beats = move |longest: Duration| runs.load(Ordering::SeqCst) <= longest.as_secs();
    let (limits, metrics) = (config(&settings()).limits, Metrics::new().unwrap());
    let model = Model::with_engine(manifest("tiny", DIMENSIONS), tokenizer, fake, beats, limits, &metrics);
    let began = Instant::now();
    let alive = model.with_longest_run(longest_run).is_alive(DEADLINE).await;
    assert!(began.elapsed() <= DEADLINE + Duration::from_millis(1), "no probe waits for longer");
    alive
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_runs_longer_than_the_deadline_is_no_death_where_the_longest_input_takes_as_long() {
    let held = Fake::hold;
    assert!(lives(LONGEST_RUN, Some(9), held).await);
    assert!(lives(LONGEST_RUN, Some(40), held).await, "five times what it took at load");
    assert!(!lives(LONGEST_RUN, Some(41), held).await, "hung");
    assert!(!lives(Duration::from_secs(1), Some(9), held).await, "its longest input takes 5 s at most");
    assert!(!lives(Duration::ZERO, Some(9), held).await, "nothing was measured");
    assert!(!lives(LONGEST_RUN, None, held).await, "idle, and does not answer");
    assert!(!lives(LONGEST_RUN, Some(9), |fake| fake.fail(true)).await, "fails");
    // One of its sessions answers, and another one hangs.
    assert!(lives(LONGEST_RUN, Some(40), |_| ()).await);
    assert!(!lives(LONGEST_RUN, Some(41), |_| ()).await);
}
