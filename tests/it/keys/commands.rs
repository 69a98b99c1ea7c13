//! `sextant key`, and the commands that send one.

use std::io::Write as _;
use std::process::Stdio;

use sextant::config::Settings;
use tokio::task::block_in_place;

use super::{entry, key};
use crate::command::{imported, path, run, sextant};
use crate::support::app::{TestApp, settings};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_goes_into_the_file_as_it_is_printed_and_opens_the_server() {
    let directory = imported();
    let new = |arguments: &[&str]| {
        let output = run(&[&["key", "new"], arguments].concat());
        let [entry, key] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert_eq!((output.status.code(), key.lines().count()), (Some(0), 1), "{key}");
        assert!(!entry.contains(key.trim()));
        (entry, key.trim().to_owned())
    };
    let (ops_entry, ops) = new(&["ops", "--role", "admin"]);
    let (search_entry, search) = new(&[
        "search",
        "--role",
        "embed",
        "--role",
        "metrics",
        "--requests-per-second",
        "5",
        "--tokens-per-second",
        "1000",
        "--tokens-burst",
        "5000",
    ]);
    let (keys, models) = (path(&directory, "keys.toml"), path(&directory, "models"));
    std::fs::write(&keys, ops_entry + &search_entry).unwrap();
    let app =
        TestApp::with(&Settings { models: Some(models), keys_file: Some(keys.into()), ..settings() }).await;

    let list = |given: Option<&str>| {
        let mut command = sextant(&["list", "--server", &app.url("")]);
        if let Some(key) = given {
            command.env("SEXTANT_API_KEY", key);
        }
        let output = block_in_place(|| command.output().unwrap());
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    assert_eq!(list(Some(&ops)).0, Some(0));
    for (given, expected) in
        [(None, "this needs a key"), (Some(&*search), "has not the role admin"), (Some("x"), "is not known")]
    {
        let (code, text) = list(given);
        assert!(code == Some(1) && text.contains(expected), "{text}");
    }
    let file = path(&directory, "key");
    std::fs::write(&file, format!("{search}\n")).unwrap();
    let texts = path(&directory, "texts");
    std::fs::write(&texts, "the red house\n").unwrap();
    let bench = [
        "bench",
        "--server",
        &app.url(""),
        "--input",
        &texts,
        "--requests",
        "1",
        "--concurrency",
        "1",
        "--warmup",
        "0s",
    ];
    let output = block_in_place(|| run(&[&bench[..], &["--api-key-file", &file]].concat()));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 answered, 0 failed"), "{output:?}");
    assert_eq!(block_in_place(|| run(&bench)).status.code(), Some(1));
}

#[test]
fn a_key_of_ones_own_is_hashed_if_it_is_long_enough() {
    let hash = |text: &str| {
        let mut child = sextant(&["key", "hash"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, printed) = hash(&format!("{}\n", key("a")));
    assert_eq!(code, 0);
    assert!(entry("a", &["embed"], "").contains(printed.trim()), "{printed}");
    for wrong in ["", "hunter2", "two words that are long enough"] {
        let (code, text) = hash(wrong);
        assert!(code == 2 && !text.contains("hunter2") && text.contains("at least 22"), "{text}");
    }
}

#[test]
fn wrong_keys_are_refused_before_anything_is_loaded() {
    let serve = |more: &[&str]| {
        let output = run(&[&["serve", "--models", "nowhere"], more].concat());
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for (arguments, expected) in [
        (&["--keys-file", "/nowhere/keys"][..], "`keys_file` is `/nowhere/keys`: it cannot be read"),
        (&["--keys", ""], "`keys` (SEXTANT_KEYS): there is no key in it"),
        (&["--keys", "a:sxt_secret"], "line 1 is not TOML"),
        (&["--keys", "", "--keys-file", "x"], "which of them"),
    ] {
        let (code, text) = serve(arguments);
        assert!(code == 2 && text.contains(expected) && !text.contains("sxt_secret"), "{text}");
    }
    for (arguments, expected) in [
        (&["a b", "--role", "embed"][..], "expected a `name`"),
        (&["none", "--role", "embed"], "taken"),
        (&["a", "--role", "metrics", "--model", "m"], "cannot hold"),
        (&["a"], "--role"),
    ] {
        let output = run(&[&["key", "new"], arguments].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(2) && text.contains(expected) && output.stdout.is_empty(),
            "{text}"
        );
    }
}
