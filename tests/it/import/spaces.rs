//! A version's space changes whenever a vector may, and only then.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sextant::engine::Pooling;
use sextant::import::Request;
use sextant::repository::manifest::{Graph, Precision};
use tempfile::TempDir;

use super::{TEXTS, import};
use crate::support::checkpoint::TinyCheckpoint;
use crate::support::edit_json;
use crate::support::export::TinyExport;

const PIPELINE: &str = "config_sentence_transformers.json";

fn bert() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    TinyCheckpoint::bert().write(directory.path());
    directory
}

fn space_with(checkpoint: &Path, ask: impl FnOnce(&mut Request<'_>)) -> String {
    import(checkpoint, ask).unwrap().manifest.space.0
}

fn space(checkpoint: &Path) -> String {
    space_with(checkpoint, |_| {})
}

/// The space of a tiny BERT whose config.json was changed.
fn space_of_config(change: impl FnOnce(&mut Value)) -> String {
    let directory = bert();
    edit_json(&directory.path().join("config.json"), change);
    space(directory.path())
}

#[test]
fn what_shapes_vectors_makes_another_space() {
    let directory = bert();
    let texts = directory.path().join("texts.txt");
    fs::write(&texts, "the red cat\nthe small dog\n").unwrap();
    let ask = |ask: &dyn Fn(&mut Request<'_>)| space_with(directory.path(), ask);
    let calibrated = import(directory.path(), |request| {
        request.precision = Precision::Int8;
        request.calibrate = Some(&texts);
    });
    let mut spaces = vec![
        space(directory.path()),
        calibrated.unwrap().manifest.space.0,
        ask(&|request| request.precision = Precision::Int8),
        ask(&|request| request.precision = Precision::Fp16),
        ask(&|request| request.pooling = Some(Pooling::Cls)),
        ask(&|request| request.max_tokens = Some(63)),
        ask(&|request| drop(request.prompts.insert("query".to_owned(), "query: ".to_owned()))),
    ];
    for default in [Value::Null, json!("a"), json!("b")] {
        let pipeline = json!({"prompts": {"a": "x: ", "b": "y: "}, "default_prompt_name": default});
        fs::write(directory.path().join(PIPELINE), pipeline.to_string()).unwrap();
        spaces.push(space(directory.path()));
    }
    for (key, value) in [
        ("num_attention_heads", json!(2)),
        ("hidden_act", json!("relu")),
        ("hidden_act", json!("gelu_new")),
        ("layer_norm_eps", json!(1e-5)),
    ] {
        spaces.push(space_of_config(|config| config[key] = value));
    }
    // The same weights with positions counted from another row.
    for padding in [0, 1, 2] {
        spaces.push(space_of_config(|config| {
            config["model_type"] = json!("roberta");
            config["pad_token_id"] = json!(padding);
        }));
    }
    let other = bert();
    edit_json(&other.path().join("tokenizer.json"), |tokenizer| {
        tokenizer["normalizer"]["lowercase"] = json!(false);
    });
    spaces.push(space(other.path()));
    let other = bert();
    edit_json(&other.path().join("modules.json"), |modules| {
        modules.as_array_mut().unwrap().truncate(2);
    });
    spaces.push(space(other.path()));
    TinyCheckpoint { seed: 2, ..TinyCheckpoint::bert() }.write(other.path());
    spaces.push(space(other.path()));
    let all = spaces.len();
    spaces.sort();
    spaces.dedup();
    assert_eq!(spaces.len(), all);
}

#[test]
fn what_shapes_nothing_leaves_the_space_as_it_is() {
    let first = space(bert().path());
    let directory = bert();
    fs::write(directory.path().join("README.md"), "---\nlicense: mit\n---\n").unwrap();
    let asked = space_with(directory.path(), |request| {
        request.model = "another";
        request.intended_use = Some("Another.".to_owned());
        request.licence = Some("MIT".to_owned());
        request.matryoshka_dimensions = vec![8];
    });
    assert_eq!(asked, first);
    // A checkpoint's own figures, asked for.
    assert_eq!(space_with(directory.path(), |request| request.max_tokens = Some(64)), first);
    assert_eq!(space_with(directory.path(), |request| request.pooling = Some(Pooling::Mean)), first);
    for (key, value) in [
        ("_name_or_path", json!("somewhere/else")),
        ("transformers_version", json!("9.9.9")),
        ("architectures", json!(["BertModel"])),
        ("classifier_dropout", Value::Null),
        ("attention_probs_dropout_prob", json!(0.3)),
        // BERT counts its positions from 0 whatever its padding is.
        ("pad_token_id", json!(7)),
    ] {
        assert_eq!(space_of_config(|config| config[key] = value), first, "{key}");
    }
    for key in ["hidden_act", "layer_norm_eps", "position_embedding_type", "type_vocab_size"] {
        let defaulted = space_of_config(|config| drop(config.as_object_mut().unwrap().remove(key)));
        assert_eq!(defaulted, first, "`{key}` had the value that it has where it is not written");
    }
}

#[test]
fn spaces_of_exports_are_of_their_files() {
    let directory = bert();
    let export = TinyExport::new(TinyCheckpoint::bert().vocabulary().len());
    export.write(directory.path());
    let padded = |request: &mut Request<'_>| request.graph = Some(Graph::Padded);
    let first = import(directory.path(), padded).unwrap();
    edit_json(&directory.path().join("config.json"), |config| config["num_attention_heads"] = json!(2));
    let same = import(directory.path(), padded).unwrap();
    assert_eq!(same.manifest.space, first.manifest.space, "an export does not ask config.json");
    assert_eq!(same.embed(&TEXTS, 1), first.embed(&TEXTS, 1));
    TinyExport { half: true, ..export }.write(directory.path());
    assert_ne!(import(directory.path(), padded).unwrap().manifest.space, first.manifest.space);
}
