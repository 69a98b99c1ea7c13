//! Checkpoints that were made to take time or memory without end: the command ends with a message and leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::Output;

use prost::Message;
use serde_json::{Value, json};
use sextant::onnx::{
    Attribute, Extent, Function, Graph, Model, Node, Tensor, ValueInfo, attribute_type, data_type,
};
use tempfile::TempDir;

use crate::command::{path, sextant};
use crate::support::checkpoint::TinyCheckpoint;
use crate::support::edit_json;
use crate::support::export::{TinyExport, operation};

/// A checkpoint in `checkpoint`, and an empty folder for temporary files.
fn checkpoint() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    TinyCheckpoint::bert().write(&directory.path().join("checkpoint"));
    fs::create_dir(directory.path().join("tmp")).unwrap();
    directory
}

/// The same with an export in place of weights, changed by `change`.
fn export(change: impl FnOnce(&mut Model)) -> TempDir {
    let directory = checkpoint();
    let root = directory.path().join("checkpoint");
    fs::remove_file(root.join("model.safetensors")).unwrap();
    TinyExport::new(TinyCheckpoint::bert().vocabulary().len()).write(&root);
    let graph = root.join("model.onnx");
    let mut model = Model::decode(fs::read(&graph).unwrap().as_slice()).unwrap();
    change(&mut model);
    fs::write(graph, model.encode_to_vec()).unwrap();
    directory
}

/// Adds `value`, which `nodes` make, to the export's output.
fn adding(model: &mut Model, constants: Vec<Tensor>, nodes: Vec<Node>, value: &str) {
    let graph = model.graph.as_mut().unwrap();
    graph.initializer.extend(constants);
    let last = graph.node.last_mut().unwrap();
    let output = std::mem::replace(&mut last.output[0], "before".to_owned());
    graph.node.extend(nodes);
    graph.node.push(operation("Add", &["before", value], &output, vec![]));
}

fn integers(name: &str, dims: &[i64], values: &[i64]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type: data_type::INT64,
        raw_data: Some(bytes.into()),
        ..Tensor::default()
    }
}

/// A loop that adds nothing, so many times.
fn looping(times: i64) -> TempDir {
    let body = Graph {
        name: "body".to_owned(),
        node: vec![
            operation("Identity", &["again"], "and_again", vec![]),
            operation("Add", &["sum", "nothing"], "next_sum", vec![]),
        ],
        input: vec![
            ValueInfo::tensor("turn", data_type::INT64, []),
            ValueInfo::tensor("again", data_type::BOOL, []),
            ValueInfo::tensor("sum", data_type::FLOAT, [Extent::from(1)]),
        ],
        output: vec![
            ValueInfo::tensor("and_again", data_type::BOOL, []),
            ValueInfo::tensor("next_sum", data_type::FLOAT, [Extent::from(1)]),
        ],
        ..Graph::default()
    };
    let constant = |name: &str, dims: &[i64], data_type, bytes: &[u8]| Tensor {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type,
        raw_data: Some(bytes.to_vec().into()),
        ..Tensor::default()
    };
    let body = Attribute {
        name: "body".to_owned(),
        g: Some(body),
        r#type: attribute_type::GRAPH,
        ..Attribute::default()
    };
    export(|model| {
        let constants = vec![
            integers("times", &[], &[times]),
            constant("true", &[], data_type::BOOL, &[1]),
            constant("nothing", &[1], data_type::FLOAT, &[0; 4]),
        ];
        adding(
            model,
            constants,
            vec![operation("Loop", &["times", "true", "nothing"], "looped", vec![body])],
            "looped",
        );
    })
}

/// A constant of so many zeros, of which the sum is taken.
fn zeros(count: i64) -> TempDir {
    export(|model| {
        let all = Attribute::int("keepdims", 0);
        adding(
            model,
            vec![integers("count", &[1], &[count])],
            vec![
                operation("ConstantOfShape", &["count"], "zeros", vec![]),
                operation("ReduceMax", &["zeros"], "zero", vec![all]),
            ],
            "zero",
        );
    })
}

/// `levels` functions, each of which calls the next ten times.
fn nested(levels: usize) -> TempDir {
    export(|model| {
        model.functions = (0..levels)
            .map(|level| {
                let callee = if level == 0 { "Identity".to_owned() } else { format!("f{}", level - 1) };
                let domain = if level == 0 { "" } else { "nested" };
                let call = Node { domain: domain.to_owned(), ..operation(&callee, &["x"], "y", vec![]) };
                Function {
                    name: format!("f{level}"),
                    domain: "nested".to_owned(),
                    node: vec![call; 10],
                    ..Function::default()
                }
            })
            .collect();
        let call = operation(&format!("f{}", levels - 1), &["before"], "called", vec![]);
        adding(model, vec![], vec![Node { domain: "nested".to_owned(), ..call }], "called");
    })
}

/// A tokenizer of no class with rules of its own, which would put its own in place of what is changed.
fn tokenizer(change: impl FnOnce(&mut Value)) -> TempDir {
    let directory = checkpoint();
    let root = directory.path().join("checkpoint");
    edit_json(&root.join("tokenizer_config.json"), |config| {
        config["tokenizer_class"] = json!("PreTrainedTokenizerFast");
    });
    edit_json(&root.join("tokenizer.json"), change);
    directory
}

