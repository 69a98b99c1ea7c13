//! With the real weights: what is strange to a person is strange to the server.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::block_in_place;

use super::{ask_each, counted, serve, watchful};
use crate::command::{path, run};
use crate::support::app::TestApp;

/// What somebody asks of an assistant for travels, the same for the same number.
fn request(number: usize) -> String {
    let asks =
        ["please book", "can you find", "i need", "change", "cancel", "how much is", "show me", "is there"];
    let things =
        ["a flight", "a hotel", "a train", "a rental car", "a table for two", "a taxi", "an early bus"];
    let places =
        ["paris", "boston", "berlin", "tokyo", "the airport", "downtown", "my home", "the old town", "rome"];
    let times =
        ["tomorrow", "on friday", "next week", "tonight", "in july", "before noon", "as soon as possible"];
    let mut random = fastrand::Rng::with_seed(number as u64);
    let mut one = |of: &[&str]| of[random.usize(..of.len())].to_owned();
    format!("{} {} to {} {}", one(&asks), one(&things), one(&places), one(&times))
}

/// What nobody asks such an assistant.
const STRANGE: [&str; 8] = [
    "die katze schläft auf dem warmen ofen",
    "SELECT name FROM users WHERE id = 7",
    "mitochondria produce the energy of a cell",
    "the defendant waives the right to appeal",
    "fn main() { println!(\"hello\"); }",
    "beat the egg whites until they are stiff",
    "quantum fields have no rest mass term here",
    "he scored two goals in the second half",
];

/// A repository with all-MiniLM-L6-v2 and a reference of 3,000 requests.
fn with_reference() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (models, usual) = (path(&directory, "models"), path(&directory, "usual.txt"));
    fs::write(&usual, (0..3_000).map(request).collect::<Vec<_>>().join("\n")).unwrap();
    for arguments in [
        &["import", ".sextant/weights", "--models", &models, "--name", "minilm", "--licence", "Apache-2.0"][..],
        &["drift", "fit", "minilm@1", "--models", &models, "--input", &usual, "--keep-examples"],
    ] {
        let output = run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    directory
}

fn alarms(state: &Value) -> Vec<&str> {
    let tests = state["tests"].as_array().unwrap().iter();
    tests.filter(|test| test["alarm"] == true).map(|test| test["test"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_texts_are_told_from_usual_ones_one_by_one_and_as_traffic() {
    let directory = block_in_place(with_reference);
    let app = serve(&directory, watchful()).await;
    series_stand_at_zero(&app).await;
    each_input_is_judged(&app).await;
    let series = async || app.get("/metrics").await.text().matches("\nsextant_drift_").count();
    // One of each of those requests.
    let (before, judged) = (series().await, 4);

    ask_each(&app, (5_000..5_200).map(request).collect()).await;
    let usual = counted(&app, judged + 200).await;
    assert_eq!(alarms(&usual), [] as [&str; 0], "{usual}");

    // Of a request with many inputs one counts; of somebody who says who he is one in a minute.
    let many: Vec<String> = (5_200..5_250).map(request).collect();
    app.post("/v1/embeddings", json!({ "model": "minilm", "input": many })).await;
    for number in 5_250..5_260 {
        let body = json!({ "model": "minilm", "input": request(number), "user": "one" });
        app.post("/v1/embeddings", body).await;
    }
    counted(&app, judged + 202).await;

    // One in five.
    let mixed = |number: usize| {
        if number.is_multiple_of(5) { STRANGE[number / 5 % 8].to_owned() } else { request(number) }
    };
    ask_each(&app, (6_000..6_200).map(mixed).collect()).await;
    let changed = counted(&app, judged + 402).await;
    assert!(alarms(&changed).contains(&"outside"), "{}", changed["tests"]);
    assert_eq!(app.metric("sextant_drift_alarm", &["test=\"outside\""]).await, 1.0);
    assert_eq!(series().await, before, "a series for each, however much is asked");

    let report = block_in_place(|| run(&["drift", "report", "minilm", "--server", &app.url("")]));
    let page = String::from_utf8(report.stdout).unwrap();
    assert!(page.contains("ALARM  outside") && page.contains("more lies outside"), "{page}");
    assert!(page.contains("usual.txt") && page.contains("406 vectors since"), "{page}");
    assert!(page.contains("flight") || page.contains("hotel"), "no example of a topic: {page}");
}

/// Every series is there before the first vector.
async fn series_stand_at_zero(app: &TestApp) {
    for (name, labels) in [
        ("sextant_drift_samples_total", &[][..]),
        ("sextant_drift_tail_total", &["tail=\"low\""]),
        ("sextant_drift_projection_sum_total", &["c=\"31\""]),
        ("sextant_drift_bin_total", &["bin=\"0\""]),
        ("sextant_drift_log_evidence", &["test=\"outside\""]),
        ("sextant_drift_shift_z", &[]),
        ("sextant_drift_alarm", &["test=\"shift\""]),
        ("sextant_drift_input_z", &["feature=\"unknown\""]),
        ("sextant_drift_seconds_total", &[]),
        ("sextant_drift_dropped_total", &[]),
    ] {
        assert_eq!(app.metric(name, labels).await, 0.0, "{name}");
    }
}

/// Three requests that ask how far their inputs lie outside, and one that does not.
async fn each_input_is_judged(app: &TestApp) {
    let inputs: Vec<String> = (4_000..4_030).map(request).chain(STRANGE.map(str::to_owned)).collect();
    let answer = app.post("/v1/embeddings", json!({ "model": "minilm", "input": inputs, "ood": true })).await;
    let judged: Vec<(f64, f64)> = answer.json()["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["ood_score"].as_f64().unwrap(), item["ood_p_value"].as_f64().unwrap()))
        .collect();
    let (usual, strange) = judged.split_at(30);
    assert!(strange.iter().all(|(_, p_value)| *p_value < 0.002), "{strange:?}");
    assert!(usual.iter().filter(|(_, p_value)| *p_value > 0.05).count() > 24, "{usual:?}");

    // The other dialect, one input at a time, raw: it is of the unit vector.
    for index in [3, 33] {
        let body = json!({ "inputs": inputs[index], "ood": true, "normalize": false });
        let answer: Value = app.post("/embed", body).await.json();
        assert_eq!(answer[0]["embedding"].as_array().unwrap().len(), 384);
        assert!((answer[0]["ood_score"].as_f64().unwrap() - judged[index].0).abs() < 1e-5);
    }
    let plain = app.post("/embed", json!({ "inputs": "the cat", "ood": false })).await.json();
    assert_eq!(plain[0].as_array().unwrap().len(), 384);
    let all = app.post("/embed_all", json!({ "inputs": "the cat", "ood": true })).await;
    assert!(all.status == 422 && all.text().contains("ask /embed"), "{}", all.text());
}
