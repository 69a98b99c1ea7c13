//! The vector of a text is that of its tokens, over HTTP.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::read;
use crate::import::publish;
use crate::support;
use crate::support::app::{TestApp, client};
use crate::support::checkpoint::{HIDDEN, Random, TinyCheckpoint, Weight};
use crate::support::{distance, edit_json, hostile};

/// Longest input of the checkpoints.
const MAX_TOKENS: usize = 16;
/// Texts of each tokenizer, and of one request.
const TEXTS: u64 = 3400;
const AT_ONCE: usize = 100;

/// The tokenizers, each with the name of its model and how many special tokens stand before and behind a text.
const MODELS: [(&str, usize, usize); 3] = [("wordpiece", 1, 1), ("byte-level", 0, 1), ("unigram", 1, 1)];

/// A checkpoint of one layer with this tokenizer.
fn write(directory: &Path, model: &str) {
    let architecture = if model == "unigram" { TinyCheckpoint::roberta() } else { TinyCheckpoint::bert() };
    let checkpoint = TinyCheckpoint { layers: 1, ..architecture };
    checkpoint.write(directory);
    edit_json(&directory.join("sentence_bert_config.json"), |config| {
        config["max_seq_length"] = MAX_TOKENS.into();
    });
    let file = match model {
        "byte-level" => read("byte_level.json"),
        "unigram" => read("unigram.json"),
        _ => return,
    };
    let tokenizer = tokenizers::Tokenizer::from_bytes(&file).unwrap();
    let vocabulary = tokenizer.get_vocab_size(true);
    fs::write(directory.join("tokenizer.json"), file).unwrap();
    let class = json!({ "tokenizer_class": "PreTrainedTokenizerFast" });
    fs::write(directory.join("tokenizer_config.json"), class.to_string()).unwrap();
    edit_json(&directory.join("config.json"), |config| config["vocab_size"] = vocabulary.into());
    let mut weights = checkpoint.weights();
    let mut random = Random(7);
    let values = (0..vocabulary * HIDDEN).map(|_| 0.7 * random.next()).collect();
    let words = Weight { shape: vec![vocabulary, HIDDEN], values };
    weights.insert("embeddings.word_embeddings.weight".to_owned(), words);
    checkpoint.write_weights(directory, &weights);
}

/// A repository in which each tokenizer has a model.
async fn models() -> TempDir {
    let models = tempfile::tempdir().unwrap();
    let repository = support::open(models.path());
    for (name, ..) in MODELS {
        let checkpoint = tempfile::tempdir().unwrap();
        write(checkpoint.path(), name);
        publish(&repository, name, checkpoint.path()).await.unwrap();
    }
    models
}

#[derive(Deserialize)]
struct Token {
    id: u32,
}

/// Posts without a look at the document, which takes longer than the answers of ten thousand texts.
async fn post<T: DeserializeOwned>(app: &TestApp, client: &reqwest::Client, path: &str, body: &Value) -> T {
    let request = client.post(app.url(path)).header("content-type", "application/json");
    let answer = request.body(body.to_string()).send().await.unwrap();
    let status = answer.status();
    let bytes = answer.bytes().await.unwrap();
    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&bytes));
    serde_json::from_slice(&bytes).unwrap()
}

/// The ids that are kept of a text's, special tokens included.
fn cut(tokens: &[Token], before: usize, behind: usize, side: &str) -> Vec<u32> {
    let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
    let (prefix, rest) = ids.split_at(before);
    let (content, suffix) = rest.split_at(rest.len() - behind);
    let room = MAX_TOKENS - before - behind;
    let kept = match side {
        "right" => &content[..content.len().min(room)],
        _ => &content[content.len().saturating_sub(room)..],
    };
    [prefix, kept, suffix].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_of_hostile_texts_are_those_of_the_ids_that_tokenize_gives() {
    let models = models().await;
    let (app, client) = (TestApp::repository(models.path()).await, client());
    let (mut checked, mut cut_off, mut differing) = (0, 0, 0);
    for (model, before, behind) in MODELS {
        let text = |seed: u64| hostile::text(seed, 20 + 5 * usize::try_from(seed % 150).unwrap());
        let texts: Vec<String> = (0..TEXTS).map(text).collect();
        for (batch, texts) in texts.chunks(AT_ONCE).enumerate() {
            let side = if batch % 2 == 0 { "right" } else { "left" };
            let ask = |inputs: &Value| json!({ "model": model, "inputs": inputs, "truncate": true, "truncation_direction": side });
            let named = json!({ "model": model, "inputs": texts });
            let whole: Vec<Vec<Token>> = post(&app, &client, "/tokenize", &named).await;
            let ids: Vec<_> = whole.iter().map(|tokens| cut(tokens, before, behind, side)).collect();
            let of_texts: Vec<Vec<f32>> = post(&app, &client, "/embed", &ask(&json!(texts))).await;
            let of_ids: Vec<Vec<f32>> = post(&app, &client, "/embed", &ask(&json!(ids))).await;
            for ((of_text, of_ids), text) in of_texts.iter().zip(&of_ids).zip(texts) {
                let off = distance(of_text, of_ids);
                assert!(off <= 1e-6, "{model}, {side}: off by {off}: {text:?}");
                checked += 1;
            }
            cut_off += whole.iter().filter(|tokens| tokens.len() > MAX_TOKENS).count();
            differing += of_texts.windows(2).filter(|pair| distance(&pair[0], &pair[1]) > 1e-3).count();
        }
    }
    assert!(checked >= 10_000 && cut_off > 5_000, "{checked} texts, {cut_off} of them cut");
    assert!(
        differing > checked / 2,
        "{differing} of {checked} texts have another vector than the one before"
    );
}
