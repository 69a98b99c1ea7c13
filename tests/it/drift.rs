//! Drift on a running server: references, alarms, scores, learning; and the commands.

mod commands;
mod prometheus;
mod weights;

use std::fs;
use std::path::Path;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};
use sextant::config::{DriftSettings, Settings};
use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::command::{imported, path, run};
use crate::evaluate::sentences;
use crate::support::app::{TestApp, settings, until};

/// A repository with the model `tiny`, and a reference of 3,000 sentences for it.
pub fn with_reference() -> TempDir {
    let directory = imported();
    fs::write(directory.path().join("usual.txt"), sentences(1, 3_000).join("\n")).unwrap();
    let (models, usual) = (path(&directory, "models"), path(&directory, "usual.txt"));
    let fitted = run(&["drift", "fit", "tiny@1", "--models", &models, "--input", &usual, "--keep-examples"]);
    let printed = String::from_utf8([fitted.stdout, fitted.stderr].concat()).unwrap();
    assert!(fitted.status.success() && printed.contains(" as number 1 of tiny"), "{printed}");
    assert!(printed.contains("2000 vectors fitted, 1000 held out; 31 directions"), "{printed}");
    directory
}

/// Counts every request, and alarms once in a thousand of them at most.
fn watchful() -> DriftSettings {
    DriftSettings { expected_run_time: Some(1_000.0), per_second: Some(1_000_000), learn: None }
}

async fn serve(directory: &TempDir, drift: DriftSettings) -> TestApp {
    TestApp::with(&Settings { models: Some(path(directory, "models")), drift, ..settings() }).await
}

/// Asks for each text alone.
async fn ask_each(app: &TestApp, texts: Vec<String>) {
    let ask = async |text: String| {
        let answer = app.post("/embed", json!({ "inputs": text })).await;
        assert_eq!(answer.status, 200);
    };
    stream::iter(texts).map(ask).buffer_unordered(8).collect::<()>().await;
}

/// The state of the only version.
async fn state(app: &TestApp) -> Value {
    let models = app.get("/admin/v1/models").await.json();
    let model = models["models"][0]["model"].as_str().unwrap().to_owned();
    let answer = app.get(&format!("/admin/v1/models/{model}/drift")).await;
    assert_eq!(answer.status, 200);
    answer.json()["versions"][0].clone()
}

async fn counted(app: &TestApp, samples: u64) -> Value {
    until("all are counted", async || state(app).await["counts"]["samples"] == samples).await;
    state(app).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_reference_is_named_and_serving_goes_on() {
    let directory = block_in_place(imported);
    let references = directory.path().join("models/tiny/references");
    fs::create_dir_all(&references).unwrap();
    fs::write(references.join("00000002.bin"), "rubbish").unwrap();
    let other = block_in_place(with_reference);
    let file = fs::read(other.path().join("models/tiny/references/00000001.bin")).unwrap();
    let flipped: Vec<u8> = file.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 9_000)).collect();
    fs::write(references.join("00000003.bin"), flipped).unwrap();

    let app = serve(&directory, watchful()).await;
    ask_each(&app, sentences(6, 5)).await;
    let body = json!({ "model": "tiny", "input": "the cat", "ood": true });
    let refused = app.post("/v1/embeddings", body.clone()).await;
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains("tiny@1 has no drift reference"), "{}", refused.text());
    assert_eq!(app.get("/admin/v1/models/tiny/drift").await.json()["versions"], json!([]));
    let (models, stream) = (path(&directory, "models"), path(&other, "usual.txt"));
    let replayed = block_in_place(|| run(&["drift", "replay", "tiny@1", &stream, "--models", &models]));
    let said = String::from_utf8(replayed.stderr).unwrap();
    for named in [
        "references/00000002.bin` is not used: it is damaged: it begins with something else",
        "references/00000003.bin` is not used: it is damaged: its digest is not that of its contents",
        "there is no drift reference of the space",
    ] {
        assert!(said.contains(named), "{said}");
    }

    // A good one beside the damaged ones counts, and a running server takes it up.
    fs::write(references.join("00000004.bin"), &file).unwrap();
    until("it is taken up", async || app.post("/v1/embeddings", body.clone()).await.status == 200).await;
    // One that is newer goes before it.
    let (models, usual) = (path(&directory, "models"), path(&other, "usual.txt"));
    let fit = ["drift", "fit", "tiny@1", "--models", &models, "--input", &usual, "--seed", "2"];
    let first = state(&app).await["reference"].clone();
    assert!(block_in_place(|| run(&fit)).status.success());
    until("the newer is taken up", async || state(&app).await["reference"] != first).await;
    until("the series of the older are gone", async || {
        !app.get("/metrics").await.text().contains(first.as_str().unwrap())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_learn_a_reference_and_the_first_one_wins() {
    let directory = block_in_place(imported);
    let learning = DriftSettings { learn: Some(3_000), ..watchful() };
    let apps = [serve(&directory, learning.clone()).await, serve(&directory, learning).await];
    for (seed, app) in (10..).zip(&apps) {
        until("it learns", async || {
            app.get("/admin/v1/models/tiny/drift").await.json()["learning"] != json!([])
        })
        .await;
        ask_each(app, sentences(seed, 3_000)).await;
    }
    let mut names = Vec::new();
    for app in &apps {
        until("it has a reference", async || state(app).await["reference"].is_string()).await;
        names.push(state(app).await["reference"].clone());
    }
    assert_eq!(names[0], names[1]);
    assert_eq!(state(&apps[0]).await["origin"]["source"], "live traffic");
    let stored = fs::read_dir(directory.path().join("models/tiny/references")).unwrap();
    let stored = stored.filter(|entry| Path::new(&entry.as_ref().unwrap().file_name()).extension().is_some());
    assert_eq!(stored.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_rolled_out_has_the_reference_of_its_space_from_its_first_request() {
    let directory = block_in_place(with_reference);
    let (checkpoint, models) = (path(&directory, "checkpoint"), path(&directory, "models"));
    let how = ["--name", "tiny", "--precision", "fp16", "--claim-space-of", "1"];
    let import = [&["import", &checkpoint, "--models", &models], &how[..]].concat();
    assert!(block_in_place(|| run(&import)).status.success());
    let app = serve(&directory, watchful()).await;
    let body = json!({ "version": 2, "reason": "a test" });
    assert_eq!(app.post("/admin/v1/models/tiny/rollout", body).await.status, 200);
    let answer = app.post("/v1/embeddings", json!({ "model": "tiny", "input": "a cat", "ood": true })).await;
    assert_eq!((answer.status, answer.header("x-sextant-version")), (200, "tiny@2"));
    until("it is counted apart", async || {
        app.metric("sextant_drift_samples_total", &["version=\"2\""]).await == 1.0
    })
    .await;
    assert_eq!(app.metric("sextant_drift_samples_total", &["version=\"1\""]).await, 0.0);
}
