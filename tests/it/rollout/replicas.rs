//! Three processes on one repository agree, on a directory and on a bucket.

use std::collections::BTreeSet;

use serde_json::json;

use crate::command::{Server, path, run, sextant};
use crate::support::app::{client, until};
use crate::support::checkpoint::TinyCheckpoint;
use crate::support::s3::Bucket;

struct Replicas {
    servers: Vec<Server>,
    client: reqwest::Client,
}

impl Replicas {
    /// Imports two versions of one space and starts three servers.
    async fn start(models: &str, variables: &[(String, String)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        TinyCheckpoint::bert().write(&directory.path().join("checkpoint"));
        let checkpoint = path(&directory, "checkpoint");
        let (models, variables) = (models.to_owned(), variables.to_vec());
        let start = move || {
            for _ in 0..2 {
                let mut import = sextant(&["import", &checkpoint, "--models", &models, "--name", "tiny"]);
                assert!(import.envs(variables.clone()).output().unwrap().status.success());
            }
            let serve = |index: usize| {
                let cache = path(&directory, &format!("cache {index}"));
                let mut command = sextant(&["serve", "--models", &models, "--sync-interval", "1s"]);
                command.args(["--cache-dir", &cache]).envs(variables.clone());
                Server::start_command(command)
            };
            (0..3).map(serve).collect()
        };
        // The bucket's door needs another thread.
        let servers = tokio::task::spawn_blocking(start).await.unwrap();
        Self { servers, client: client() }
    }

    async fn version(&self, server: &Server) -> String {
        let body = json!({ "model": "tiny", "input": "a" }).to_string();
        let request = self.client.post(format!("http://{}/v1/embeddings", server.address));
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.headers()["x-sextant-version"].to_str().unwrap().to_owned()
    }

    async fn versions(&self) -> BTreeSet<String> {
        let mut versions = BTreeSet::new();
        for server in &self.servers {
            versions.insert(self.version(server).await);
        }
        versions
    }

    /// Rolls out and back on one server after the other. That one answers by the new version at once, the others soon.
    async fn agree(&self) {
        for (index, server) in self.servers.iter().enumerate() {
            for (action, expected) in [("rollout", "tiny@2"), ("rollback", "tiny@1")] {
                let body = match action {
                    "rollout" => json!({ "version": 2, "reason": "a test" }),
                    _ => json!({ "reason": "a test" }),
                };
                let url = format!("http://{}/admin/v1/models/tiny/{action}", server.address);
                let request = self.client.post(url).header("content-type", "application/json");
                let answer = request.body(body.to_string()).send().await.unwrap();
                assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
                assert_eq!(self.version(server).await, expected, "at once");
                let all = BTreeSet::from([expected.to_owned()]);
                // Within the interval and a second, which a busy machine cannot be held to.
                until(&format!("{action} on {index} is followed"), async || self.versions().await == all)
                    .await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_on_a_directory_agree_soon_after_each_change() {
    let directory = tempfile::tempdir().unwrap();
    Replicas::start(&path(&directory, "models"), &[]).await.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_on_a_bucket_agree_soon_after_each_change() {
    let Some(bucket) = Bucket::new().await else { return };
    Replicas::start(&bucket.url, &bucket.variables).await.agree().await;
}

#[test]
fn a_command_names_the_repository_or_the_server() {
    let output = run(&["list"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("say where the models are"));
}
