//! Small checkpoints whose settings are changed one at a time, against the vectors that sentence-transformers 6.2 gives for them
//! (scripts/reference/settings.py).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sextant::import::ImportError;

use super::{import, publish};
use crate::support;
use crate::support::app::TestApp;
use crate::support::{distance, floats};

/// The largest difference of a component that another order of sums may make.
const ALLOWED: f32 = 1e-5;

#[derive(Deserialize)]
struct Recorded {
    texts: Vec<String>,
    cases: BTreeMap<String, Case>,
}

#[derive(Deserialize)]
struct Case {
    base: String,
    edits: BTreeMap<String, Value>,
    max_tokens: usize,
    vectors: Vec<Vec<f32>>,
    query: Option<Vec<Vec<f32>>>,
    document: Option<Vec<Vec<f32>>>,
}

pub(super) fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/references")
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// What was recorded.
pub(super) fn recorded() -> Value {
    serde_json::from_slice(&fs::read(data().join("settings.json")).unwrap()).unwrap()
}

/// JSON merge patch, with "(removed)" in the place of null, which is a value here.
fn patch(value: &mut Value, with: &Value) {
    let (Some(there), Some(parts)) = (value.as_object_mut(), with.as_object()) else {
        *value = with.clone();
        return;
    };
    for (key, part) in parts {
        if part == "(removed)" {
            there.remove(key);
        } else {
            patch(there.entry(key.clone()).or_insert_with(|| json!({})), part);
        }
    }
}

/// The base checkpoint with these edits.
fn edited(base: &str, edits: &BTreeMap<String, Value>, into: &Path) {
    copy(&data().join(base), into);
    for (name, with) in edits {
        let path = into.join(name);
        if with == "(removed)" {
            fs::remove_file(path).unwrap();
            continue;
        }
        let text = fs::read(&path).unwrap_or_else(|_| b"{}".to_vec());
        let mut value: Value = serde_json::from_slice(&text).unwrap();
        patch(&mut value, with);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value.to_string()).unwrap();
    }
}

