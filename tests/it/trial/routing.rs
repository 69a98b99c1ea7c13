//! Which requests a version on trial is given.

use std::collections::BTreeMap;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use sextant::config::{GuardSettings, Settings};

use super::shares;
use crate::support::app::{settings, until};
use crate::support::trial::{Engine, OnTrial};

/// No window is ever closed.
fn unguarded() -> Settings {
    let guard = GuardSettings {
        window: Some("1h".into()),
        pairs_per_second: Some(1000.0),
        ..GuardSettings::default()
    };
    Settings { guard, ..settings() }
}

async fn ask(trial: &OnTrial, body: Value) -> (u16, String) {
    let answer = trial.app.post("/v1/embeddings", body).await;
    let version = answer.headers.get("x-sextant-version").map_or("", |version| version.to_str().unwrap());
    (answer.status, version.to_owned())
}

#[tokio::test]
async fn a_canary_answers_its_share_and_the_same_users_always() {
    let trial = OnTrial::start(shares(20, 0), Engine::GOOD, Engine::GOOD, &unguarded()).await;
    let mut by_chance = BTreeMap::<String, u32>::new();
    for number in 0..400 {
        let (status, version) = ask(&trial, json!({ "model": "m", "input": format!("text {number}") })).await;
        assert_eq!(status, 200);
        *by_chance.entry(version).or_default() += 1;
    }
    // Five standard deviations of 80.
    assert!((40..=120).contains(&by_chance["m@2"]), "{by_chance:?}");
    assert_eq!(by_chance["m@1"] + by_chance["m@2"], 400);

    let mut users = BTreeMap::new();
    for round in 0..3 {
        for user in 0..60 {
            let body =
                json!({ "model": "m", "input": format!("{round} {user}"), "user": format!("user {user}") });
            let (_, version) = ask(&trial, body).await;
            assert_eq!(*users.entry(user).or_insert_with(|| version.clone()), version, "user {user}");
        }
    }
    let canary = users.values().filter(|version| *version == "m@2").count();
    assert!((2..=30).contains(&canary), "{canary} of 60");

    // Whoever names a version or a role gets it.
    for (name, version) in [("m@1", "m@1"), ("m@stable", "m@1"), ("m@2", "m@2"), ("m@canary", "m@2")] {
        for _ in 0..10 {
            assert_eq!(ask(&trial, json!({ "model": name, "input": "a" })).await, (200, version.to_owned()));
        }
    }
    assert_eq!(ask(&trial, json!({ "model": "m@shadow", "input": "a" })).await.0, 404);
    assert_eq!(trial.app.metric("sextant_version_role", &["\"2\"", "canary"]).await, 1.0);
    assert_eq!(trial.app.metric("sextant_version_role", &["\"1\"", "stable"]).await, 1.0);
}

#[tokio::test]
async fn a_shadow_answers_nobody_and_is_compared() {
    let trial = OnTrial::start(shares(0, 50), Engine::GOOD, Engine::GOOD, &unguarded()).await;
    for number in 0..100 {
        let body = json!({ "model": "m", "input": ["same request", format!("text {number}")] });
        assert_eq!(ask(&trial, body).await, (200, "m@1".to_owned()));
    }
    let compared = async || trial.app.metric("sextant_shadow_cosine_count", &["\"2\""]).await;
    until("some are compared", async || compared().await >= 20.0).await;
    assert!(compared().await <= 75.0, "one input of half of the requests");
    let sum = trial.app.metric("sextant_shadow_cosine_sum", &["\"2\""]).await;
    assert!((sum / compared().await - 1.0).abs() < 0.05, "equal vectors");
    for side in ["stable", "trial"] {
        assert!(trial.app.metric("sextant_shadow_seconds_count", &[side]).await >= 20.0);
    }
    let seen = trial.app.get("/admin/v1/models/m").await.json()["serving"]["trial"]["seen"].clone();
    assert_eq!(seen["canary_requests"], 0);
    assert!(
        seen["pairs"].as_u64().unwrap() >= 20 && seen["least_cosine"].as_f64().unwrap() > 0.999,
        "{seen}"
    );
    assert!(seen["neighbour_overlap"].as_f64().unwrap() > 0.999, "{seen}");
    assert_eq!(trial.app.metric("sextant_embeddings_total", &["\"2\""]).await, 0.0, "nobody got its vectors");
}

#[tokio::test]
async fn the_space_of_a_request_is_asked_of_whichever_answers() {
    let trial = OnTrial::start(shares(100, 0), Engine::GOOD, Engine::GOOD, &unguarded()).await;
    let asked = async |model: &str, space: &str| {
        let headers = HeaderMap::from_iter([("x-sextant-space".parse().unwrap(), space.parse().unwrap())]);
        let body = json!({ "model": model, "input": "a" }).to_string().into_bytes();
        trial.app.send("POST", "/v1/embeddings", headers, body).await
    };
    let answer = asked("m", "a123456789abcdef").await;
    assert_eq!((answer.status, answer.header("x-sextant-version")), (200, "m@2"));
    for model in ["m", "m@1", "m@canary"] {
        let answer = asked(model, "b123456789abcdef").await;
        assert_eq!(answer.status, 409, "{model}");
        assert_eq!(answer.json()["error"]["code"], "space_mismatch");
    }
}
