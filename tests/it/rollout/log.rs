//! What the log makes of its documents, good and damaged.

use std::fs;

use futures_util::future::join_all;
use sextant::rollout::state::Refusal;
use sextant::rollout::{Change, Later, Log, Roles, RolloutError, Seen, Signature, State, Trial};

use super::{SIGNATURE, begin, rollout};
use crate::repository::Models;

const BACK: Change = Change::Rollback { of: None, to: None };

/// Writes a document by hand.
fn write(models: &Models, name: &str, text: &str) {
    fs::create_dir_all(models.path("m/rollouts")).unwrap();
    fs::write(models.path("m/rollouts").join(name), text).unwrap();
}

fn known(stable: u32, previous: Option<u32>) -> State {
    State::Known(Roles { stable, previous, trial: None, ..Roles::alone(1) })
}

#[tokio::test]
async fn changes_are_numbered_and_say_what_they_were_decided_on() {
    let models = Models::new();
    models.publish_in("aab").await;
    let log = Log::open(&models.repository, "m").unwrap();
    assert_eq!(log.current().await.unwrap().state(), State::Empty);
    assert_eq!(log.decide(&rollout(1), SIGNATURE).await.unwrap().number, 1);
    assert!(!models.path("m/rollouts").exists(), "deciding writes nothing");
    let forced = Change::Rollout { version: 3, force: true };
    for (change, state) in [
        (rollout(1), known(1, None)),
        (rollout(2), known(2, Some(1))),
        (forced, known(3, Some(2))),
        (BACK, known(2, None)),
    ] {
        log.change(change, SIGNATURE).await.unwrap();
        assert_eq!(log.current().await.unwrap().state(), state);
    }
    let history: Vec<_> = log.history().await.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(
        history.iter().map(|one| (one.number, one.from)).collect::<Vec<_>>(),
        [(1, None), (2, Some(1)), (3, Some(2)), (4, Some(3))]
    );
    let crossed = |number: usize| history[number - 1].crossed.as_ref().map(|crossing| crossing.to.0.clone());
    assert_eq!(
        [1, 2, 3, 4].map(crossed),
        [None, None, Some("b123456789abcdef".to_owned()), Some("a123456789abcdef".to_owned())]
    );
    assert_eq!((history[3].by.as_str(), history[3].reason.as_str()), ("me", "a test"));
}

#[tokio::test]
async fn a_later_look_finds_what_is_new_or_gone_or_another_of_the_same_number() {
    let models = Models::new();
    models.publish_in("aa").await;
    let log = Log::open(&models.repository, "m").unwrap();
    assert!(matches!(log.after(&Seen::nothing()).await.unwrap(), Later::Nothing));
    let newest = async |known: &Seen| match log.after(known).await.unwrap() {
        Later::More(seen) => seen.good.unwrap(),
        other => panic!("{other:?}"),
    };
    let first = log.change(rollout(1), SIGNATURE).await.unwrap();
    assert_eq!(newest(&Seen::nothing()).await, first);
    let one = log.current().await.unwrap();
    assert!(matches!(log.after(&one).await.unwrap(), Later::Nothing));
    let second = log.change(rollout(2), SIGNATURE).await.unwrap();
    assert_eq!(newest(&one).await, second);

    let two = log.current().await.unwrap();
    let file = models.path("m/rollouts/00000002.json");
    fs::remove_file(&file).unwrap();
    let Later::Shorter(now) = log.after(&two).await.unwrap() else { panic!() };
    assert_eq!(now, one);
    let again = log.change(rollout(2), SIGNATURE).await.unwrap();
    assert_eq!((again.number, again.id == second.id), (2, false));
    assert_eq!(newest(&two).await, again);
    // Above the lost one as well, while that is still what is known.
    assert_eq!(newest(&two).await.number, 2);
    fs::remove_dir_all(models.path("m/rollouts")).unwrap();
    let Later::Shorter(now) = log.after(&two).await.unwrap() else { panic!() };
    assert_eq!(now.state(), State::Empty);
}

#[tokio::test]
async fn nothing_is_decided_above_a_document_of_a_newer_server() {
    let models = Models::new();
    models.publish_in("aa").await;
    let log = Log::open(&models.repository, "m").unwrap();
    log.change(rollout(1), SIGNATURE).await.unwrap();
    write(&models, "00000002.json", "{\"schema\": 3, \"serves\": [2]}");
    assert_eq!(log.current().await.unwrap().state(), known(1, None));
    for change in [rollout(2), BACK] {
        let error = log.change(change, SIGNATURE).await.unwrap_err();
        assert!(matches!(error, RolloutError::Newer(_)), "{error}");
        assert!(error.to_string().contains("written by a newer sextant: schema 3"), "{error}");
    }
    assert!(!models.path("m/rollouts/00000003.json").exists());
}

