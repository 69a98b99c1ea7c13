//! Models that cannot be served beside one that can: a model too large for the memory and a damaged one.

use std::fs;
use std::path::Path;

use serde_json::json;
use sextant::config::Settings;
use tokio::task::block_in_place;

use crate::command::{Server, imported, path, run, sextant};
use crate::support::app::{TestApp, settings, until};
use crate::support::checkpoint::{HIDDEN, TinyCheckpoint, Weight};
use crate::support::{edit_json, skipped};

/// Tokens of the large model's longest row. 32 heads take 137 GB for it, and 0.5 GB for the longest row that is measured.
const LONG: usize = 32_768;
/// With more than this the large model would fit.
const TOO_MUCH: u64 = 120_000_000;

/// Kilobytes that the machine has.
fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn write_large(directory: &Path) {
    let checkpoint = TinyCheckpoint { layers: 1, ..TinyCheckpoint::bert() };
    checkpoint.write(directory);
    let mut weights = checkpoint.weights();
    let positions = Weight { shape: vec![LONG, HIDDEN], values: vec![0.01; LONG * HIDDEN] };
    weights.insert("embeddings.position_embeddings.weight".to_owned(), positions).unwrap();
    checkpoint.write_weights(directory, &weights);
    edit_json(&directory.join("config.json"), |config| {
        config["max_position_embeddings"] = json!(LONG);
        config["num_attention_heads"] = json!(HIDDEN);
    });
    edit_json(&directory.join("sentence_bert_config.json"), |config| config["max_seq_length"] = json!(LONG));
}

fn flip_a_byte(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// A repository with the good model `tiny` and three that cannot be served: `large`, `damaged`, and `lost`, of which nothing can be said.
fn with_missing_models() -> tempfile::TempDir {
    let directory = imported();
    write_large(&directory.path().join("large"));
    import(&directory, "large", "large");
    import(&directory, "checkpoint", "damaged");
    flip_a_byte(&directory.path().join("models/damaged/versions/1/model.onnx.data"));
    fs::create_dir_all(directory.path().join("models/lost/rollouts")).unwrap();
    fs::write(directory.path().join("models/lost/rollouts/00000001.json"), "{").unwrap();
    directory
}

/// Imports and activates it, whatever served before.
fn import(directory: &tempfile::TempDir, checkpoint: &str, name: &str) {
    let (checkpoint, models) = (path(directory, checkpoint), path(directory, "models"));
    let arguments = ["import", &checkpoint, "--models", &models, "--name", name, "--activate", "--force"];
    let output = block_in_place(|| run(&[&arguments[..], &["--reason", "a test"]].concat()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_which_models_are_missing_and_why() {
    if memory() > TOO_MUCH {
        return skipped("a machine on which 137 GB do not fit");
    }
    let directory = with_missing_models();
    let log = directory.path().join("log");
    let command = sextant(&["serve", "--models", &path(&directory, "models"), "--log-format", "json"]);
    let _server = Server::start_telling(command, fs::File::create(&log).unwrap().into());
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (model, reason) in
        [("large", "--max-tokens "), ("damaged", "model.onnx.data"), ("lost", "sextant rollout --force")]
    {
        let told: Vec<_> = lines
            .iter()
            .filter(|line| line["level"] == "ERROR" && line["model"] == model)
            .map(|line| line["message"].as_str().unwrap())
            .collect();
        assert_eq!(told.len(), 1, "{text}");
        assert!(told[0].starts_with("this model is missing") && told[0].contains(reason), "{}", told[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_and_a_damaged_model_are_told_beside_a_good_one_and_come_up_once_they_are_mended() {
    if memory() > TOO_MUCH {
        return skipped("a machine on which 137 GB do not fit");
    }
    let directory = with_missing_models();
    let models = path(&directory, "models");

    let app = TestApp::with(&Settings { models: Some(models), ..settings() }).await;
    let embed =
        async |model: &str| app.post("/v1/embeddings", json!({ "model": model, "input": "a cat" })).await;
    assert_eq!(embed("tiny").await.header("x-sextant-version"), "tiny@1");
    let ready = app.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["models"]), (200, &json!(["tiny@1"])));
    let missing = ready.json()["missing"].clone();
    assert!(missing["large"].as_str().unwrap().contains("`--max-tokens "), "{missing}");
    assert!(missing["damaged"].as_str().unwrap().contains("`model.onnx.data`"), "{missing}");
    assert!(missing["lost"].as_str().unwrap().contains("sextant rollout --force"), "{missing}");
    assert_eq!(missing.as_object().unwrap().len(), 3);
    for model in ["large", "damaged", "lost"] {
        assert_eq!(app.metric("sextant_models_missing", &[&format!("model=\"{model}\"")]).await, 1.0);
        let refused = embed(model).await;
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.text().contains(&format!("`{model}` cannot be served")), "{}", refused.text());
    }
    assert_eq!(embed("unheard").await.status, 404);
    let unnamed = app.post("/embed", json!({ "inputs": "a cat" })).await;
    assert_eq!(unnamed.status, 422, "tiny is no default because the others are missing: {}", unnamed.text());
    let listed = app.get("/v1/models").await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "{listed}");

    for model in ["large", "damaged"] {
        import(&directory, "checkpoint", model);
        until("the mended model is served", async || embed(model).await.status == 200).await;
        assert_eq!(embed(model).await.header("x-sextant-version"), format!("{model}@2"));
        assert_eq!(app.get("/readyz").await.json()["missing"].get(model), None);
        let metrics = app.get("/metrics").await.text().to_owned();
        assert!(!metrics.contains(&format!("sextant_models_missing{{model=\"{model}\"}}")));
    }
}
