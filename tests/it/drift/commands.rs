//! The commands: what they print, and what they refuse.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::{ask_each, counted, serve, watchful, with_reference};
use crate::command::{failure, imported, path, run, sextant};
use crate::evaluate::sentences;

#[test]
fn a_stream_is_replayed_and_every_alarm_has_its_line() {
    let directory = with_reference();
    let models = path(&directory, "models");
    let mut stream = String::new();
    for (index, text) in sentences(20, 600).iter().enumerate() {
        let text = if index >= 400 && index % 2 == 0 { "ψ ψ ψ".to_owned() } else { text.clone() };
        writeln!(stream, "{}", json!({ "text": text, "session": index, "time": 1_700_000_000 + index }))
            .unwrap();
        // Of a session only the first counts.
        writeln!(stream, "{}", json!({ "text": "ψ", "session": index, "time": 1_700_000_000 + index }))
            .unwrap();
    }
    let file = path(&directory, "stream.jsonl");
    fs::write(&file, stream).unwrap();
    let replay = ["drift", "replay", "tiny@1", &file, "--models", &models];
    let output = run(&[&replay[..], &["--expected-run-time", "10000", "--json"]].concat());
    let replayed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let outcome = &replayed[0];
    assert_eq!((&outcome["vectors"], &outcome["counts"]["samples"]), (&json!(600), &json!(600)));
    let first = &outcome["alarms"][0];
    assert_eq!(first["test"], "shift", "{first}");
    let (line, since) = (first["line"].as_u64().unwrap(), first["since_line"].as_u64().unwrap());
    assert!((801..880).contains(&line) && (760..840).contains(&since), "{first}");

    let printed = String::from_utf8(run(&replay).stdout).unwrap();
    assert!(printed.contains("shift") && printed.contains("alarm at 5."), "{printed}");
    // Others than those that it was fitted on: these lie nearer than any traffic would.
    let quiet = path(&directory, "quiet.txt");
    fs::write(&quiet, sentences(21, 3_000).join("\n")).unwrap();
    let printed = run(&["drift", "replay", "tiny@1", &quiet, "--models", &models]);
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), "no alarm in 3000 vectors\n");
    // A client that sends the same again and again.
    fs::write(&quiet, "the red cat runs\n".repeat(100)).unwrap();
    let printed = run(&["drift", "replay", "tiny@1", &quiet, "--models", &models]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    let first = printed.lines().nth(1).unwrap();
    assert!(first.contains("  shift  16  "), "{printed}");
}

#[test]
fn what_makes_no_reference_is_refused_by_name() {
    let directory = imported();
    let (models, input) = (path(&directory, "models"), path(&directory, "input"));
    let fit = |content: String| {
        fs::write(&input, content).unwrap();
        failure(&mut sextant(&["drift", "fit", "tiny@1", "--models", &models, "--input", &input]))
    };
    let (code, said) = fit(sentences(1, 10).join("\n"));
    assert!(code == 1 && said.contains("10 vectors are too few for a reference: at least 3000"), "{said}");
    let (code, said) = fit("the same\n".repeat(3_000));
    assert!(code == 1 && said.contains("the vectors hardly differ: all 3000 of them"), "{said}");
    let vector = |value: &str| format!("{{\"vector\": [{}]}}\n", vec![value; 32].join(", "));
    let (code, said) = fit(vector("0.5").repeat(4) + &vector("0.0"));
    assert!(code == 1 && said.contains("line 5: the vector is all zeros"), "{said}");
    let (code, said) = fit(vector("0.5") + &vector("NaN"));
    assert!(code == 1 && said.contains("line 2"), "{said}");
    let (code, said) = fit("{\"vector\": [1, 2, 3]}".into());
    assert!(
        code == 1 && said.contains("line 1: the vector has 3 dimensions, and those of tiny@1 have 32"),
        "{said}"
    );
    assert!(!directory.path().join("models/tiny/references").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn states_of_replicas_are_added_up() {
    let directory = block_in_place(with_reference);
    let mut files = Vec::new();
    for (seed, count) in [(30, 40), (31, 70)] {
        let app = serve(&directory, watchful()).await;
        ask_each(&app, sentences(seed, count)).await;
        counted(&app, count as u64).await;
        let file = path(&directory, &format!("{seed}.json"));
        fs::write(&file, app.get("/admin/v1/models/tiny/drift").await.body).unwrap();
        files.push(file);
    }
    let merge = |files: &[&str]| block_in_place(|| run(&[&["drift", "merge"], files].concat()));
    let merged = merge(&[&files[0], &files[1]]);
    let answer: Value = serde_json::from_slice(&merged.stdout).unwrap();
    let state = &answer["versions"][0];
    assert_eq!((&state["replicas"], &state["counts"]["samples"]), (&json!(2), &json!(110)));
    let part = |file: &String| -> Value { serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap() };
    for component in 0..31 {
        let of = |answer: &Value| answer["versions"][0]["counts"]["projections"][component].as_i64().unwrap();
        assert_eq!(of(&answer), of(&part(&files[0])) + of(&part(&files[1])));
    }
    let sum = path(&directory, "sum.json");
    fs::write(&sum, &merged.stdout).unwrap();
    let page = block_in_place(|| run(&["drift", "report", "--file", &sum]));
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.contains("110 vectors of 2 replicas"), "{page}");

    let mut other = part(&files[1]);
    other["versions"][0]["reference"] = json!("ffffffff");
    fs::write(&sum, other.to_string()).unwrap();
    let said = String::from_utf8(merge(&[&files[0], &sum]).stderr).unwrap();
    assert!(said.contains("different references") && said.contains("ffffffff"), "{said}");
    fs::write(&sum, "{}").unwrap();
    let said = String::from_utf8(merge(&[&sum]).stderr).unwrap();
    assert!(said.contains("holds no state of drift"), "{said}");
}
