//! `list`, `history`, `rollout` and `rollback` on a repository.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::command::{failure, run, sextant};
use crate::repository::Models;

/// Runs a command on these models.
fn on(models: &Models, arguments: &[&str]) -> Output {
    run(&[arguments, &["--models", models.directory.path().to_str().unwrap()]].concat())
}

/// What it prints.
fn printed(models: &Models, arguments: &[&str]) -> String {
    let output = on(models, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn printed_json(models: &Models, arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(models, &[arguments, &["--json"]].concat())).unwrap()
}

/// The one sentence that it ends with.
fn refused(models: &Models, arguments: &[&str]) -> String {
    let (code, text) =
        failure(sextant(arguments).args(["--models", models.directory.path().to_str().unwrap()]));
    assert_eq!(code, 1, "{text}");
    assert!(text.starts_with("error: ") && text.trim_end().lines().count() == 1, "{text}");
    text
}

fn documents(models: &Models) -> usize {
    fs::read_dir(models.path("m/rollouts")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn a_version_is_rolled_out_and_taken_back_and_all_of_it_is_told() {
    let models = Models::new();
    models.publish_in("aab").await;
    let why = ["--reason", "a test", "--by", "ada"];
    let text = printed(&models, &[&["rollout", "m@1"], &why[..]].concat());
    assert_eq!(
        text,
        "m@1 is the version that serves (rollout 1)\nit is written; servers check it and follow within their sync interval\n"
    );
    let tried = printed_json(&models, &[&["rollout", "m@2", "--dry-run"], &why[..]].concat());
    assert_eq!((&tried["written"], &tried["rollout"]["stable"]), (&json!(false), &json!(2)));
    assert_eq!(documents(&models), 1, "a dry run writes nothing");
    let text = printed(&models, &[&["rollout", "m@2"], &why[..]].concat());
    assert!(text.contains("m@1 stays at hand as the previous one"), "{text}");

    let text = refused(&models, &[&["rollout", "m@3"], &why[..]].concat());
    assert!(text.contains("b123456789abcdef") && text.contains("a123456789abcdef"), "{text}");
    assert_eq!(documents(&models), 2);
    let text = printed(&models, &[&["rollout", "m@3", "--force"], &why[..]].concat());
    assert!(text.contains("the space changes from a123456789abcdef to b123456789abcdef"), "{text}");

    let back = printed_json(&models, &[&["rollback", "m"], &why[..]].concat());
    assert_eq!((&back["written"], &back["rollout"]["stable"]), (&json!(true), &json!(2)));
    assert_eq!(back["rollout"]["crossed"]["to"], "a123456789abcdef");
    let text = refused(&models, &[&["rollback", "m"], &why[..]].concat());
    assert!(text.contains("name the version; there are: 1, 2, 3"), "{text}");
    let text = printed(&models, &[&["rollback", "m", "--to", "1", "--dry-run"], &why[..]].concat());
    assert_eq!(text, "m@1 would be the version that serves; nothing was written\n");

    let listed = printed_json(&models, &["list"]);
    let m = &listed["models"][0];
    assert_eq!((&m["model"], &m["rollout"]), (&json!("m"), &json!(4)));
    let roles: Vec<&Value> = m["versions"].as_array().unwrap().iter().map(|one| &one["role"]).collect();
    assert_eq!(roles, ["idle", "stable", "idle"]);
    assert_eq!(m["versions"][2]["space"], "b123456789abcdef");
    let text = printed(&models, &["list", "m"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "VERSION  ROLE    SPACE             PRECISION  DIMENSIONS  CREATED");
    assert_eq!(lines[2], "m@2      stable  a123456789abcdef  fp32       8           2026-01-01T00:00:00Z");

    let history = printed_json(&models, &["history", "m"]);
    let changes: Vec<Value> =
        history["documents"].as_array().unwrap().iter().map(|one| one["change"].clone()).collect();
    assert_eq!(
        changes,
        [
            json!({ "action": "rollout", "version": 1 }),
            json!({ "action": "rollout", "version": 2 }),
            json!({ "action": "rollout", "version": 3, "force": true }),
            json!({ "action": "rollback" }),
        ]
    );
    let text = printed(&models, &["history", "m"]);
    let last = text.lines().last().unwrap();
    assert!(last.contains("ada  rollback, into another space") && last.ends_with("a test"), "{text}");
}

#[tokio::test]
async fn a_damaged_document_is_a_warning_and_a_row() {
    let models = Models::new();
    models.publish_in("aa").await;
    printed(&models, &["rollout", "m@1", "--reason", "a test"]);
    fs::write(models.path("m/rollouts/00000002.json"), "{").unwrap();
    fs::write(models.path("m/versions/2/manifest.toml"), "{").unwrap();
    for command in [&["list"][..], &["rollback", "m", "--to", "1", "--reason", "x"]] {
        let warning = String::from_utf8(on(&models, command).stderr).unwrap();
        assert!(
            warning.contains("warning: the rollout document `m/rollouts/00000002.json` cannot be read"),
            "{warning}"
        );
    }
    let text = printed(&models, &["list"]);
    assert!(text.contains("m@1      stable") && text.contains("m@2      idle    damaged"), "{text}");
    let text = printed(&models, &["history", "m"]);
    assert!(text.lines().any(|line| line.starts_with("2 ") && line.contains("damaged")), "{text}");
    fs::write(models.path("m/rollouts/00000001.json"), "{").unwrap();
    assert!(printed(&models, &["list"]).contains("m@1      unknown"), "nobody knows what serves");
}

#[tokio::test]
async fn what_is_not_there_is_told_with_what_is() {
    let models = Models::new();
    let list = |model| refused(&models, &["list", model]);
    assert!(list("m").contains("the repository is empty"));
    models.publish_in("a").await;
    assert!(list("n").contains("there is no model `n`; there are: m"));
    let text = refused(&models, &["rollout", "m@7", "--reason", "x"]);
    assert!(text.contains("version 7 is not published; there are: 1"), "{text}");
    assert!(refused(&models, &["history", "m"]).contains("no version of `m` was ever rolled out"));
}

#[test]
fn a_change_needs_a_reason_and_a_version() {
    for arguments in [
        &["rollout", "m@1", "--models", "."][..],
        &["rollback", "m", "--models", "."],
        &["rollback", "m", "--models", ".", "--reason", " "],
        &["rollout", "m", "--models", ".", "--reason", "x"],
        &["rollout", "m@01", "--models", ".", "--reason", "x"],
        &["rollback", "../m", "--models", ".", "--reason", "x"],
        &["import", ".", "--models", ".", "--name", "m", "--reason", ""],
        &["import", ".", "--models", ".", "--name", "m", "--force"],
    ] {
        assert_eq!(failure(&mut sextant(arguments)).0, 2, "{arguments:?}");
    }
}