#[tokio::test]
async fn a_refusal_is_typed_and_writes_nothing() {
    let models = Models::new();
    models.publish_in("ab").await;
    let log = Log::open(&models.repository, "m").unwrap();
    log.change(rollout(1), SIGNATURE).await.unwrap();
    let refusal = async |change| match log.change(change, SIGNATURE).await.unwrap_err() {
        RolloutError::Refused { model, refusal } if model == "m" => refusal,
        error => panic!("{error}"),
    };
    assert!(matches!(refusal(rollout(2)).await, Refusal::SpaceConflict { version: 2, stable: 1, .. }));
    assert_eq!(refusal(rollout(3)).await, Refusal::UnknownVersion { version: 3, published: vec![1, 2] });
    assert_eq!(refusal(BACK).await, Refusal::NoPrevious { published: vec![1, 2] });
    // A manifest that cannot be read is no ground for a change.
    let manifest = models.path("m/versions/2/manifest.toml");
    fs::write(&manifest, fs::read_to_string(&manifest).unwrap().replace("dimensions = 8", "dimensions = 0"))
        .unwrap();
    let Refusal::Damaged { version: 2, reason } = refusal(rollout(2)).await else { panic!() };
    assert!(reason.contains("its SHA-256 is"), "{reason}");
    assert_eq!(log.current().await.unwrap().last, 1);
    assert!(Log::open(&models.repository, "../m").is_err());
}

#[tokio::test]
async fn only_names_as_they_are_written_are_documents() {
    let models = Models::new();
    models.publish_in("aa").await;
    let log = Log::open(&models.repository, "m").unwrap();
    log.change(rollout(1), SIGNATURE).await.unwrap();
    let text = fs::read_to_string(models.path("m/rollouts/00000001.json")).unwrap();
    for name in
        ["+7.json", "7.json", "000000007.json", "100000000.json", "00000007.json#1", "00000007", "x.json"]
    {
        write(&models, name, &text);
    }
    write(&models, "00000007.json.bak", &text);
    fs::create_dir(models.path("m/rollouts/old")).unwrap();
    fs::write(models.path("m/rollouts/old/00000009.json"), &text).unwrap();
    assert_eq!(log.current().await.unwrap().last, 1);
    assert_eq!(log.change(rollout(2), SIGNATURE).await.unwrap().number, 2);
}

#[tokio::test]
async fn a_damaged_document_is_named_and_the_log_goes_on_above_it() {
    let models = Models::new();
    models.publish_in("aaab").await;
    let log = Log::open(&models.repository, "m").unwrap();
    for version in [1, 2] {
        log.change(rollout(version), SIGNATURE).await.unwrap();
    }
    let second = fs::read_to_string(models.path("m/rollouts/00000002.json")).unwrap();
    let edited = |from, to| second.replace("\"number\": 2", "\"number\": 3").replace(from, to);
    for (text, reason) in [
        (String::new(), "EOF"),
        (second[..second.len() / 2].to_owned(), "EOF"),
        (second.clone(), "it says that it is number 2"),
        (edited("\"from\": 1", "\"from\": 3"), "decided on document 3"),
        (edited("\"stable\": 2", "\"stable\": 3"), "does not lead to stable 3"),
        (edited("\"schema\": 1", "\"schema\": \"9\""), "invalid type"),
    ] {
        write(&models, "00000003.json", &text);
        let seen = log.current().await.unwrap();
        assert_eq!(seen.state(), known(2, Some(1)), "the good one below it counts");
        assert_eq!((seen.last, seen.damaged.len()), (3, 1));
        let damaged = seen.damaged[0].to_string();
        assert!(damaged.contains("m/rollouts/00000003.json") && damaged.contains(reason), "{damaged}");
    }
    let written = log.change(rollout(3), SIGNATURE).await.unwrap();
    assert_eq!((written.number, written.from, written.previous), (4, Some(2), Some(2)));
    let seen = log.current().await.unwrap();
    assert_eq!((seen.state(), seen.damaged.len()), (known(3, Some(2)), 0));
    let history = log.history().await.unwrap();
    assert_eq!(history.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false, true]);
}

#[tokio::test]
async fn a_log_of_which_nothing_can_be_read_goes_on_by_force() {
    let models = Models::new();
    models.publish_in("a").await;
    let log = Log::open(&models.repository, "m").unwrap();
    write(&models, "00000005.json", "{}");
    assert_eq!(log.current().await.unwrap().state(), State::Lost);
    for change in [Change::Begin { version: 1 }, rollout(1), BACK] {
        assert!(
            matches!(log.change(change.clone(), SIGNATURE).await, Err(RolloutError::Refused { .. })),
            "{change}"
        );
    }
    let written = log.change(Change::Rollout { version: 1, force: true }, SIGNATURE).await.unwrap();
    assert_eq!((written.number, written.from), (6, None));
    assert!(written.crossed.is_some());
}

