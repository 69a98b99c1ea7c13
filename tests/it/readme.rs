//! The walk through in the README, line by line.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use tokio::task::block_in_place;

use crate::command::{path, run};
use crate::support::app::TestApp;
use crate::support::checkpoint::TinyCheckpoint;
use crate::support::runtime;

/// The lines of the first block of commands below a heading.
fn commands(heading: &str) -> Vec<&'static str> {
    let (_, section) = include_str!("../../README.md").split_once(heading).unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    block.split_once("```").unwrap().0.lines().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn int8_beside_fp32_as_a_canary_promoted_and_rolled_back() {
    let directory = tempfile::tempdir().unwrap();
    TinyCheckpoint::bert().write(&directory.path().join("checkpoint"));
    let (checkpoint, models) = (path(&directory, "checkpoint"), path(&directory, "models"));
    assert!(run(&["import", &checkpoint, "--models", &models, "--name", "mine"]).status.success());
    let app = TestApp::repository(Path::new(&models)).await;
    let ask = async |user: u32| {
        let body = json!({ "model": "mine", "input": "the red house", "user": format!("{user}") });
        let answer = app.post("/v1/embeddings", body).await;
        assert_eq!(answer.status, 200);
        answer.header("x-sextant-version").to_owned()
    };
    let binaries = Path::new(env!("CARGO_BIN_EXE_sextant")).parent().unwrap().to_str().unwrap();
    let searched = format!("{binaries}:{}", std::env::var("PATH").unwrap());
    // What each line prints, and which versions answer after it.
    let expected = [
        ("export SEXTANT_SERVER=http://127.0.0.1:8080 ", "", &["mine@1"][..]),
        ("sextant import ", "imported mine@2: int8", &["mine@1"]),
        ("sextant rollout ", "mine@2, which answers 10 % of its requests", &["mine@1", "mine@2"]),
        ("sextant list ", "canary 10 %", &["mine@1", "mine@2"]),
        ("curl ", "\"least_cosine\":", &["mine@1", "mine@2"]),
        ("sextant promote ", "mine@2 is the version that serves", &["mine@2"]),
        ("sextant rollback ", "mine@1 is the version that serves", &["mine@1"]),
        ("sextant history ", "the search team saw worse answers", &["mine@1"]),
    ];
    let space = app.get("/admin/v1/models/mine").await.json()["serving"]["versions"][0]["space"].clone();
    TinyCheckpoint { seed: 77, ..TinyCheckpoint::bert() }.write(&directory.path().join("another"));
    let anew = [
        ("sextant import another ", "imported mine@3: fp32", &["mine@1"][..]),
        ("sextant rollout mine@3 --standby ", "mine@3 is on standby", &["mine@1"]),
        ("curl ", "\"model\":\"mine@3\"", &["mine@1"]),
        ("sextant rollout mine@3 --force ", "the space changes from", &["mine@3"]),
    ];
    let lines = commands("### Which version serves").into_iter().chain(commands("### To a new space"));
    let (lines, expected) = (lines.collect::<Vec<_>>(), [&expected[..], &anew].concat());
    assert_eq!(lines.len(), expected.len());
    for (line, (begins, prints, answers)) in lines.into_iter().zip(expected) {
        assert!(line.starts_with(begins), "{line}");
        if line.contains("mine@3") && line.starts_with("sextant rollout") {
            let by_name = app.post("/v1/embeddings", json!({ "model": "mine@3", "input": "a" })).await;
            let expected = if line.contains("--standby") { 404 } else { 200 };
            assert_eq!(by_name.status, expected, "before {line}");
        }
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(&directory).env("PATH", &searched);
        shell.env("SEXTANT_SERVER", app.url("")).env_remove("SEXTANT_MODELS");
        shell.env("ORT_DYLIB_PATH", runtime().path().canonicalize().unwrap());
        let output = block_in_place(|| shell.output().unwrap());
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success() && text.contains(prints), "{line}: {text}");
        let mut seen = std::collections::BTreeSet::new();
        for user in 0..100 {
            seen.insert(ask(user).await);
        }
        assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), answers, "after {line}");
    }
    // Clients of the old index go on.
    let header = [("x-sextant-space".parse().unwrap(), space.as_str().unwrap().parse().unwrap())];
    let body = json!({ "model": "mine", "input": "the red house" }).to_string().into_bytes();
    let old = app.send("POST", "/v1/embeddings", header.into_iter().collect(), body).await;
    assert_eq!((old.status, old.header("x-sextant-version")), (200, "mine@1"));
}
