//! The real weights that `make setup` fetches: the vectors are those of PyTorch, whatever they run beside.

use std::path::Path;

use serde::Deserialize;
use serde_json::json;
use sextant::embed::{EmbedRequest, Embedder, Input, Model};
use sextant::import::{self, Request};
use sextant::metrics::Metrics;
use sextant::repository::manifest::{Manifest, Precision, Source};
use sextant::rollout::gate::{self, Bounds, Name};
use sextant::tokenize::{Tokenizer, Truncate};
use sha2::{Digest as _, Sha512};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::rollout::begin;
use crate::support;
use crate::support::app::{TestApp, config, settings};
use crate::support::{backend, cosine, distance, floats, runtime};

/// Texts with the vectors that sentence-transformers gives for them, in fp32 on a CPU.
#[derive(Deserialize)]
struct Reference {
    text: String,
    embedding: Vec<f32>,
}

fn references() -> Vec<Reference> {
    let lines = include_str!("../data/minilm_reference.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A repository with all-MiniLM-L6-v2 as `fp32@1` and `int8@1`, made once for all tests. `fp32@2` has the files of the latter and
/// claims the space of the former.
async fn models() -> &'static Path {
    static MODELS: OnceCell<TempDir> = OnceCell::const_new();
    let make = async || {
        let models = tempfile::tempdir().unwrap();
        let repository = support::open(models.path());
        for (name, precision) in [("fp32", Precision::Fp32), ("int8", Precision::Int8)] {
            let stage = tempfile::tempdir().unwrap();
            let source = Source::Directory { name: "weights".to_owned() };
            let created = "2026-01-01T00:00:00Z".to_owned();
            let request =
                Request { precision, ..Request::new(Path::new(".sextant/weights"), name, source, created) };
            let staged = import::stage(&request, stage.path(), runtime(), &|_| ()).unwrap().manifest;
            let manifest = repository.publish(stage.path(), staged.clone()).await.unwrap();
            if precision == Precision::Fp32 {
                // As README shows it, and as every version of these weights that was imported before.
                assert_eq!(manifest.space.0, "d8db44abdd824389");
            }
            if precision == Precision::Int8 {
                let Manifest { model, space, .. } = repository.manifest("fp32", 1).await.unwrap();
                let claiming = Manifest { model, space, space_parent: Some(1), ..staged };
                repository.publish(stage.path(), claiming).await.unwrap();
            }
            begin(&repository, name, manifest.version).await;
        }
        models
    };
    MODELS.get_or_init(make).await.path()
}

async fn embed(app: &TestApp, model: &str, inputs: &[&str]) -> Vec<Vec<f32>> {
    let answer = app.post("/v1/embeddings", json!({ "model": model, "input": inputs })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    answer["data"].as_array().unwrap().iter().map(|item| floats(&item["embedding"])).collect()
}

/// Much of it is tokenized without the library: prose, code, tables and tests full of odd characters.
#[test]
fn ids_of_texts_are_the_librarys() {
    let tokenizer = Tokenizer::load(Path::new(".sextant/weights/tokenizer.json"), 1 << 20).unwrap();
    let texts = [
        include_str!("../../ARCHITECTURE.md"),
        include_str!("../../openapi.yaml"),
        include_str!("../../src/tokenize/ascii.rs"),
        include_str!("tei.rs"),
        include_str!("../data/minilm_reference.jsonl"),
    ];
    // By lines for the short ones among them, and whole.
    for text in texts.iter().flat_map(|text| text.lines().chain([*text])) {
        let ids: Vec<u32> = tokenizer.pieces(text, true).unwrap().iter().map(|piece| piece.id).collect();
        assert_eq!(tokenizer.tokenize(text, Truncate::Error).unwrap().ids[..], ids, "{text}");
    }
}

/// Minified JSON of so many SHA-512 digests: each is one token, since WordPiece looks at no word of more than 100 characters.
fn digests(count: usize) -> String {
    let digest = |index: usize| {
        let bytes = Sha512::digest(index.to_string());
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let fields: Vec<String> = (0..count).map(|index| format!(",\"{index}\":\"{}\"", digest(index))).collect();
    format!("{{\"_{}\":1{}}}", "p".repeat(102), fields.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_text_of_few_tokens_is_neither_cut_nor_refused() {
    let app = TestApp::repository(models().await).await;
    let text = digests(30);
    let tokens = app.post("/tokenize", json!({ "model": "fp32", "inputs": text })).await.json();
    let ids: Vec<_> = tokens[0].as_array().unwrap().iter().map(|token| token["id"].clone()).collect();
    assert_eq!(ids.len(), 250);
    let answer = app.post("/v1/embeddings", json!({ "model": "fp32", "input": ids })).await;
    let expected = floats(&answer.json()["data"][0]["embedding"]);
    for truncate in [json!(null), json!("end"), json!("start"), json!("error")] {
        let body = json!({ "model": "fp32", "input": text, "truncate": truncate });
        let answer = app.post("/v1/embeddings", body).await;
        assert_eq!(answer.status, 200, "{truncate}: {}", answer.text());
        assert_eq!(answer.header("x-sextant-truncated"), "0", "{truncate}");
        let answer = answer.json();
        assert_eq!(answer["usage"]["prompt_tokens"], 250, "{truncate}");
        let off = distance(&floats(&answer["data"][0]["embedding"]), &expected);
        assert!(off <= 1e-6, "{truncate}: off by {off}");
    }
    let more = json!({ "model": "fp32", "input": digests(60), "truncate": "error" });
    assert_eq!(app.post("/v1/embeddings", more).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn reference_vectors_come_back_over_http_alone_and_together() {
    let app = TestApp::repository(models().await).await;
    let references: Vec<Reference> = references().into_iter().filter(|r| !r.text.is_empty()).collect();
    assert_eq!(references.len(), 31);
    let texts: Vec<&str> = references.iter().map(|reference| reference.text.as_str()).collect();
    let together = embed(&app, "fp32", &texts).await;
    for (reference, together) in references.iter().zip(&together) {
        let alone = &embed(&app, "fp32", &[&reference.text]).await[0];
        for (how, vector) in [("alone", alone), ("together", together)] {
            let off = distance(vector, &reference.embedding);
            assert!(off <= 1e-5, "{how}, {:?}: off by {off}", reference.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_empty_text_has_its_vector_through_the_library() {
    let repository = support::open(models().await);
    let manifest = repository.manifest("fp32", 1).await.unwrap();
    let (config, metrics) = (config(&settings()), Metrics::new().unwrap());
    let (wanted, limits, bounds) = (config.wanted, config.limits, config.gate);
    let model = Model::load(&repository, manifest, &backend(), wanted, limits, bounds, &metrics).await;
    let embedder = Embedder::new(vec![model.unwrap()], None, config.http.resources()).unwrap();
    let request = EmbedRequest { inputs: vec![Input::Text(String::new())], ..EmbedRequest::default() };
    let vector = embedder.embed(request).await.unwrap().vectors.remove(0);
    let reference = references().into_iter().find(|reference| reference.text.is_empty()).unwrap();
    assert!(distance(&vector, &reference.embedding) <= 1e-5);
}

#[tokio::test(flavor = "multi_thread")]
async fn int8_stays_near_fp32_and_does_not_depend_on_its_neighbours() {
    let app = TestApp::repository(models().await).await;
    let references: Vec<Reference> = references().into_iter().filter(|r| !r.text.is_empty()).collect();
    let texts: Vec<&str> = references.iter().map(|reference| reference.text.as_str()).collect();
    let together = embed(&app, "int8", &texts).await;
    let mut cosines = Vec::new();
    for (reference, together) in references.iter().zip(&together) {
        let alone = &embed(&app, "int8", &[&reference.text]).await[0];
        assert!(distance(alone, together) <= 1e-5, "{:?}", reference.text);
        cosines.push(cosine(alone, &reference.embedding));
    }
    let least = cosines.iter().copied().fold(1.0, f64::min);
    let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    assert!(least >= 0.975 && mean >= 0.99, "cosine to fp32: least {least}, mean {mean}");
    assert!(mean < 0.999_99, "these are the vectors of fp32");
}

#[tokio::test(flavor = "multi_thread")]
async fn int8_passes_the_gate_and_may_claim_the_space_of_fp32() {
    let repository = support::open(models().await);
    let wanted = config(&settings()).wanted;
    for (model, version) in [("fp32", 1), ("int8", 1), ("fp32", 2)] {
        let report = gate::verify(&repository, model, version, &backend(), wanted, Bounds::DEFAULT).await;
        let report = report.unwrap();
        assert!(report.passed, "{report}");
        assert_eq!(report.figure(Name::ClaimCosine).is_some(), version == 2);
        if let Some(cosine) = report.figure(Name::ClaimCosine) {
            assert!(cosine < 0.999_99, "these are the vectors of fp32");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_vectors_pool_to_the_sentence_and_token_arrays_give_the_same() {
    let app = TestApp::repository(models().await).await;
    let text = "Sailors found their latitude with a sextant.";
    let whole = &embed(&app, "fp32", &[text]).await[0];
    let body = json!({ "inputs": text, "model": "fp32" });
    let tokens = app.post("/embed_all", body.clone()).await.json();
    let tokens: Vec<Vec<f32>> = tokens[0].as_array().unwrap().iter().map(floats).collect();
    let mut mean: Vec<f32> =
        (0..384).map(|c| tokens.iter().map(|t| t[c]).sum::<f32>() / tokens.len() as f32).collect();
    sextant::engine::pooling::normalise(&mut mean);
    assert!(distance(&mean, whole) <= 1e-5);

    let many = json!({ "inputs": vec!["word ".repeat(300); 100], "model": "fp32" });
    assert_eq!(app.post("/embed_all", many).await.status, 413, "25,600 vectors in one answer");

    let ids = app.post("/tokenize", body).await.json();
    let ids: Vec<_> = ids[0].as_array().unwrap().iter().map(|token| token["id"].clone()).collect();
    let answer = app.post("/v1/embeddings", json!({ "model": "fp32", "input": ids })).await.json();
    assert!(distance(&floats(&answer["data"][0]["embedding"]), whole) <= 1e-6);
    // What LangChain sends by default: ids of OpenAI's tokenizer.
    let foreign = json!({ "model": "fp32", "input": [[15339, 1917]] });
    let answer = app.post("/v1/embeddings", foreign).await;
    assert_eq!(answer.status, 400);
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("check_embedding_ctx_length=False"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_models_need_a_name() {
    let app = TestApp::repository(models().await).await;
    assert_eq!(app.post("/embed", json!({ "inputs": "a" })).await.status, 422);
    assert_eq!(app.post("/embed", json!({ "inputs": "a", "model": "int8" })).await.status, 200);
    assert_eq!(app.get("/info").await.status, 422);
    let list = app.get("/v1/models").await.json();
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(names, ["fp32", "int8"]);
}
