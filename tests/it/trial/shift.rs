//! A canary whose vectors lie elsewhere on the same traffic, each of them too little for the pairs to see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use sextant::drift::fit::{Sample, fit};
use sextant::drift::reference::Origin;
use sextant::drift::shelf;
use sextant::rollout::guard::Figure;
use sextant::tokenize::{Tokenizer, Truncate};
use tokio::task::block_in_place;

use super::guard::{guarded, traffic};
use super::shares;
use crate::support::app::until;
use crate::support::checkpoint::TinyCheckpoint;
use crate::support::fake::{DIMENSIONS, Fake};
use crate::support::trial::{Engine, OnTrial};

/// Of the texts that [`traffic`] sends.
fn samples() -> Vec<Sample> {
    let directory = tempfile::tempdir().unwrap();
    TinyCheckpoint::bert().write(directory.path());
    let tokenizer = Tokenizer::load(&directory.path().join("tokenizer.json"), 64).unwrap();
    let sample = |index: usize| {
        let text = format!("{} {}", index % 8, index / 8);
        let tokens = tokenizer.tokenize(&text, Truncate::End).unwrap();
        Sample { vector: Fake::vector(&tokens.ids), input: tokens.facts(), text: None }
    };
    (0..4_000).map(sample).collect()
}

/// Two versions, both held against a reference of the traffic.
async fn with_reference(candidate: Engine) -> OnTrial {
    let trial = OnTrial::start(shares(50, 0), Engine::GOOD, candidate, &guarded()).await;
    let repository = &trial.models.repository;
    let space = repository.manifest("m", 1).await.unwrap().space;
    let origin = Origin::now("m@1".into(), space, "a test".into());
    let (reference, _) = block_in_place(|| fit(&samples(), origin, 1)).unwrap();
    shelf::store(repository, "m", &reference, false).await.unwrap();
    let count = async |text: &str| trial.app.get("/metrics").await.text().matches(text).count();
    until("both have the reference", async || count("\nsextant_drift_samples_total{").await == 2).await;
    trial
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_that_are_none_are_counted_and_do_not_stop_the_others() {
    let vector = |ids: &[u32]| if ids.len() > 8 { vec![f32::NAN; DIMENSIONS] } else { Fake::vector(ids) };
    let trial = with_reference(Engine { vector, ..Engine::GOOD }).await;
    let ask = async |input: &str| {
        let body = json!({ "model": "m@canary", "input": input });
        trial.app.post("/v1/embeddings", body).await.status
    };
    assert_eq!(ask(&"cat ".repeat(20)).await, 500);
    assert_eq!(ask("cat").await, 200);
    let metric = async |name: &str| trial.app.metric(name, &["version=\"2\""]).await;
    until("both are seen", async || metric("sextant_drift_samples_total").await == 1.0).await;
    assert_eq!(metric("sextant_drift_invalid_total").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_shifts_every_vector_a_little_is_taken_back() {
    let vector = |ids: &[u32]| {
        let mut vector = Fake::vector(ids);
        vector.iter_mut().step_by(2).for_each(|value| *value += 0.15);
        vector
    };
    let trial = with_reference(Engine { vector, ..Engine::GOOD }).await;

    let done = Arc::new(AtomicBool::new(false));
    let traffic = tokio::spawn(traffic(trial.app.url("/v1/embeddings"), Arc::clone(&done)));
    until("it is taken back", async || trial.newest().await.number > 2).await;
    done.store(true, Ordering::SeqCst);
    traffic.await.unwrap();
    let cause = trial.newest().await.cause.unwrap();
    assert_eq!(cause.figure, Figure::Shift, "{cause:?}");
    assert!(cause.value > cause.bound && cause.sentence.contains("lie elsewhere"), "{cause:?}");
}