#[tokio::test]
async fn documents_from_before_there_was_a_schema_are_the_state_too() {
    let models = Models::new();
    models.publish_in("aab").await;
    let text = |number, stable, previous| {
        format!(
            "{{\"number\": {number}, \"stable\": {stable}, {previous} \"by\": \"root\", \"at\": \"2026-01-01T00:00:00Z\", \
             \"reason\": \"import\"}}"
        )
    };
    write(&models, "00000001.json", &text(1, 1, ""));
    write(&models, "00000002.json", &text(2, 2, "\"previous\": 1,"));
    let log = Log::open(&models.repository, "m").unwrap();
    assert_eq!(log.current().await.unwrap().state(), known(2, Some(1)));
    assert!(log.change(rollout(3), SIGNATURE).await.is_err(), "of another space");
    let back = log.change(BACK, SIGNATURE).await.unwrap();
    assert_eq!((back.number, back.stable, back.from), (3, 1, Some(2)));
}

#[tokio::test]
async fn what_has_the_next_documents_name_and_is_none_ends_the_change() {
    let models = Models::new();
    models.publish_in("a").await;
    let log = Log::open(&models.repository, "m").unwrap();
    fs::create_dir_all(models.path("m/rollouts/00000001.json")).unwrap();
    let error = log.change(rollout(1), SIGNATURE).await.unwrap_err();
    assert!(matches!(error, RolloutError::Blocked { .. }), "{error}");
    assert!(error.to_string().contains("m/rollouts/00000001.json"), "{error}");
}

#[tokio::test]
async fn numbers_end() {
    let models = Models::new();
    models.publish_in("a").await;
    write(&models, "99999999.json", "{}");
    let log = Log::open(&models.repository, "m").unwrap();
    let error = log.change(Change::Rollout { version: 1, force: true }, SIGNATURE).await.unwrap_err();
    assert!(matches!(error, RolloutError::NoNumberLeft(_)), "{error}");
}

/// Whoever loses the race decides on what the winner made of the model.
#[tokio::test(flavor = "multi_thread")]
async fn of_changes_at_once_each_is_decided_on_the_one_before_it() {
    let models = Models::new();
    models.publish_in("aaaa").await;
    let log = Log::open(&models.repository, "m").unwrap();
    let begun = join_all((1..=4).map(|version| log.change(Change::Begin { version }, SIGNATURE))).await;
    assert_eq!(begun.iter().filter(|one| one.is_ok()).count(), 1, "one is the first");
    let first = log.current().await.unwrap().good.unwrap().stable;
    let others: Vec<u32> = (1..=4).filter(|version| *version != first).collect();
    let same = join_all([0; 8].map(|_| log.change(rollout(others[0]), SIGNATURE))).await;
    assert_eq!(same.iter().filter(|one| one.is_ok()).count(), 1, "one makes it stable, and then it is");
    let back = join_all([0; 8].map(|_| log.change(BACK, SIGNATURE))).await;
    assert_eq!(back.iter().filter(|one| one.is_ok()).count(), 1, "nobody rolls back what is rolled back");
    assert_eq!(log.current().await.unwrap().state(), known(first, None));
    assert_eq!(log.history().await.unwrap().len(), 3);
}

#[tokio::test]
async fn whoever_has_not_seen_that_a_trial_was_ended_does_not_take_back_the_stable_version() {
    let models = Models::new();
    models.publish_in("aaa").await;
    begin(&models.repository, "m", 1).await;
    let log = Log::open(&models.repository, "m").unwrap();
    log.change(rollout(2), SIGNATURE).await.unwrap();
    let trial = Trial { version: 3, canary_percent: 10.try_into().ok(), shadow_percent: None };
    log.change(Change::Trial(trial), SIGNATURE).await.unwrap();
    let guard = Signature { by: "guard", ..SIGNATURE };
    let ended = log.change(Change::Rollback { of: Some(3), to: None }, guard).await.unwrap();
    assert_eq!(ended.roles(), Roles { stable: 2, previous: Some(1), trial: None, ..Roles::alone(1) });
    let refused = log.change(BACK, SIGNATURE).await.unwrap_err().to_string();
    assert!(
        refused.contains("ended by guard in the last change; to take back version 2 as well"),
        "{refused}"
    );
    // Names and standbys say nothing of it.
    let alias = Change::Alias { name: "org/m".to_owned(), remove: false };
    for change in [alias, Change::Standby { version: 3 }, Change::Retire { version: 3 }] {
        log.change(change, SIGNATURE).await.unwrap();
        let refused = log.change(BACK, SIGNATURE).await.unwrap_err().to_string();
        assert!(refused.contains("ended by guard"), "{refused}");
    }
    let named = log.change(Change::Rollback { of: Some(2), to: None }, SIGNATURE).await.unwrap();
    assert_eq!(named.roles(), Roles { aliases: vec!["org/m".to_owned()], ..Roles::alone(1) });
}
