//! A server whose disk is full: it serves on, tells each change that it cannot make, and shows nothing half done.

use std::path::Path;

use serde_json::{Value, json};

use super::with_full_disk;
use crate::command::{Server, imported, path, run};
use crate::support;
use crate::support::app::{client, until};

struct Full {
    server: Server,
    client: reqwest::Client,
}

impl Full {
    async fn post(&self, path: &str, body: Value) -> (u16, String, String) {
        let request = self.client.post(format!("http://{}{path}", self.server.address));
        let request = request.header("content-type", "application/json").body(body.to_string());
        let answer = request.send().await.unwrap();
        let version =
            answer.headers().get("x-sextant-version").map_or("", |version| version.to_str().unwrap());
        (answer.status().as_u16(), version.to_owned(), answer.text().await.unwrap())
    }

    /// The version that answers.
    async fn version(&self) -> String {
        let (status, version, text) =
            self.post("/v1/embeddings", json!({ "model": "tiny", "input": "a" })).await;
        assert_eq!(status, 200, "{text}");
        version
    }
}

/// Names below a directory, those of locks left out.
fn names(directory: &Path) -> Vec<String> {
    let names = directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.ends_with(".lock")).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_disk_is_full_serves_on_and_shows_nothing_half_done() {
    let directory = imported();
    let (checkpoint, models) = (path(&directory, "checkpoint"), path(&directory, "models"));
    assert!(run(&["import", &checkpoint, "--models", &models, "--name", "tiny"]).status.success());
    // Verifying a version leaves its copy in the cache.
    let verify = |version: &str| assert!(run(&["verify", version, "--models", &models]).status.success());
    verify("tiny@1");
    let cache = support::cache(Path::new(&models));
    let rollouts = directory.path().join("models/tiny/rollouts");
    let listed = || [Path::new(&models), rollouts.parent().unwrap()].map(names);
    let (cached, published) = (names(&cache), listed());
    let command = with_full_disk(0, &["serve", "--models", &models, "--sync-interval", "50ms"]);
    let server = Server::start_command(command);
    let full = Full { server, client: client() };
    assert_eq!(full.version().await, "tiny@1");

    let rollout = json!({ "version": 2, "reason": "x" });
    let canary = json!({ "version": 2, "canary_percent": 10, "reason": "x" });
    let refused = async |body: &Value, named: &str| {
        let (status, _, text) = full.post("/admin/v1/models/tiny/rollout", body.clone()).await;
        assert!([409, 503].contains(&status), "{status}: {text}");
        assert!(text.contains("File too large") && text.contains(named), "{text}");
        assert_eq!(names(&rollouts), ["00000001.json"]);
        assert_eq!(listed(), published);
        assert_eq!(full.version().await, "tiny@1");
    };
    for (body, named) in [(&rollout, "cache"), (&canary, ".trial-secret")] {
        refused(body, named).await;
        assert_eq!(names(&cache), cached, "nothing of a version that is not whole");
    }
    verify("tiny@2");
    refused(&rollout, "00000002.json").await;
    refused(&canary, ".trial-secret").await;

    let by_another = ["rollout", "tiny@2", "--models", &models, "--reason", "x"];
    assert!(run(&by_another).status.success(), "with room");
    until("it is followed", async || full.version().await == "tiny@2").await;
    full.server.signal("TERM");
    assert_eq!(full.server.exit_code().await, Some(0));
}
