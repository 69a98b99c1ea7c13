//! A bad canary is taken back by itself, with its cause in the log, and a good one never is.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use sextant::config::{GuardSettings, Settings};
use sextant::rollout::guard::{Cause, Figure};
use sextant::rollout::{Change, Role, Roles, Trial};

use super::shares;
use crate::support::app::{client_from, settings, until};
use crate::support::fake::{DIMENSIONS, Fake};
use crate::support::trial::{Engine, OnTrial};

/// Windows of 200 ms, three in a row.
pub fn guarded() -> Settings {
    let guard = GuardSettings {
        window: Some("200ms".into()),
        windows: Some(3),
        requests: Some(20),
        pairs_per_second: Some(200.0),
        ..GuardSettings::default()
    };
    Settings { guard, ..settings() }
}

/// Clients at three addresses that ask without a pause, until the flag is set. Whatever is not answered in a second and a half is given
/// up.
pub async fn traffic(url: String, done: Arc<AtomicBool>) -> u64 {
    let ask = async |index: u8| {
        let (client, mut sent) = (client_from(IpAddr::from([127, 0, 0, 2 + index % 3])), 0);
        while !done.load(Ordering::SeqCst) {
            let body = json!({ "model": "m", "input": format!("{index} {sent}") }).to_string();
            let request = client.post(&url).header("content-type", "application/json").body(body);
            let request = request.header("x-request-timeout-ms", "1500");
            let status = request.send().await.unwrap().status().as_u16();
            assert!(matches!(status, 200 | 500 | 503 | 504), "{status}");
            sent += 1;
        }
        sent
    };
    join_all((0..8).map(ask)).await.into_iter().sum()
}

/// Runs a canary until it is taken back; what the log says then is why.
async fn taken_back(candidate: Engine) -> Cause {
    beside(Engine::GOOD, candidate).await
}

