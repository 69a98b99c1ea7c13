//! Many operators at once: one linear log.

use std::collections::HashMap;
use std::env;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use sextant::rollout::{Change, Log, Refusal, RolloutError, Signature};

use super::rollout;
use crate::repository::Models;
use crate::support;

const PROCESSES: usize = 8;
const CHANGES: usize = 125;
const VERSIONS: u32 = 4;
/// Which of the processes this is, and the repository.
const VARIABLE: &str = "SEXTANT_TEST_CHANGES";

/// 1,000 changes that contradict each other, from 8 processes: every one has a number of its own, was decided on the one before
/// it, and is there at the end as its writer was told.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_conflicting_changes_make_one_log() {
    let models = Models::new();
    models.publish_in("aaaa").await;
    let worker = |index| {
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "rollout::processes::one_of_the_processes", "--ignored", "--nocapture"])
            .env(VARIABLE, format!("{index}:{}", models.directory.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let workers: Vec<_> = (0..PROCESSES).map(worker).collect();
    // What each was told: its change by name, and the number it got.
    let mut told = HashMap::new();
    for worker in workers {
        let output = worker.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter_map(|line| line.split_once("wrote ")?.1.split_once(" as "));
        told.extend(lines.map(|(reason, number)| (reason.to_owned(), number.parse::<u64>().unwrap())));
    }
    assert_eq!(told.len(), PROCESSES * CHANGES);

    let log = Log::open(&models.repository, "m").unwrap();
    let history = log.history().await.unwrap();
    assert_eq!(history.len(), PROCESSES * CHANGES);
    let mut before = None;
    for (document, number) in history.into_iter().map(Result::unwrap).zip(1..) {
        assert_eq!(document.number, number, "no gap");
        assert_eq!(document.from, before.map(|(number, _)| number), "one line");
        if let Change::Rollout { .. } = document.change {
            assert_eq!(document.previous, before.map(|(_, stable)| stable));
        }
        assert_eq!(told.remove(&document.reason), Some(number), "nobody was told what is not so");
        before = Some((number, document.stable));
    }
    assert!(told.is_empty());
}

/// Rolls out one version after the other and back, whatever the others do.
#[tokio::test]
#[ignore = "one of the processes of the test above, which starts it"]
async fn one_of_the_processes() {
    let given = env::var(VARIABLE).unwrap();
    let (index, directory) = given.split_once(':').unwrap();
    let repository = support::open(Path::new(directory));
    let log = Log::open(&repository, "m").unwrap();
    let (mut written, mut asked) = (0, index.parse::<u32>().unwrap());
    while written < CHANGES {
        asked += 1;
        let change = if asked % 5 == 0 {
            Change::Rollback { of: None, to: None }
        } else {
            rollout(asked % VERSIONS + 1)
        };
        let reason = format!("{index}-{written}");
        let signature =
            Signature { by: index, at: "2026-01-01T00:00:00Z", reason: &reason, ..Signature::default() };
        match log.change(change, signature).await {
            Ok(rollout) => {
                // Not `println!`, which the test harness would keep to itself.
                writeln!(std::io::stdout(), "wrote {reason} as {}", rollout.number).unwrap();
                written += 1;
            }
            Err(RolloutError::Refused { refusal, .. }) => assert!(
                matches!(
                    refusal,
                    Refusal::AlreadyStable { .. }
                        | Refusal::NoPrevious { .. }
                        | Refusal::NothingServes
                        | Refusal::Overtaken
                ),
                "{refusal}"
            ),
            Err(error) => panic!("{error}"),
        }
    }
}
