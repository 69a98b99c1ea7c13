//! ONNX exports in the forms of publishers, against the vectors that their encoder gives in the library (scripts/reference/exports.py).

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use sextant::engine::Pooling;
use sextant::import::ImportError;
use tempfile::TempDir;

use super::references::{copy, data};
use super::{Imported, import, publish};
use crate::support;
use crate::support::app::TestApp;
use crate::support::{distance, floats};

const ALLOWED: f32 = 1e-5;

#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    vectors: std::collections::BTreeMap<String, Vec<Vec<f32>>>,
    /// Of each text those of its tokens.
    tokens: Vec<Vec<Vec<f32>>>,
}

fn expected() -> Expected {
    serde_json::from_slice(&fs::read(data().join("exports/expected.json")).unwrap()).unwrap()
}

/// The base checkpoint with this export in place of its weights, and without modules.json unless it is `declared`.
fn checkpoint(export: &str, at: &str, declared: bool) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    copy(&data().join("bert"), directory.path());
    fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    if !declared {
        fs::remove_file(directory.path().join("modules.json")).unwrap();
    }
    let to = directory.path().join(at);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(data().join("exports").join(export), to).unwrap();
    directory
}

fn refusal(directory: &Path, onnx_file: Option<&str>, pooling: Option<Pooling>) -> String {
    let imported: Result<Imported, ImportError> = import(directory, |request| {
        (request.onnx_file, request.pooling) = (onnx_file, pooling);
    });
    imported.err().expect("it must be refused").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_of_texts_and_of_tokens_have_widths_of_their_own() {
    let expected = expected();
    let models = tempfile::tempdir().unwrap();
    let repository = support::open(models.path());
    for (name, declared) in [("narrow", false), ("whole", false), ("mean", true), ("tokens", true)] {
        let directory = checkpoint(&format!("{name}.onnx"), "onnx/model.onnx", declared);
        let manifest = publish(&repository, name, directory.path()).await.unwrap();
        let pooling = if declared { Pooling::Mean } else { Pooling::InGraph };
        assert_eq!((manifest.pooling, manifest.schema), (pooling, if declared { 1 } else { 2 }), "{name}");
        assert_eq!(manifest.dimensions, expected.vectors[name][0].len(), "{name}");
    }
    let app = TestApp::repository(models.path()).await;
    for name in ["narrow", "whole", "mean", "tokens"] {
        let body = json!({ "model": name, "inputs": expected.texts, "normalize": false, "truncate": true });
        let answer = app.post("/embed", body).await.json();
        for ((text, expected), vector) in
            expected.texts.iter().zip(&expected.vectors[name]).zip(answer.as_array().unwrap())
        {
            let off = distance(&floats(vector), expected);
            assert!(off <= ALLOWED, "{name}: off by {off}: {text:?}");
        }
    }
    let body = json!({ "model": "narrow", "inputs": expected.texts, "truncate": true });
    let answer: Vec<Vec<Value>> = serde_json::from_value(app.post("/embed_all", body).await.json()).unwrap();
    for ((text, expected), tokens) in expected.texts.iter().zip(&expected.tokens).zip(&answer) {
        assert_eq!(tokens.len(), expected.len(), "{text:?}");
        for (token, expected) in tokens.iter().zip(expected) {
            let off = distance(&floats(token), expected);
            assert!(off <= ALLOWED, "off by {off}: {text:?}");
        }
    }
    let none = app.post("/embed_all", json!({ "model": "whole", "inputs": "a" })).await;
    assert!(
        none.status == 400 || none.status == 422 || none.status == 424,
        "{}: {}",
        none.status,
        none.text()
    );
    assert!(none.text().contains("no vectors for single tokens"), "{}", none.text());
}

#[test]
fn a_graph_that_pools_otherwise_than_is_said_is_refused() {
    let directory = checkpoint("cls.onnx", "onnx/model.onnx", true);
    let told = refusal(directory.path(), None, None);
    assert!(told.contains("not those of mean pooling") && told.contains("--pooling cls"), "{told}");
    let asked = import(directory.path(), |request| request.pooling = Some(Pooling::Cls)).unwrap();
    assert_eq!(asked.manifest.pooling, Pooling::Cls);

    let narrow = checkpoint("narrow.onnx", "onnx/model.onnx", true);
    let told = refusal(narrow.path(), None, None);
    assert!(told.contains("take modules.json away"), "{told}");
    let undeclared = checkpoint("narrow.onnx", "onnx/model.onnx", false);
    let told = refusal(undeclared.path(), None, Some(Pooling::Mean));
    assert!(told.contains("leave --pooling out"), "{told}");

    // Where nothing pools, somebody must say how.
    let tokens = checkpoint("tokens.onnx", "onnx/model.onnx", false);
    let told = refusal(tokens.path(), None, None);
    assert!(told.contains("pass --pooling mean, cls or last_token"), "{told}");
}

#[test]
fn an_export_of_another_name_is_taken_where_it_is_named() {
    let directory = checkpoint("mean.onnx", "onnx/model_fp32_o2.onnx", true);
    let told = refusal(directory.path(), None, None);
    assert!(told.contains("it has onnx/model_fp32_o2.onnx: name one of them with --onnx-file"), "{told}");
    let named =
        import(directory.path(), |request| request.onnx_file = Some("onnx/model_fp32_o2.onnx")).unwrap();
    assert!(named.path().join("model.onnx").is_file());
    let told = refusal(directory.path(), Some("model.onnx"), None);
    assert!(told.contains("`model.onnx` is not in the checkpoint; it has onnx/model_fp32_o2.onnx"), "{told}");
    for outside in ["../model.onnx", "/model.onnx", ""] {
        assert!(
            refusal(directory.path(), Some(outside), None).contains("leads out of the checkpoint"),
            "{outside}"
        );
    }
}

#[test]
fn an_export_that_no_batch_can_be_given_is_told_so() {
    let told = |export: &str| {
        let directory = checkpoint(export, "onnx/model.onnx", true);
        refusal(directory.path(), None, None)
    };
    let no_mask = told("no_mask.onnx");
    assert!(
        no_mask.contains("has no input `attention_mask`") && no_mask.contains("optimum-cli export onnx"),
        "{no_mask}"
    );
    let fixed = told("fixed_batch.onnx");
    assert!(fixed.contains("fixed shape [1, -1]") && fixed.contains("dynamic axes"), "{fixed}");
}

#[test]
fn an_export_whose_vectors_depend_on_the_batch_says_so() {
    let directory = checkpoint("quantized.onnx", "onnx/model.onnx", true);
    let imported = import(directory.path(), |_| ()).unwrap();
    assert_eq!(imported.manifest.depends_on_batch, Some(true));
    let card = fs::read_to_string(imported.path().join("MODEL_CARD.md")).unwrap();
    assert!(card.contains("the same text gets another vector"), "{card}");
}
