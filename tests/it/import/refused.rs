//! What is wrong or not supported is refused by name, with what would work, and nothing panics.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Value, json};
use sextant::import::{ImportError, Request};
use sextant::repository::manifest::{Graph, Precision};
use tempfile::TempDir;

use super::import;
use crate::support::checkpoint::{HIDDEN, TinyCheckpoint, Weight};
use crate::support::edit_json;
use crate::support::export::TinyExport;

pub(super) fn bert() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    TinyCheckpoint::bert().write(directory.path());
    directory
}

/// The message with which a checkpoint is refused.
pub(super) fn refused(directory: &TempDir, ask: impl FnOnce(&mut Request<'_>)) -> String {
    refusal(import(directory.path(), ask).map(|version| version.manifest.model))
}

fn refusal(result: Result<String, ImportError>) -> String {
    let message = result.expect_err("the import must be refused").to_string();
    assert!(!message.contains('\n') && !message.ends_with('.'), "one sentence, no stop: {message}");
    message
}

/// Checks that `message` names each of `parts`.
pub(super) fn assert_names(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn architectures_that_cannot_be_compiled() {
    let export = "export the checkpoint to ONNX and import that";
    for (key, value, named) in [
        ("model_type", json!("mpnet"), "compiling the architecture `mpnet` is not supported"),
        ("model_type", json!("distilbert"), "compiling the architecture `distilbert` is not supported"),
        ("hidden_act", json!("silu"), "the activation `silu` is not supported"),
        ("position_embedding_type", json!("relative_key"), "the position embedding type `relative_key`"),
        ("position_embedding_type", json!("alibi"), "the position embedding type `alibi`"),
        ("is_decoder", json!(true), "a decoder (`is_decoder` in config.json)"),
        ("auto_map", json!({"AutoModel": "own--code.Model"}), "a model with code of its own (`auto_map`"),
    ] {
        let directory = bert();
        edit_json(&directory.path().join("config.json"), |config| config[key] = value);
        assert_names(&refused(&directory, |_| {}), &[named, export]);
        assert_names(&refused(&directory, |request| request.graph = Some(Graph::Packed)), &[named, export]);
    }
}

#[test]
fn a_config_that_contradicts_itself() {
    for (key, value, named) in [
        ("num_attention_heads", json!(5), "hidden_size 32 is no multiple of num_attention_heads 5"),
        ("num_attention_heads", json!(0), "no multiple of num_attention_heads 0"),
        ("hidden_size", json!("wide"), "config.json` is not usable: hidden_size: invalid type"),
        ("hidden_size", json!(-1), "config.json` is not usable: hidden_size: invalid value"),
        ("hidden_size", Value::Null, "config.json` is not usable"),
        ("hidden_size", json!(64), "has shape [103, 32], and config.json makes it [103, 64]"),
        (
            "vocab_size",
            json!(102),
            "tokenizer.json` is not usable: it has 103 tokens and the model has vectors for 102",
        ),
        ("max_position_embeddings", json!(65), "has shape [64, 32], and config.json makes it [65, 32]"),
        ("max_position_embeddings", json!(0), "config.json` leaves is 0, and the tokenizer adds 2"),
        ("num_hidden_layers", json!(3), "has no tensor `encoder.layer.2.attention.self.query.weight`"),
        ("num_hidden_layers", json!(1_000_000_000_000_u64), "has no tensor `encoder.layer.2."),
        ("num_hidden_layers", json!(1), "has a tensor `encoder.layer.1.attention.output.LayerNorm.bias`"),
        ("model_type", Value::Null, "it has no `model_type`"),
    ] {
        let directory = bert();
        edit_json(&directory.path().join("config.json"), |config| config[key] = value);
        assert_names(&refused(&directory, |_| {}), &[named]);
    }
    let directory = tempfile::tempdir().unwrap();
    TinyCheckpoint::roberta().write(directory.path());
    edit_json(&directory.path().join("config.json"), |config| config["pad_token_id"] = json!(u64::MAX));
    assert_names(
        &refused(&directory, |_| {}),
        &["the room that `max_position_embeddings` in `", "config.json` leaves is 0"],
    );
}

#[test]
fn files_that_are_missing_or_damaged() {
    let without = |name: &str| {
        let directory = bert();
        fs::remove_file(directory.path().join(name)).unwrap();
        refused(&directory, |_| {})
    };
    assert_names(&without("config.json"), &["config.json` is missing"]);
    assert_names(
        &without("tokenizer.json"),
        &["tokenizer.json` is missing", "fast tokenizer", "use_fast=True"],
    );
    assert_names(
        &without("model.safetensors"),
        &["model.onnx` is missing", "model.safetensors", "save_pretrained"],
    );
    assert_names(&without("1_Pooling/config.json"), &["1_Pooling/config.json` is missing"]);
    for name in
        ["config.json", "tokenizer.json", "modules.json", "tokenizer_config.json", "1_Pooling/config.json"]
    {
        let directory = bert();
        fs::write(directory.path().join(name), "{\"half\":").unwrap();
        assert_names(&refused(&directory, |_| {}), &[name, "is not"]);
    }
    let directory = bert();
    fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    let message = refused(&directory, |request| request.graph = Some(Graph::Packed));
    assert_names(&message, &["model.safetensors` is missing", "pytorch_model.bin"]);
    let nowhere = import(Path::new("no/such/directory"), |_| {}).map(|version| version.manifest.model);
    assert_names(&refusal(nowhere), &["no/such/directory"]);
}

#[test]
fn weights_that_are_cut_off_or_no_weights() {
    let directory = bert();
    let path = directory.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert_names(
            &refused(&directory, |_| {}),
            &["model.safetensors` is not usable: it is cut off after", "fetch it again"],
        );
    }
    fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
    assert_names(&refused(&directory, |_| {}), &["and its header describes"]);
    fs::write(&path, b"<!DOCTYPE html><html><head><title>404</title></head></html>").unwrap();
    assert_names(&refused(&directory, |_| {}), &["it does not begin as a safetensors file does"]);
    fs::write(&path, [&2_u64.to_le_bytes()[..], b"[]"].concat()).unwrap();
    assert_names(&refused(&directory, |_| {}), &["its header is damaged"]);
    fs::write(&path, [&2_u64.to_le_bytes()[..], b"{}"].concat()).unwrap();
    assert_names(&refused(&directory, |_| {}), &["has no tensor `embeddings.word_embeddings.weight`"]);
}

#[test]
fn tensors_that_do_not_fit() {
    let bert = TinyCheckpoint::bert();
    let with = |checkpoint: &TinyCheckpoint, change: &dyn Fn(&mut BTreeMap<String, Weight>)| {
        let directory = tempfile::tempdir().unwrap();
        checkpoint.write(directory.path());
        let mut weights = checkpoint.weights();
        change(&mut weights);
        checkpoint.write_weights(directory.path(), &weights);
        directory
    };
    let value = "encoder.layer.0.attention.self.value.weight";
    let turned = with(&bert, &|weights| weights.get_mut(value).unwrap().shape = vec![HIDDEN * HIDDEN]);
    assert_names(&refused(&turned, |_| {}), &[value, "has shape [1024], and config.json makes it [32, 32]"]);
    let lacking = with(&bert, &|weights| drop(weights.remove(value)));
    assert_names(&refused(&lacking, |_| {}), &[&format!("has no tensor `{value}`")]);
    let distance = "encoder.layer.0.attention.self.distance_embedding.weight";
    let more = with(&bert, &|weights| {
        let other = weights[value].clone();
        weights.insert(distance.to_owned(), other);
    });
    assert_names(
        &refused(&more, |_| {}),
        &[distance, "a bert encoder has no place for", "export the checkpoint"],
    );
    let damaged = with(&bert, &|weights| weights.get_mut(value).unwrap().values[7] = f32::NAN);
    assert_names(&refused(&damaged, |_| {}), &[value, "NaN", "fetch it again"]);
    let large = with(&bert, &|weights| weights.get_mut(value).unwrap().values[7] = 1e5);
    let message = refused(&large, |request| request.precision = Precision::Fp16);
    assert_names(&message, &["layer.0.Attention.weight", "100000", "fp16", "--precision fp32"]);
    let wide = with(&TinyCheckpoint { dtype: Dtype::F64, ..bert.clone() }, &|_| {});
    assert_names(&refused(&wide, |_| {}), &["of type F64 is not supported", "F32, F16 or BF16"]);
    let silent = with(&bert, &|weights| {
        for part in ["weight", "bias"] {
            weights.get_mut(&format!("encoder.layer.1.output.LayerNorm.{part}")).unwrap().values.fill(0.0);
        }
    });
    assert_names(&refused(&silent, |_| {}), &["a vector that is all zeros"]);
    let overflowing = with(&bert, &|weights| {
        weights.get_mut("encoder.layer.1.output.LayerNorm.weight").unwrap().values.fill(3e38);
    });
    assert_names(&refused(&overflowing, |_| {}), &["a vector that is not finite"]);
}

#[test]
fn requests_that_cannot_be_met() {
    let message = refused(&bert(), |request| request.max_tokens = Some(65));
    assert_names(&message, &["--max-tokens is 65", "positions for 64 tokens"]);
    assert_names(
        &refused(&bert(), |request| request.max_tokens = Some(2)),
        &["--max-tokens is 2", "special tokens"],
    );
    let message = refused(&bert(), |request| request.matryoshka_dimensions = vec![16, 33]);
    assert_names(&message, &["--matryoshka has 33", "between 1 and the model's 32"]);
    let message = refused(&bert(), |request| request.precision = Precision::Mixed);
    assert_names(&message, &["mixed precision", "fp32, fp16 and int8"]);
    let directory = bert();
    let texts = directory.path().join("texts.txt");
    fs::write(&texts, "\n\n").unwrap();
    let empty = import(directory.path(), |request| {
        request.precision = Precision::Int8;
        request.calibrate = Some(&texts);
    });
    let message = refusal(empty.map(|version| version.manifest.model));
    assert_names(&message, &["`texts.txt` holds no text to calibrate on"]);
}

#[test]
fn the_file_that_leaves_no_room_is_named() {
    let write = |directory: &TempDir, name: &str, value: Value| {
        fs::write(directory.path().join(name), value.to_string()).unwrap();
    };
    let directory = bert();
    fs::remove_file(directory.path().join("sentence_bert_config.json")).unwrap();
    write(&directory, "tokenizer_config.json", json!({"model_max_length": 2}));
    let message = refused(&directory, |_| {});
    assert_names(
        &message,
        &["`model_max_length` in `", "/tokenizer_config.json` is 2, and the tokenizer adds 2"],
    );
    write(&directory, "sentence_roberta_config.json", json!({"max_seq_length": 0}));
    let message = refused(&directory, |_| {});
    assert_names(
        &message,
        &["`max_seq_length` in `", "/sentence_roberta_config.json` is 0, and the tokenizer adds 2"],
    );
    let message = refused(&directory, |request| request.max_tokens = Some(0));
    assert_names(&message, &["--max-tokens is 0, and the tokenizer adds 2 special tokens"]);
    import(directory.path(), |request| request.max_tokens = Some(3)).unwrap();
}

#[test]
fn settings_are_not_ignored() {
    let directory = bert();
    edit_json(&directory.path().join("sentence_bert_config.json"), |config| {
        config["do_lower_case"] = json!(true)
    });
    let expected = import(directory.path(), |_| {}).unwrap().embed(&["The RED cat"], 1);
    // A class without rules of its own takes the file as it is: then it is sentence-transformers that lowercases.
    edit_json(&directory.path().join("tokenizer_config.json"), |config| {
        config["tokenizer_class"] = json!("PreTrainedTokenizerFast")
    });
    edit_json(&directory.path().join("tokenizer.json"), |tokenizer| tokenizer["normalizer"] = Value::Null);
    assert_eq!(import(directory.path(), |_| {}).unwrap().embed(&["The RED cat"], 1), expected);

    let directory = bert();
    let prompts = json!({"prompts": {"query": "q: "}, "default_prompt_name": "question"});
    fs::write(directory.path().join("config_sentence_transformers.json"), prompts.to_string()).unwrap();
    assert_names(&refused(&directory, |_| {}), &["default_prompt_name `question` is none of its prompts"]);
}

#[test]
fn exports_that_cannot_be_served() {
    let vocabulary = TinyCheckpoint::bert().vocabulary().len();
    let export = || TinyExport::new(vocabulary);
    let with = |export: TinyExport| {
        let directory = bert();
        fs::remove_file(directory.path().join("model.safetensors")).unwrap();
        export.write(directory.path());
        directory
    };
    for precision in [Precision::Int8, Precision::Fp16] {
        let message = refused(&with(export()), |request| request.precision = precision);
        assert_names(&message, &["changing an ONNX export to", "its weights stay fp32", "model.safetensors"]);
    }
    let mpnet = with(export());
    edit_json(&mpnet.path().join("config.json"), |config| config["model_type"] = json!("mpnet"));
    let message = refused(&mpnet, |request| request.precision = Precision::Int8);
    assert_names(&message, &["changing an ONNX export to int8", "architecture `mpnet`"]);
    let message = refused(&with(TinyExport { output: "logits", ..export() }), |_| {});
    assert_names(
        &message,
        &["/model.onnx` cannot be served", "no output named sentence_embedding", "it has: logits"],
    );
    let message = refused(&with(TinyExport { extra_input: Some("pixel_values"), ..export() }), |_| {});
    assert_names(&message, &["input `pixel_values` is not known"]);
    let garbage = with(export());
    fs::write(garbage.path().join("model.onnx"), b"\xff\xff\xff\xff not a graph").unwrap();
    assert_names(&refused(&garbage, |_| {}), &["model.onnx` is not usable"]);
    fs::write(garbage.path().join("model.onnx"), b"").unwrap();
    assert_names(&refused(&garbage, |_| {}), &["it holds no ONNX graph"]);
    let lone = with(TinyExport { location: "table.bin", ..export() });
    fs::remove_file(lone.path().join("table.bin")).unwrap();
    assert_names(&refused(&lone, |_| {}), &["cannot read", "table.bin"]);
}
