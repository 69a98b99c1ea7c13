//! A server that requires signatures.

use std::fs;

use serde_json::json;
use sextant::config::Settings;
use tokio::task::block_in_place;

use super::Keys;
use crate::command::{imported, path, run};
use crate::support::app::{TestApp, config, settings, until};

async fn version(app: &TestApp) -> String {
    let answer = app.post("/v1/embeddings", json!({ "model": "tiny", "input": "the red house" })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-sextant-version").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_loads_what_is_signed_and_serves_on_with_what_is_loaded() {
    let (directory, keys) = (imported(), Keys::new());
    let (models, checkpoint) = (path(&directory, "models"), path(&directory, "checkpoint"));
    let done = |arguments: &[&str]| {
        let output = block_in_place(|| run(&[arguments, &["--models", &models]].concat()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let private = keys.private("release");
    let private = private.to_str().unwrap();
    let settings = Settings {
        models: Some(models.clone()),
        require_signed: Some(keys.public(&["release"])),
        cache_dir: Some(path(&directory, "cache").into()),
        ..settings()
    };
    let Err(error) = sextant::server::load(&config(&settings)).await else { panic!("tiny@1 is not signed") };
    let expected = "tiny@1 cannot be served: it does not pass the gate: signature: tiny@1 is not signed";
    assert!(error.to_string().starts_with(expected), "{error}");

    done(&["sign", "tiny@1", "--key", private]);
    let app = TestApp::with(&settings).await;
    assert_eq!(version(&app).await, "tiny@1");

    // Another process rolls out a version that nobody signed.
    done(&["import", &checkpoint, "--name", "tiny"]);
    let refused =
        app.post("/admin/v1/models/tiny/rollout", json!({ "version": 2, "reason": "a test" })).await;
    assert!(refused.status == 409 && refused.text().contains("it has no signature"), "{}", refused.text());
    let verified = app.post("/admin/v1/models/tiny/verify", json!({ "version": 2 })).await;
    assert_eq!(verified.json()["checks"][0]["name"], "signature", "{}", verified.text());
    assert_eq!(verified.json()["passed"], false);
    // Nor is it tried, nor does it come by another way.
    let canary = json!({ "version": 2, "canary_percent": 50, "reason": "a test" });
    let refused = app.post("/admin/v1/models/tiny/rollout", canary).await;
    assert!(refused.status == 409 && refused.text().contains("it has no signature"), "{}", refused.text());
    let why = ["--reason", "a test"];
    done(&[&["rollout", "tiny@2", "--canary-percent", "50"][..], &why].concat());
    let newest = async || {
        let log = app.get("/admin/v1/models/tiny/rollouts").await.json();
        log["documents"].as_array().unwrap().last().unwrap().clone()
    };
    until("the canary is taken back", async || newest().await["by"] == "guard").await;
    let cause = newest().await["cause"].clone();
    assert_eq!(cause["figure"], "gate");
    assert!(cause["sentence"].as_str().unwrap().contains("signature: tiny@2 is not signed"), "{cause}");
    done(&[&["rollout", "tiny@2", "--shadow-percent", "50"][..], &why].concat());
    let shadow = json!({ "version": 2, "shadow_percent": 50, "reason": "a test" });
    for (route, body) in [
        ("rollout", shadow),
        ("promote", json!({ "version": 2, "reason": "a test" })),
        ("rollback", json!({ "to": 2, "reason": "a test" })),
    ] {
        let refused = app.post(&format!("/admin/v1/models/tiny/{route}"), body).await;
        let text = refused.text();
        assert!(refused.status == 409 && text.contains("it has no signature"), "{route}: {text}");
        assert_eq!(version(&app).await, "tiny@1");
    }
    done(&["rollout", "tiny@2", "--reason", "a test"]);
    let failures = async |reason| app.metric("sextant_sync_failures_total", &[reason]).await;
    until("it was tried", async || failures("load").await >= 1.0).await;
    assert_eq!(version(&app).await, "tiny@1");
    let listed = app.get("/admin/v1/models/tiny").await.json();
    let damaged = listed["versions"][1]["damaged"].as_str().unwrap();
    assert!(damaged.starts_with("tiny@2 is not signed"), "{damaged}");

    // Signed, but for a file that is another one now: the signature covers its digest.
    let graph = directory.path().join("models/tiny/versions/2/model.onnx");
    let whole = fs::read(&graph).unwrap();
    fs::write(&graph, &whole[1..]).unwrap();
    done(&["sign", "tiny@2", "--key", private]);
    let before = failures("load").await;
    until("it was tried again", async || failures("load").await > before).await;
    assert_eq!(version(&app).await, "tiny@1");
    fs::write(&graph, &whole).unwrap();
    until("tiny@2 serves", async || version(&app).await == "tiny@2").await;
    assert_eq!(failures("repository").await, 0.0);
    assert!(app.stop().await);
}