async fn beside(stable: Engine, candidate: Engine) -> Cause {
    let trial = OnTrial::start(shares(30, 0), stable, candidate, &guarded()).await;
    let done = Arc::new(AtomicBool::new(false));
    let traffic = tokio::spawn(traffic(trial.app.url("/v1/embeddings"), Arc::clone(&done)));
    until("it is taken back", async || trial.newest().await.number > 2).await;
    done.store(true, Ordering::SeqCst);
    assert!(traffic.await.unwrap() > 0);

    let document = trial.newest().await;
    assert_eq!(document.change, Change::Rollback { of: Some(2), to: None });
    assert_eq!(document.roles(), Roles { stable: 1, previous: None, trial: None, ..Roles::alone(1) });
    assert_eq!((document.number, document.by.as_str()), (3, "guard"));
    let cause = document.cause.unwrap();
    assert!(document.reason.contains(&cause.sentence), "{}", document.reason);

    // And so do the metrics and the administrators' route.
    let series = ["rollback", &cause.figure.to_string()].map(|label| format!("\"{label}\""));
    let series = series.each_ref().map(String::as_str);
    until("it is followed", async || trial.app.metric("sextant_rollout_changes_total", &series).await == 1.0)
        .await;
    let history = trial.app.get("/admin/v1/models/m/rollouts").await.json();
    assert_eq!(history["documents"][2]["cause"]["figure"], cause.figure.to_string());
    let answer = trial.app.post("/v1/embeddings", json!({ "model": "m", "input": "a" })).await;
    assert_eq!(answer.header("x-sextant-version"), "m@1");
    cause
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_with_errors_is_taken_back() {
    // Those that start with an even number of letters, and so on: about a third of the texts.
    let fails = |ids: &[u32]| ids.iter().map(|id| id.wrapping_mul(2_654_435_761) >> 16).sum::<u32>() % 10 < 3;
    let cause = taken_back(Engine { fails, ..Engine::GOOD }).await;
    assert_eq!(cause.figure, Figure::Errors);
    assert!(cause.value.unwrap() > 0.1 && cause.sentence.contains("requests failed"), "{cause:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_pools_otherwise_is_taken_back() {
    // The first token instead of all.
    let cause = taken_back(Engine { vector: |ids| Fake::vector(&ids[..2]), ..Engine::GOOD }).await;
    assert_eq!(cause.figure, Figure::Cosine);
    assert!(cause.value.unwrap() < 0.99, "{cause:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_with_shifted_vectors_is_taken_back() {
    let vector = |ids: &[u32]| {
        let mut vector = Fake::vector(ids);
        vector.iter_mut().step_by(2).for_each(|value| *value += 0.6);
        vector
    };
    assert_eq!(taken_back(Engine { vector, ..Engine::GOOD }).await.figure, Figure::Cosine);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_gives_no_vectors_is_taken_back() {
    assert_eq!(
        taken_back(Engine { vector: |_| vec![0.0; DIMENSIONS], ..Engine::GOOD }).await.figure,
        Figure::Vectors
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_hangs_is_taken_back() {
    let cause = taken_back(Engine { takes: Duration::from_secs(3600), ..Engine::GOOD }).await;
    assert_eq!((cause.figure, cause.value), (Figure::Errors, Some(1.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_canary_is_taken_back() {
    // Long enough that the noise of a busy machine is small beside it.
    let takes = Duration::from_millis(20);
    let cause = beside(Engine { takes, ..Engine::GOOD }, Engine { takes: takes * 5, ..Engine::GOOD }).await;
    assert_eq!(cause.figure, Figure::Latency);
    assert!(cause.value.unwrap() > 3.0, "{cause:?}");
}

/// 50 runs, of ten windows and more each. Half of the canaries are a little slower and a little off, as int8 is.
#[tokio::test(flavor = "multi_thread")]
async fn a_good_canary_is_never_taken_back() {
    let off = |ids: &[u32]| {
        let mut vector = Fake::vector(ids);
        vector[ids.len() % DIMENSIONS] += 0.1;
        vector
    };
    let int8 = Engine { takes: Engine::GOOD.takes.mul_f64(1.5), vector: off, ..Engine::GOOD };
    let run = async |candidate: Engine| {
        let quick = GuardSettings { window: Some("100ms".into()), windows: Some(2), ..guarded().guard };
        let quick = Settings { guard: quick, ..guarded() };
        let trial = OnTrial::start(shares(50, 0), Engine::GOOD, candidate, &quick).await;
        let done = Arc::new(AtomicBool::new(false));
        let traffic = tokio::spawn(traffic(trial.app.url("/v1/embeddings"), Arc::clone(&done)));
        let seen =
            async || trial.app.get("/admin/v1/models/m").await.json()["serving"]["trial"]["seen"].clone();
        until("ten windows are closed", async || {
            let seen = seen().await;
            seen["cause"] != json!(null) || seen["windows"].as_u64().unwrap_or(0) >= 10
        })
        .await;
        let last = seen().await;
        done.store(true, Ordering::SeqCst);
        traffic.await.unwrap();
        assert_eq!(trial.newest().await.number, 2, "{last}");
    };
    for _ in 0..5 {
        join_all([Engine::GOOD, int8].into_iter().cycle().take(10).map(run)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_does_not_keep_a_bad_canary_in_the_traffic() {
    let candidate = Engine { vector: |ids| Fake::vector(&ids[..1]), ..Engine::GOOD };
    let trial = OnTrial::start(shares(100, 0), Engine::GOOD, candidate, &guarded()).await;
    // Something that is no document has the next one's name.
    let blocked = trial.models.path("m/rollouts/00000003.json");
    std::fs::create_dir(&blocked).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let traffic = tokio::spawn(traffic(trial.app.url("/v1/embeddings"), Arc::clone(&done)));
    let version = async || {
        let answer = trial.app.post("/v1/embeddings", json!({ "model": "m", "input": "a" })).await;
        answer.header("x-sextant-version").to_owned()
    };
    until("the stable version answers all", async || version().await == "m@1").await;
    assert_eq!(
        trial.newest().await.trial.map(Trial::role),
        Some(Role::Canary),
        "the log says otherwise still"
    );
    std::fs::remove_dir(&blocked).unwrap();
    until("it is written", async || trial.newest().await.number == 3).await;
    done.store(true, Ordering::SeqCst);
    traffic.await.unwrap();
    assert_eq!(trial.newest().await.cause.unwrap().figure, Figure::Cosine);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(trial.newest().await.number, 3, "once");
}
