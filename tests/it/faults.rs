//! Disks that are full and files that cannot be read: a clear error, and everything as it was.

mod disk;
mod serving;

use std::fs;
use std::process::{Command, Output};

use serde_json::json;

use crate::command::{imported, path, run, sextant};
use crate::support::app::TestApp;

/// A command in which no file can be longer than some blocks of 512 bytes: the system refuses the rest of a write, as a full disk
/// does.
fn with_full_disk(blocks: u32, arguments: &[&str]) -> Command {
    let own = sextant(arguments);
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(own.get_program()).args(own.get_args());
    for (name, value) in own.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn run_with_full_disk(blocks: u32, arguments: &[&str]) -> Output {
    with_full_disk(blocks, arguments).output().unwrap()
}

/// The sentence of a failure.
fn told(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text.lines().find(|line| line.starts_with("error: ")).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_leaves_no_half_version_and_no_half_document() {
    let directory = imported();
    let (checkpoint, models) = (path(&directory, "checkpoint"), path(&directory, "models"));
    let import =
        ["import", &checkpoint, "--models", &models, "--name", "tiny", "--activate", "--reason", "x"];
    let listed = || String::from_utf8(run(&["list", "--models", &models]).stdout).unwrap();
    let before = listed();
    for blocks in [0, 1, 8, 32] {
        let error = told(&run_with_full_disk(blocks, &import));
        assert!(error.contains("File too large"), "{blocks}: {error}");
        assert_eq!(listed(), before, "{blocks}");
    }
    assert!(run(&import[..6]).status.success(), "with room it works");
    let rollout = ["rollout", "tiny@2", "--models", &models, "--reason", "x"];
    let all = listed();
    let error = told(&run_with_full_disk(0, &rollout));
    assert!(error.contains("File too large") && error.contains("00000002.json"), "{error}");
    assert_eq!(listed(), all);
    assert!(run(&rollout).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_is_named_and_the_stable_version_serves_on() {
    let directory = imported();
    let (checkpoint, models) = (path(&directory, "checkpoint"), path(&directory, "models"));
    assert!(run(&["import", &checkpoint, "--models", &models, "--name", "tiny"]).status.success());
    let app = TestApp::repository(&directory.path().join("models")).await;
    for name in ["model.onnx", "tokenizer.json", "probe.jsonl"] {
        let file = directory.path().join("models/tiny/versions/2").join(name);
        let whole = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        // Not by its mode: the tests may run as a user who can read everything.
        fs::create_dir(&file).unwrap();
        let answer = app.post("/admin/v1/models/tiny/rollout", json!({ "version": 2, "reason": "x" })).await;
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(answer.status == 409 && message.contains(name), "{}: {message}", answer.status);
        let answer = app.post("/v1/embeddings", json!({ "model": "tiny", "input": "a" })).await;
        assert_eq!((answer.status, answer.header("x-sextant-version")), (200, "tiny@1"));
        fs::remove_dir(&file).unwrap();
        fs::write(&file, whole).unwrap();
    }
    let answer = app.post("/admin/v1/models/tiny/rollout", json!({ "version": 2, "reason": "x" })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}
