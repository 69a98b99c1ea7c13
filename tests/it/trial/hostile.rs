//! One caller that would have a good canary taken back, or choose who is answered by it.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sextant::config::{GuardSettings, Settings};
use sha2::{Digest as _, Sha256};

use super::guard::guarded;
use super::shares;
use crate::support::app::{client, until};
use crate::support::fake::Fake;
use crate::support::trial::{Engine, OnTrial, SECRET};

/// What the guard has seen.
async fn seen(trial: &OnTrial) -> Value {
    trial.app.get("/admin/v1/models/m").await.json()["serving"]["trial"]["seen"].clone()
}

/// Sends the body from one address, 40 times at once; the caller gives up after 1.1 seconds.
async fn round(trial: &OnTrial, body: &Value) {
    let url = trial.app.url("/v1/embeddings");
    let client = client();
    let ask = async |_| {
        let request = client.post(&url).header("content-type", "application/json").body(body.to_string());
        let status = request.header("x-request-timeout-ms", "1100").send().await.unwrap().status().as_u16();
        assert!(matches!(status, 200 | 504), "{status}");
    };
    join_all((0..40).map(ask)).await;
}

/// Goes on until the guard is in doubt because of `figure`, and for some windows more: the canary stays.
async fn stays(trial: &OnTrial, body: &Value, figure: &str) {
    let doubted = async || {
        round(trial, body).await;
        seen(trial).await["doubt"]["figure"] == figure
    };
    until("the guard is in doubt", doubted).await;
    let before = seen(trial).await["windows"].as_u64().unwrap();
    until("it has had the time to take it back", async || {
        round(trial, body).await;
        seen(trial).await["windows"].as_u64().unwrap() >= before + 4
    })
    .await;
    let seen = seen(trial).await;
    assert_eq!((&seen["cause"], trial.newest().await.number), (&json!(null), 2), "{seen}");
    assert!(seen["doubt"]["sentence"].as_str().unwrap().contains("fewer than 3 callers show it"), "{seen}");
}

/// The same word 20 times, framed by special tokens, whose ids are below 5: no text of the probes or of an honest caller.
fn is_odd(ids: &[u32]) -> bool {
    ids.len() == 22 && ids[1] > 4 && ids[1..21].iter().all(|id| *id == ids[1])
}

fn odd_text() -> String {
    ["cat"; 20].join(" ")
}

/// An engine as good as the stable version's, but for odd inputs, as int8 is beside fp32.
fn identical_but_for_odd_inputs() -> Engine {
    let vector = |ids: &[u32]| {
        let mut vector = Fake::vector(ids);
        if is_odd(ids) {
            vector.iter_mut().for_each(|value| *value = -*value);
        }
        vector
    };
    Engine { vector, ..Engine::GOOD }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_does_not_have_a_good_canary_taken_back() {
    let hangs = Engine { hangs: is_odd, ..Engine::GOOD };
    // A window of what a few rounds bring.
    let guard = GuardSettings { windows: Some(2), ..guarded().guard };
    let trial = OnTrial::start(shares(100, 0), hangs, hangs, &Settings { guard, ..guarded() }).await;
    stays(&trial, &json!({ "model": "m", "input": odd_text() }), "errors").await;
    let failures = seen(&trial).await["canary_failures"].as_u64().unwrap();
    assert!(failures >= 48, "{failures} were given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_arrays_that_no_text_gives_are_not_compared() {
    let trial =
        OnTrial::start(shares(100, 0), Engine::GOOD, identical_but_for_odd_inputs(), &guarded()).await;
    let tokens = trial.app.post("/tokenize", json!({ "inputs": odd_text() })).await.json();
    let ids: Vec<u64> =
        tokens[0].as_array().unwrap().iter().map(|token| token["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), 22);
    let body = json!({ "model": "m", "input": [ids] });
    until("they are timed", async || {
        round(&trial, &body).await;
        let seen = seen(&trial).await;
        seen["pairs"].as_u64().unwrap() >= 40 && seen["windows"].as_u64().unwrap() >= 6
    })
    .await;
    let seen = seen(&trial).await;
    assert_eq!(
        (&seen["least_cosine"], &seen["doubt"], &seen["cause"]),
        (&json!(null), &json!(null), &json!(null))
    );
    assert_eq!(trial.app.metric("sextant_shadow_cosine_count", &["\"2\""]).await, 0.0);
    assert_eq!(trial.newest().await.number, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_sends_odd_texts_does_not_have_a_good_canary_taken_back() {
    let trial =
        OnTrial::start(shares(100, 0), Engine::GOOD, identical_but_for_odd_inputs(), &guarded()).await;
    stays(&trial, &json!({ "model": "m", "input": odd_text() }), "cosine").await;
    assert!(seen(&trial).await["least_cosine"].as_f64().unwrap() < 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_caller_is_enough_where_the_servers_own_probes_show_the_fault() {
    let bad = Engine { vector: |ids| Fake::vector(&ids[..2]), ..Engine::GOOD };
    let trial = OnTrial::start(shares(100, 0), Engine::GOOD, bad, &guarded()).await;
    until("it is taken back", async || {
        round(&trial, &json!({ "model": "m", "input": "the cat runs" })).await;
        trial.newest().await.number > 2
    })
    .await;
    let cause = trial.newest().await.cause.unwrap();
    assert!(cause.sentence.contains("the server's own probes"), "{cause:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_cannot_be_chosen_by_what_a_caller_knows_and_the_secret_is_told_nowhere() {
    let guard = GuardSettings { window: Some("1h".into()), ..GuardSettings::default() };
    let trial =
        OnTrial::start(shares(20, 0), Engine::GOOD, Engine::GOOD, &Settings { guard, ..guarded() }).await;
    // Those who were the canary's when the place of a user was a hash of its name and the version's.
    let place = |user: &str| {
        let digest = Sha256::new().chain_update("m@2").chain_update([0]).chain_update(user).finalize();
        f64::from(u32::from_be_bytes(digest[..4].try_into().unwrap())) / 2_f64.powi(32)
    };
    let chosen = (0..).map(|number| format!("user {number}")).filter(|user| place(user) < 0.2);
    let mut versions = BTreeMap::<String, u32>::new();
    for user in chosen.take(50) {
        let answer =
            trial.app.post("/v1/embeddings", json!({ "model": "m", "input": "a", "user": user })).await;
        *versions.entry(answer.header("x-sextant-version").to_owned()).or_default() += 1;
    }
    // By chance 10 of 50 are.
    assert!(versions["m@1"] >= 25, "{versions:?}");

    let secret = std::fs::read_to_string(trial.models.path(SECRET)).unwrap();
    for path in ["/admin/v1/models", "/admin/v1/models/m", "/admin/v1/models/m/rollouts", "/metrics"] {
        let answer = trial.app.get(path).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.text().contains(secret.trim()) && !answer.text().contains(SECRET), "{path}");
    }
}
