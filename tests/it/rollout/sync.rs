//! A server that follows the log: what other processes roll out is served, and no request notices but by its version.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::{JoinHandle, block_in_place};

use crate::command::{imported, path, run};
use crate::support::app::{TestApp, client, until};
use crate::support::{distance, floats};

/// A repository with `tiny@1` in fp32, which serves, and `tiny@2` in int8, of another space.
pub struct Tiny(TempDir);

impl Tiny {
    pub fn new() -> Self {
        let tiny = Self(imported());
        tiny.import("tiny", &["--precision", "int8"]);
        tiny
    }

    /// Imports the checkpoint once more.
    pub fn import(&self, name: &str, how: &[&str]) {
        let checkpoint = path(&self.0, "checkpoint");
        self.sextant(&[&["import", &checkpoint, "--name", name], how].concat());
    }

    pub fn models(&self) -> PathBuf {
        self.0.path().join("models")
    }

    /// Runs a command on the repository in a process of its own.
    fn sextant(&self, arguments: &[&str]) {
        let models = path(&self.0, "models");
        let why = ["--models", &models, "--reason", "a test"];
        let output = block_in_place(|| run(&[arguments, &why[..]].concat()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

const TEXT: &str = "the red house";

pub async fn ask(app: &TestApp, model: &str) -> (u16, String) {
    let answer = app.post("/v1/embeddings", json!({ "model": model, "input": TEXT })).await;
    let version = answer.headers.get("x-sextant-version").map_or("", |version| version.to_str().unwrap());
    (answer.status, version.to_owned())
}

/// Waits until `version` answers who asks for its model.
async fn served(app: &TestApp, version: &str) {
    let (model, _) = version.split_once('@').unwrap();
    until(&format!("{version} serves"), async || ask(app, model).await == (200, version.to_owned())).await;
}

/// Clients that ask without a pause, and hold each vector against the version that the answer names.
pub struct Watch {
    /// Of each version seen, its vector for [`TEXT`].
    vectors: Arc<Mutex<BTreeMap<String, Vec<f32>>>>,
    done: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Watch {
    pub fn start(app: &TestApp, clients: usize) -> Self {
        let (vectors, done) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let client =
            || tokio::spawn(watch(app.url("/v1/embeddings"), Arc::clone(&vectors), Arc::clone(&done)));
        let clients = (0..clients).map(|_| client()).collect();
        Self { vectors, done, clients }
    }

    pub async fn stop(self) -> BTreeMap<String, Vec<f32>> {
        self.done.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
        self.vectors.lock().unwrap().clone()
    }
}

async fn watch(url: String, vectors: Arc<Mutex<BTreeMap<String, Vec<f32>>>>, done: Arc<AtomicBool>) {
    let (client, body) = (client(), json!({ "model": "tiny", "input": TEXT }).to_string());
    while !done.load(Ordering::SeqCst) {
        let request = client.post(&url).header("content-type", "application/json").body(body.clone());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let version = answer.headers()["x-sextant-version"].to_str().unwrap().to_owned();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let vector = floats(&answer["data"][0]["embedding"]);
        let mut vectors = vectors.lock().unwrap();
        let known = vectors.entry(version.clone()).or_insert_with(|| vector.clone());
        assert!(distance(known, &vector) < 1e-5, "a vector that is not of {version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rollouts_and_rollbacks_by_other_processes_are_served_and_no_request_fails() {
    let tiny = Tiny::new();
    let app = TestApp::repository(&tiny.models()).await;
    let watch = Watch::start(&app, 8);
    served(&app, "tiny@1").await;
    for round in 1..=3 {
        tiny.sextant(&["rollout", "tiny@2", "--force"]);
        served(&app, "tiny@2").await;
        assert_eq!(ask(&app, "tiny@1").await, (200, "tiny@1".to_owned()), "the previous one is at hand");
        assert_eq!(ask(&app, "tiny@previous").await.1, "tiny@1");
        assert_eq!(app.metric("sextant_version_role", &["\"1\"", "previous"]).await, 1.0);
        assert_eq!(app.metric("sextant_version_role", &["\"2\"", "stable"]).await, 1.0);

        tiny.sextant(&["rollback", "tiny"]);
        served(&app, "tiny@1").await;
        let series = |text: &str| text.contains("sextant_version_info{") && text.contains("version=\"2\"");
        until("the other is unloaded", async || !series(app.get("/metrics").await.text())).await;
        assert_eq!(ask(&app, "tiny@2").await.0, 404);
        assert_eq!(app.metric("sextant_rollout_generation", &["tiny"]).await, f64::from(1 + 2 * round));
    }
    let vectors = watch.stop().await;
    let [one, two] = ["tiny@1", "tiny@2"].map(|version| &vectors[version]);
    assert!(distance(one, two) > 1e-4, "which they could be mistaken for each other");
    assert!(app.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_loaded_leaves_everything_as_it_is() {
    let tiny = Tiny::new();
    let app = TestApp::repository(&tiny.models()).await;
    let graph = tiny.models().join("tiny/versions/2/model.onnx");
    let whole = fs::read(&graph).unwrap();
    fs::write(&graph, &whole[1..]).unwrap();
    tiny.sextant(&["rollout", "tiny@2", "--force"]);
    let failures = async |reason| app.metric("sextant_sync_failures_total", &[reason]).await;
    until("it was tried", async || failures("load").await >= 1.0).await;
    assert_eq!(ask(&app, "tiny").await, (200, "tiny@1".to_owned()));
    assert_eq!(app.metric("sextant_rollout_generation", &["tiny"]).await, 1.0);
    // It is tried again, without another change.
    fs::write(&graph, whole).unwrap();
    served(&app, "tiny@2").await;

    // A document that cannot be read changes nothing either, and the next one above it counts.
    fs::write(tiny.models().join("tiny/rollouts/00000003.json"), "{").unwrap();
    tiny.sextant(&["rollout", "tiny@1", "--force"]);
    served(&app, "tiny@1").await;
    assert_eq!(app.metric("sextant_rollout_generation", &["tiny"]).await, 4.0);
    assert_eq!(failures("repository").await, 0.0);
}

/// A document that is lost takes its number with it: the next change has the same one, and counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_end_is_followed_as_it_is() {
    let tiny = Tiny::new();
    tiny.import("tiny", &["--precision", "int8"]);
    let (app, other) = (TestApp::repository(&tiny.models()).await, TestApp::repository(&tiny.models()).await);
    let document = tiny.models().join("tiny/rollouts/00000002.json");
    tiny.sextant(&["rollout", "tiny@2", "--force"]);
    for app in [&app, &other] {
        served(app, "tiny@2").await;
    }
    fs::remove_file(&document).unwrap();
    for app in [&app, &other] {
        served(app, "tiny@1").await;
        assert_eq!(app.metric("sextant_rollout_generation", &["tiny"]).await, 1.0);
        assert_eq!(app.metric("sextant_sync_failures_total", &["document"]).await, 1.0);
    }
    tiny.sextant(&["rollout", "tiny@2", "--force"]);
    for app in [&app, &other] {
        served(app, "tiny@2").await;
    }
    // Faster than anybody looks, and through a server that still knows the other one.
    let (first, gone) = (fs::read(&document).unwrap(), tiny.models().join("gone"));
    fs::rename(&document, &gone).unwrap();
    let change = json!({ "version": 3, "force": true, "reason": "a test" });
    let answer = app.post("/admin/v1/models/tiny/rollout", change).await;
    assert_eq!((answer.status, &answer.json()["rollout"]["number"]), (200, &json!(2)), "{}", answer.text());
    assert_eq!(ask(&app, "tiny").await.1, "tiny@3", "as the answer says");
    served(&other, "tiny@3").await;
    assert_ne!(fs::read(&document).unwrap(), first);

    // Of a log that is lost altogether nobody can say what it said: serving goes on until it begins anew.
    fs::remove_dir_all(tiny.models().join("tiny/rollouts")).unwrap();
    until("it is missed", async || app.metric("sextant_sync_failures_total", &["document"]).await >= 2.0)
        .await;
    assert_eq!(ask(&app, "tiny").await, (200, "tiny@3".to_owned()));
    tiny.sextant(&["rollout", "tiny@2", "--force"]);
    for app in [&app, &other] {
        served(app, "tiny@2").await;
        assert_eq!(app.metric("sextant_rollout_generation", &["tiny"]).await, 1.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_server_wrote_is_neither_followed_nor_taken_back() {
    let tiny = Tiny::new();
    let app = TestApp::repository(&tiny.models()).await;
    fs::write(tiny.models().join("tiny/rollouts/00000002.json"), "{\"schema\": 3}").unwrap();
    until("it is told", async || app.metric("sextant_sync_failures_total", &["document"]).await >= 1.0).await;
    assert_eq!(ask(&app, "tiny").await, (200, "tiny@1".to_owned()));
    let answer = app.post("/admin/v1/models/tiny/rollback", json!({ "to": 1, "reason": "a test" })).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("newer sextant"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_repository_serving_goes_on() {
    let tiny = Tiny::new();
    let app = TestApp::repository(&tiny.models()).await;
    let away = tiny.0.path().join("away");
    fs::rename(tiny.models(), &away).unwrap();
    until("it is missed", async || app.metric("sextant_sync_failures_total", &["repository"]).await >= 2.0)
        .await;
    assert_eq!(ask(&app, "tiny").await, (200, "tiny@1".to_owned()));
    // As an empty directory looks where one should be mounted.
    fs::create_dir(tiny.models()).unwrap();
    let answer = app.post("/admin/v1/models/tiny/rollback", json!({ "reason": "a test" })).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    fs::remove_dir(tiny.models()).unwrap();
    fs::rename(&away, tiny.models()).unwrap();
    tiny.sextant(&["rollout", "tiny@2", "--force"]);
    served(&app, "tiny@2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_added_is_served_too() {
    let tiny = Tiny::new();
    let app = TestApp::repository(&tiny.models()).await;
    assert_eq!(ask(&app, "other").await.0, 404);
    tiny.import("other", &[]);
    served(&app, "other@1").await;
    // Nor does it take the default from the one that was alone.
    let answer = app.post("/embed", json!({ "inputs": TEXT })).await;
    assert_eq!((answer.status, answer.header("x-sextant-version")), (200, "tiny@1"));
}

/// A restarted server has the previous version at hand again.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_loads_the_previous_version_after_the_stable_one() {
    let tiny = Tiny::new();
    tiny.sextant(&["rollout", "tiny@2", "--force"]);
    let app = TestApp::repository(&tiny.models()).await;
    assert_eq!(ask(&app, "tiny").await, (200, "tiny@2".to_owned()));
    until("the previous one is loaded", async || ask(&app, "tiny@1").await.0 == 200).await;
}