/// What the edited base becomes.
fn import_edited(base: &str, edits: Value) -> Result<super::Imported, ImportError> {
    let directory = tempfile::tempdir().unwrap();
    let edits: Map<String, Value> = serde_json::from_value(edits).unwrap();
    edited(base, &edits.into_iter().collect(), directory.path());
    import(directory.path(), |_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_setting_of_a_checkpoint_gives_the_librarys_vectors() {
    let recorded: Recorded =
        serde_json::from_slice(&fs::read(data().join("settings.json")).unwrap()).unwrap();
    let models = tempfile::tempdir().unwrap();
    let repository = support::open(models.path());
    let mut names = Vec::new();
    for (index, (title, case)) in recorded.cases.iter().enumerate() {
        let checkpoint = tempfile::tempdir().unwrap();
        edited(&case.base, &case.edits, checkpoint.path());
        let name = format!("case-{index}");
        let manifest = publish(&repository, &name, checkpoint.path()).await;
        let manifest = manifest.unwrap_or_else(|error| panic!("{title}: {error}"));
        // What processing_kwargs says, the library tells nobody.
        if !title.starts_with("processing_kwargs") {
            assert_eq!(manifest.max_tokens, case.max_tokens.min(64), "{title}");
        }
        names.push((title, case, name));
    }
    let app = TestApp::repository(models.path()).await;
    let mut compared = 0;
    for (title, case, name) in names {
        let kinds = [
            (None, Some(&case.vectors)),
            (Some("query"), case.query.as_ref()),
            (Some("document"), case.document.as_ref()),
        ];
        for (kind, expected) in kinds.into_iter().filter_map(|(kind, expected)| Some((kind, expected?))) {
            let mut body = json!({ "model": name, "input": recorded.texts });
            if let Some(kind) = kind {
                body["input_type"] = kind.into();
            }
            let answer = app.post("/v1/embeddings", body).await;
            assert_eq!(answer.status, 200, "{title}: {}", answer.text());
            let answer = answer.json();
            for ((text, expected), item) in
                recorded.texts.iter().zip(expected).zip(answer["data"].as_array().unwrap())
            {
                let vector = floats(&item["embedding"]);
                assert_eq!(vector.len(), expected.len(), "{title}");
                let off = distance(&vector, expected);
                assert!(off <= ALLOWED, "{title}, {kind:?}: off by {off}: {text:?}");
                compared += 1;
            }
        }
    }
    assert!(compared > 800, "{compared} vectors were compared");
}

/// Base, edits, and the beginning of what is said.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "bert",
        r#"{"tokenizer_config.json": {"split_special_tokens": true}}"#,
        "`split_special_tokens` true in",
    ),
    (
        "bert",
        r#"{"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["a.B", null]}}}"#,
        "a tokenizer that is code of the repository's own",
    ),
    (
        "bert",
        r#"{"tokenizer_config.json": {"truncation_side": "middle"}}"#,
        "its `truncation_side` is \"middle\"",
    ),
    ("bert", r#"{"tokenizer_config.json": {"do_lower_case": "no"}}"#, "its `do_lower_case` is \"no\""),
    (
        "bert",
        r#"{"tokenizer_config.json": {"tokenizer_class": "XLMRobertaTokenizer"}}"#,
        "its model is WordPiece, and XLMRobertaTokenizer",
    ),
    (
        "bert",
        r#"{"tokenizer_config.json": {"cls_token": "[BEGIN]"}}"#,
        "it has 184 tokens and the model has vectors for 183",
    ),
    (
        "roberta",
        r#"{"tokenizer_config.json": {"tokenizer_class": "BertTokenizer"}}"#,
        "its model is BPE, and BertTokenizer",
    ),
    (
        "bert",
        r#"{"sentence_bert_config.json": {"transformer_task": "fill-mask"}}"#,
        "`transformer_task` \"fill-mask\" in",
    ),
    (
        "bert",
        r#"{"sentence_bert_config.json": {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}}}"#,
        "`modality_config.text` {",
    ),
    (
        "bert",
        r#"{"sentence_bert_config.json": {"modality_config": {"message": {"method": "forward"}}}}"#,
        "`modality_config.message` {",
    ),
    (
        "bert",
        r#"{"sentence_bert_config.json": {"module_output_name": "sentence_embedding"}}"#,
        "`module_output_name` \"sentence_embedding\"",
    ),
    (
        "bert",
        r#"{"sentence_bert_config.json": {"query_expansion": {"strategy": "fixed", "length": 32}}}"#,
        "`query_expansion` {",
    ),
    ("bert", r#"{"sentence_bert_config.json": {"query_length": 128}}"#, "`query_length` in"),
    (
        "bert",
        r#"{"sentence_bert_config.json": {"processing_kwargs": {"text": {"truncation": false}}}}"#,
        "`processing_kwargs.text.truncation` false",
    ),
    (
        "bert",
        r#"{"sentence_bert_config.json": {"processing_kwargs": {"text": {"add_special_tokens": false}}}}"#,
        "`processing_kwargs.text.add_special_tokens`",
    ),
    (
        "bert",
        r#"{"sentence_bert_config.json": {"processing_kwargs": {"chat_template": {"a": 1}}}}"#,
        "`processing_kwargs.chat_template.a` 1",
    ),
    (
        "bert",
        r#"{"sentence_bert_config.json": {"model_args": {"num_hidden_layers": 1}}}"#,
        "`model_args.num_hidden_layers` 1",
    ),
    (
        "bert",
        r#"{"sentence_bert_config.json": {"config_args": {"hidden_act": "relu"}}}"#,
        "`config_args.hidden_act` \"relu\"",
    ),
    (
        "bert",
        r#"{"sentence_bert_config.json": {"tokenizer_name_or_path": "other/model"}}"#,
        "`tokenizer_name_or_path` \"other/model\"",
    ),
    ("bert", r#"{"sentence_bert_config.json": {"max_seq_len": 8}}"#, "`max_seq_len` 8 in"),
    ("bert", r#"{"sentence_bert_config.json": {"max_seq_length": "8"}}"#, "its `max_seq_length` is \"8\""),
    (
        "bert",
        r#"{"config_sentence_transformers.json": {"model_type": "CrossEncoder"}}"#,
        "`model_type` \"CrossEncoder\"",
    ),
    (
        "bert",
        r#"{"config_sentence_transformers.json": {"similarity_fn_name": "maxsim"}}"#,
        "`similarity_fn_name` \"maxsim\"",
    ),
    ("bert", r#"{"config_sentence_transformers.json": {"truncate_dim": 0}}"#, "its `truncate_dim` is 0"),
    (
        "bert",
        r#"{"config_sentence_transformers.json": {"normalize_embeddings": true}}"#,
        "`normalize_embeddings` true in",
    ),
    (
        "bert",
        r#"{"config_sentence_transformers.json": {"prompts": {"query": 1}}}"#,
        "its prompt `query` is 1",
    ),
    (
        "bert",
        r#"{"config_sentence_transformers.json": {"default_prompt_name": "nope"}}"#,
        "its default_prompt_name `nope`",
    ),
    (
        "bert",
        r#"{"1_Pooling/config.json": {"pooling_mode": ["mean", "max"]}}"#,
        "the pooling mean with max of",
    ),
    ("bert", r#"{"1_Pooling/config.json": {"include_prompt": false}}"#, "`include_prompt` false"),
    ("bert", r#"{"1_Pooling/config.json": {"scale": 2}}"#, "`scale` 2 in"),
    (
        "bert",
        r#"{"2_Normalize/config.json": {"module_input_name": "token_embeddings"}}"#,
        "`module_input_name` \"token_embeddings\"",
    ),
    ("bert", r#"{"config.json": {"pruned_heads": {"0": [1]}}}"#, "attention with heads taken out"),
    ("bert", r#"{"config.json": {"model_type": "clip"}}"#, "a model of images and texts (CLIP)"),
    ("bert", r#"{"config.json": {"model_type": "dinov2"}}"#, "a model of images (DINOv2)"),
    ("bert", r#"{"modules.json": "(removed)"}"#, "the checkpoint has no modules.json"),
    (
        "bert",
        r#"{"modules.json": "(removed)", "config.json": {"architectures": ["BertForSequenceClassification"]}}"#,
        "a reranker or classifier",
    ),
    (
        "bert",
        r#"{"modules.json": "(removed)", "config.json": {"architectures": ["BertForMaskedLM"]}}"#,
        "a bare language model or a sparse one",
    ),
    (
        "bert",
        r#"{"modules.json": "(removed)", "config.json": {"architectures": ["HF_ColBERT"]}}"#,
        "a multi-vector model (ColBERT)",
    ),
];

#[test]
fn a_setting_that_cannot_be_obeyed_is_refused_by_name() {
    for (base, edits, told) in REFUSED {
        match import_edited(base, serde_json::from_str(edits).unwrap()) {
            Ok(_) => panic!("{edits} was imported"),
            Err(error) => assert!(error.to_string().contains(told), "{edits}: {error}"),
        }
    }
}

#[test]
fn an_import_tells_what_it_took_what_it_assumed_and_what_it_did_not_understand() {
    let edits = json!({
        "config_sentence_transformers.json": {"prompts": {"query": "q: ", "passage": "p: ", "document": "(removed)"}, "similarity_fn_name": "dot"},
        "tokenizer_config.json": {"do_lower_case": false, "a_new_key": 1},
        "config.json": {"another_new_key": 2, "dtype": "bfloat16"},
    });
    let imported = import_edited("bert", edits).unwrap();
    let taken = imported.facts.taken().join("\n");
    for told in [
        "similarity dot (config_sentence_transformers.json, similarity_fn_name)",
        "prompt `query` (config_sentence_transformers.json, prompts)",
        "more exactly than sentence-transformers does in bfloat16",
        "pooling mean (1_Pooling/config.json)",
        "vectors of unit length (modules.json)",
        "\"lowercase\":false",
        "longest input 64 tokens (tokenizer_config.json, model_max_length)",
    ] {
        assert!(taken.contains(told), "{told}: {taken}");
    }
    assert_eq!(
        imported.facts.left_out(),
        ["`a_new_key` in tokenizer_config.json", "`another_new_key` in config.json"]
    );
    let [assumed] = imported.manifest.assumptions.as_slice() else {
        panic!("{:?}", imported.manifest.assumptions)
    };
    assert!(assumed.starts_with("Documents get the prompt `passage`"), "{assumed}");
    let card = fs::read_to_string(imported.path().join("MODEL_CARD.md")).unwrap();
    for told in [
        "## Taken from the checkpoint",
        "- pooling mean",
        "## Not understood",
        "- `another_new_key` in config.json",
        "- Documents get",
    ] {
        assert!(card.contains(told), "{told}: {card}");
    }
}

#[test]
fn a_tokenizer_that_the_library_takes_as_it_is_stays_byte_for_byte() {
    let padding = json!({"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "[PAD]"});
    let truncation =
        json!({"direction": "Right", "max_length": 128, "strategy": "LongestFirst", "stride": 0});
    for (base, edits) in [
        ("bert", json!({})),
        ("roberta", json!({})),
        ("xlmr", json!({})),
        ("bert", json!({"tokenizer.json": {"padding": padding, "truncation": truncation}})),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let edits: Map<String, Value> = serde_json::from_value(edits).unwrap();
        edited(base, &edits.into_iter().collect(), directory.path());
        let imported = import(directory.path(), |_| ()).unwrap();
        let file = |folder: &Path| fs::read(folder.join("tokenizer.json")).unwrap();
        assert!(file(imported.path()) == file(directory.path()), "{base}: {:?}", imported.facts.taken());
    }
}

#[test]
fn settings_count_in_the_space_and_their_defaults_do_not() {
    let space = |edits| import_edited("bert", edits).unwrap().manifest.space;
    let plain = space(json!({}));
    for same in [
        json!({"tokenizer_config.json": {"padding_side": "left", "do_lower_case": true, "strip_accents": null}}),
        json!({"config_sentence_transformers.json": {"similarity_fn_name": "dot", "truncate_dim": null}}),
        json!({"1_Pooling/config.json": {"pooling_mode": "(removed)", "pooling_mode_mean_tokens": true}}),
        json!({"config.json": {"a_new_key": 1}}),
    ] {
        assert_eq!(space(same.clone()), plain, "{same}");
    }
    let mut spaces = vec![plain];
    for other in [
        json!({"tokenizer_config.json": {"do_lower_case": false}}),
        json!({"tokenizer_config.json": {"strip_accents": false}}),
        json!({"tokenizer_config.json": {"truncation_side": "left"}}),
        json!({"tokenizer_config.json": {"extra_special_tokens": ["quick"]}}),
        json!({"sentence_bert_config.json": {"query_length": 7}}),
        json!({"sentence_bert_config.json": {"document_length": 7}}),
        json!({"sentence_bert_config.json": {"processing_kwargs": {"text": {"max_length": 7}}}}),
        json!({"config_sentence_transformers.json": {"truncate_dim": 6}}),
        json!({"config_sentence_transformers.json": {"prompts": {"query": "q: "}}}),
    ] {
        let other_space = space(other.clone());
        assert!(!spaces.contains(&other_space), "{other}");
        spaces.push(other_space);
    }
}
