//! Processes that are killed in the middle of anything leave a repository that opens, and a version that serves.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::json;
use sextant::rollout::{Log, State};

use crate::command::{imported, path, sextant};
use crate::support;
use crate::support::app::TestApp;

const KILLS: usize = 200;

/// 200 processes, each killed at a moment that is drawn: imports that roll out what they made, rollouts, rollbacks, and servers that
/// load. After each the repository is looked at as the next process would.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_the_repository_opens_and_the_stable_version_is_whole() {
    let directory = imported();
    let (checkpoint, models) = (path(&directory, "checkpoint"), path(&directory, "models"));
    let repository = support::open(directory.path().join("models").as_path());
    let start = |arguments: &[&str]| -> Child {
        let mut command = sextant(arguments);
        command.args(["--models", &models]).env("SEXTANT_CACHE_DIR", path(&directory, "cache"));
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let import = ["import", &checkpoint, "--name", "tiny", "--activate", "--reason", "x"];
    let serve = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--sessions",
        "1",
        "--max-batch-tokens",
        "64",
        "--lone-threads",
        "0",
    ];
    let (mut killed, mut versions, mut state) = (0, BTreeSet::from([1]), None);
    let mut changes = 0;
    // The moment is drawn from so many milliseconds, which follow the machine: half of the processes should end before they are killed.
    let mut longest = [1500.0, 40.0, 40.0, 1500.0];
    for round in 0..KILLS {
        let listed = repository.versions("tiny").await.unwrap();
        let target = format!("tiny@{}", fastrand::choice(&listed).unwrap());
        let kind = round % longest.len();
        let mut child = match kind {
            0 => start(&import),
            1 => start(&["rollout", &target, "--reason", "x"]),
            2 => start(&["rollback", "tiny", "--to", target.split_once('@').unwrap().1, "--reason", "x"]),
            _ => start(&serve),
        };
        tokio::time::sleep(Duration::from_secs_f64(fastrand::f64() * longest[kind] / 1000.0)).await;
        let is_killed = child.try_wait().unwrap().is_none();
        killed += usize::from(is_killed);
        // A server never ends by itself.
        if kind != 3 {
            longest[kind] *= if is_killed { 1.2 } else { 1.0 / 1.2 };
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let now: BTreeSet<u32> = repository.versions("tiny").await.unwrap().into_iter().collect();
        assert!(now.is_superset(&versions), "a version is gone");
        for new in now.difference(&versions) {
            // Every digest is checked.
            let manifest = repository.manifest("tiny", *new).await.unwrap();
            repository.fetch(&manifest).await.unwrap();
        }
        versions = now;
        let seen = Log::open(&repository, "tiny").unwrap().current().await.unwrap();
        assert_eq!(seen.damaged, [], "round {round}");
        let State::Known(roles) = seen.state() else { panic!("nothing serves") };
        assert!(roles.versions().all(|version| versions.contains(&version)), "{roles:?}");
        changes += usize::from(state.replace(roles.clone()) != Some(roles));
    }
    assert!(killed > KILLS / 4, "only {killed} of {KILLS} were killed before they ended");
    assert!(versions.len() > 3 && changes > 10, "{} versions, {changes} changes", versions.len());

    // Gaps in the numbers are what half versions leave, and nothing else is listed.
    let app = TestApp::repository(directory.path().join("models").as_path()).await;
    let answer = app.post("/v1/embeddings", json!({ "model": "tiny", "input": "a" })).await;
    let stable = format!("tiny@{}", state.unwrap().stable);
    assert_eq!((answer.status, answer.header("x-sextant-version")), (200, stable.as_str()));
}