fn import(directory: &TempDir, more: &[&str]) -> Output {
    let (checkpoint, models) = (path(directory, "checkpoint"), path(directory, "models"));
    let mut command = sextant(&["import", &checkpoint, "--models", &models, "--name", "tiny"]);
    command.args(more).env("TMPDIR", directory.path().join("tmp")).output().unwrap()
}

/// The message of an import that ends, and leaves neither files nor folders.
fn ended(directory: &TempDir, more: &[&str]) -> String {
    let output = import(directory, more);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("error: ") && text.trim_end().lines().count() == 1, "{text}");
    assert_eq!(directory.path().join("tmp").read_dir().unwrap().count(), 0, "temporary files stay");
    assert!(!Path::new(&path(directory, "models")).exists(), "the repository has something");
    text
}

fn succeeds(directory: &TempDir, more: &[&str]) {
    let output = import(directory, more);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_graph_that_never_ends_is_ended_after_the_import_timeout() {
    succeeds(&looping(3), &[]);
    let text = ended(&looping(i64::MAX), &["--import-timeout", "3s"]);
    assert!(text.contains("took longer than 3s, while it was at `"), "{text}");
    assert!(text.contains("nothing was published") && text.contains("`--import-timeout`"), "{text}");
}

#[test]
fn a_graph_that_takes_more_memory_than_it_may_is_ended() {
    const MOST: &str = "700000000";
    succeeds(&zeros(1000), &["--import-memory", MOST]);
    // 4 GB.
    let text = ended(&zeros(1_000_000_000), &["--import-memory", MOST]);
    assert!(text.contains(" MB of memory, of 700 MB, while it was at `"), "{text}");
    assert!(text.contains("nothing was published") && text.contains("`--import-memory`"), "{text}");
}

#[test]
fn functions_that_call_each_other_over_and_over_are_counted_and_refused() {
    let text = ended(&nested(10), &[]);
    assert!(text.contains("model.onnx` is not usable: its graph has 11111111"), "{text}");
    assert!(text.contains("at most 200000 are taken"), "{text}");
}

#[test]
fn tokenizers_that_make_a_text_grow_without_measure_are_refused_before_they_see_one() {
    let replacing = |content: &str, times: usize| {
        let step = json!({"type": "Replace", "pattern": {"String": "a"}, "content": content});
        json!({"type": "Sequence", "normalizers": vec![step; times]})
    };
    // 900 bytes of JSON, by which a sentence becomes gigabytes.
    let text = ended(&tokenizer(|file| file["normalizer"] = replacing(&"a".repeat(12), 9)), &[]);
    assert!(
        text.contains(
            "tokenizer.json` is not usable: its normalizer and pre-tokenizer make up to 5.160e9 bytes of one"
        ),
        "{text}"
    );
    let twice =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let levels = json!({"type": "Sequence", "pretokenizers": vec![twice; 30]});
    let text = ended(&tokenizer(|file| file["pre_tokenizer"] = levels), &[]);
    assert!(text.contains("normalizer and pre-tokenizer make up to 8.053e9 bytes"), "{text}");
    let decoders = json!({"type": "Sequence", "decoders": replacing(&"a".repeat(12), 9)["normalizers"]});
    let text = ended(&tokenizer(|file| file["decoder"] = decoders), &[]);
    assert!(text.contains("its decoder makes up to 5.160e9 bytes"), "{text}");
    let copies = |file: &mut Value| {
        let copy = json!({"Sequence": {"id": "A", "type_id": 0}});
        file["post_processor"]["single"] = json!(vec![copy; 5000]);
    };
    let text = ended(&tokenizer(copies), &[]);
    assert!(text.contains("its post-processor makes up to 5.00"), "{text}");
    let text = ended(&tokenizer(|file| file["model"]["max_input_chars_per_word"] = json!(1_000_000)), &[]);
    assert!(text.contains("its max_input_chars_per_word is 1000000, and at most 1000 are taken"), "{text}");
    let long = "x".repeat(10_000);
    let text = ended(&tokenizer(|file| file["model"]["vocab"][&long] = json!(0)), &[]);
    assert!(text.contains("it has a token of 10000 bytes"), "{text}");
    succeeds(&tokenizer(|file| file["normalizer"] = replacing("aa", 3)), &[]);
}

#[test]
fn a_prompt_as_long_as_a_book_is_refused() {
    let with_prompt = |bytes: usize| {
        let directory = checkpoint();
        let prompts = json!({"prompts": {"query": "x".repeat(bytes)}});
        let path = directory.path().join("checkpoint/config_sentence_transformers.json");
        fs::write(path, prompts.to_string()).unwrap();
        directory
    };
    let text = ended(&with_prompt(1_000_000), &[]);
    assert!(text.contains("its prompt `query` has 1000000 bytes, and at most 16384 are taken"), "{text}");
    succeeds(&with_prompt(1000), &[]);
}
