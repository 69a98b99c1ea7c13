//! The command on a bucket: imported into and served from it, in processes of their own that share a cache.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::cache::names;
use crate::command::{Server, path, sextant};
use crate::support::app::{TestApp, client, until};
use crate::support::checkpoint::TinyCheckpoint;
use crate::support::s3::{Bucket, Fault};
use crate::support::{distance, floats};

/// What ends with one sentence, which is this.
fn failure(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{text}");
    errors[0].to_owned()
}

/// A directory with the checkpoint of the model `tiny`.
fn checkpoint() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    TinyCheckpoint::bert().write(&directory.path().join("checkpoint"));
    directory
}

/// Imports the checkpoint into `models`.
fn import(directory: &TempDir, models: &str, bucket: &Bucket) {
    let checkpoint = path(directory, "checkpoint");
    let mut import = sextant(&["import", &checkpoint, "--models", models, "--name", "tiny"]);
    let output = import.envs(bucket.variables.clone()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A server of the bucket's models with that cache. It blocks until the server serves, so the door needs another thread.
async fn serve(bucket: &Bucket, cache: &TempDir) -> Server {
    let mut command = sextant(&["serve", "--models", &bucket.url]);
    command.envs(bucket.variables.clone()).args(["--cache-dir", cache.path().to_str().unwrap()]);
    tokio::task::spawn_blocking(|| Server::start_command(command)).await.unwrap()
}

async fn vector(url: &str) -> (String, Vec<f32>) {
    let body = json!({ "model": "tiny", "input": "the red house" });
    let request = client().post(format!("{url}/v1/embeddings")).header("content-type", "application/json");
    let answer = request.body(body.to_string()).send().await.unwrap();
    let version = answer.headers()["x-sextant-version"].to_str().unwrap().to_owned();
    let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    (version, floats(&answer["data"][0]["embedding"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_into_a_bucket_is_served_by_two_processes_with_one_cache() {
    let Some(bucket) = Bucket::new().await else { return };
    let (directory, cache) = (checkpoint(), tempfile::tempdir().unwrap());
    import(&directory, &bucket.url, &bucket);
    let models = path(&directory, "models");
    import(&directory, &models, &bucket);
    let local = TestApp::repository(models.as_ref()).await;
    let (_, expected) = vector(&local.url("")).await;
    let (left, right) = tokio::join!(serve(&bucket, &cache), serve(&bucket, &cache));
    for server in [&left, &right] {
        let (version, found) = vector(&format!("http://{}", server.address)).await;
        assert_eq!(version, "tiny@1");
        assert!(distance(&found, &expected) <= 1e-6);
    }
    assert_eq!(bucket.seen("GET", "/tokenizer.json"), 1, "one fetched it for both");

    // While one of them has it loaded, nobody takes it away, whatever the bound.
    drop(left);
    let repository = bucket.bounded(&cache, 0);
    import(&directory, &bucket.url, &bucket);
    let second = repository.manifest("tiny", 2).await.unwrap();
    repository.fetch(&second).await.unwrap();
    let names_of = |version: &str| names(&cache).iter().filter(|name| name.starts_with(version)).count();
    assert_eq!((names_of("tiny@1-"), names_of("tiny@2-")), (1, 1));
    drop(right);
    import(&directory, &bucket.url, &bucket);
    repository.fetch(&repository.manifest("tiny", 3).await.unwrap()).await.unwrap();
    assert_eq!((names_of("tiny@1-"), names_of("tiny@3-")), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_while_it_fetches_leaves_nothing_that_hinders() {
    let Some(bucket) = Bucket::new().await else { return };
    let (directory, cache) = (checkpoint(), tempfile::tempdir().unwrap());
    import(&directory, &bucket.url, &bucket);
    bucket.fault("/model.onnx.data", [Fault::Hold(Arc::new(Semaphore::new(0)))]);
    let mut command = sextant(&["serve", "--models", &bucket.url, "--listen", "127.0.0.1:0"]);
    command.envs(bucket.variables.clone()).args(["--cache-dir", cache.path().to_str().unwrap()]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("it fetches", async || bucket.seen("GET", "/model.onnx.data") > 0).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(names(&cache)[0].starts_with(".incoming-tiny@1-"), "{:?}", names(&cache));
    let server = serve(&bucket, &cache).await;
    assert_eq!(vector(&format!("http://{}", server.address)).await.0, "tiny@1");
    assert!(names(&cache).len() == 1 && names(&cache)[0].starts_with("tiny@1-"), "{:?}", names(&cache));
}

#[tokio::test(flavor = "multi_thread")]
async fn evaluate_takes_its_version_from_a_bucket() {
    let Some(bucket) = Bucket::new().await else { return };
    let (directory, cache) = (checkpoint(), tempfile::tempdir().unwrap());
    import(&directory, &bucket.url, &bucket);
    let pairs = path(&directory, "pairs.csv");
    fs::write(&pairs, "a cat,a cat,5\na cat,a dog,3\nthe red house,over a river,0\n").unwrap();
    let mut evaluate = sextant(&["evaluate", "tiny@1", "--models", &bucket.url, "--sts", &pairs, "--json"]);
    evaluate.envs(bucket.variables.clone()).env("SEXTANT_CACHE_DIR", cache.path());
    let output = evaluate.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(figures["figures"][0]["items"], 3);
    assert!(names(&cache)[0].starts_with("tiny@1-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_that_cannot_be_used_are_told_by_their_url() {
    let Some(bucket) = Bucket::new().await else { return };
    let (directory, nowhere) = (checkpoint(), "s3://no-such-bucket/models");
    let (checkpoint, pairs) = (path(&directory, "checkpoint"), path(&directory, "pairs.csv"));
    fs::write(&pairs, "a cat,a dog,3\na cat,a cat,5\n").unwrap();
    let commands: [&[&str]; 3] = [
        &["serve", "--listen", "127.0.0.1:0"],
        &["import", &checkpoint, "--name", "tiny"],
        &["evaluate", "tiny@1", "--sts", &pairs],
    ];
    for command in commands {
        let text = failure(sextant(command).args(["--models", nowhere]).envs(bucket.variables.clone()));
        assert!(
            text.starts_with(&format!("error: there is no bucket at `{nowhere}`: NoSuchBucket")),
            "{text}"
        );
    }
    // Nothing answers where the machine's credentials would be.
    let mut serve = sextant(commands[0]);
    serve.args(["--models", nowhere]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        serve.env_remove(name);
    }
    let text = failure(serve.env("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9").env("NO_PROXY", "127.0.0.1"));
    assert!(text.starts_with(&format!("error: there are no credentials for `{nowhere}`")), "{text}");
    assert!(text.contains("AWS_ACCESS_KEY_ID"), "{text}");
    // Nor at the endpoint.
    serve.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").env("AWS_ALLOW_HTTP", "true");
    let text = failure(serve.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9"));
    assert!(text.starts_with(&format!("error: the repository at `{nowhere}` failed")), "{text}");
    assert!(text.ends_with("(os error 111)"), "{text}");
    // Half of them.
    serve.env_remove("AWS_SECRET_ACCESS_KEY");
    let text = failure(&mut serve);
    assert!(text.contains(nowhere), "{text}");
    let text = failure(sextant(commands[0]).args(["--models", "s3://key:hush@bucket/models"]));
    assert!(text.contains("expected s3://bucket/prefix") && !text.contains("hush"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_fails_leaves_the_bucket_as_it_was() {
    let Some(bucket) = Bucket::new().await else { return };
    let directory = checkpoint();
    fs::write(path(&directory, "checkpoint/config.json"), "{}").unwrap();
    let checkpoint = path(&directory, "checkpoint");
    let import = ["import", &checkpoint, "--models", &bucket.url, "--name", "tiny"];
    failure(sextant(&import).envs(bucket.variables.clone()));
    assert!(bucket.seen("PUT", "") > 0, "it was tried");
    assert!(bucket.is_empty().await);
    // A store on which two imports would get one number is refused before any work.
    bucket.forget_conditions();
    let text = failure(sextant(&import).envs(bucket.variables.clone()));
    assert!(text.contains(&bucket.url) && text.contains("If-None-Match"), "{text}");
    assert!(bucket.is_empty().await);
}
