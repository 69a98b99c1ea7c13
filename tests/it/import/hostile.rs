//! Checkpoints and exports that were made to be read past what they are, or to give away what lies beside them.

use std::fs;
use std::path::Path;

use prost::Message;
use serde_json::json;
use sextant::onnx::{Entry, Model};
use tempfile::TempDir;

use super::import;
use super::refused::{assert_names, bert, refused};
use crate::support::checkpoint::TinyCheckpoint;
use crate::support::edit_json;
use crate::support::export::TinyExport;

#[test]
fn exports_whose_weights_lie_elsewhere() {
    let vocabulary = TinyCheckpoint::bert().vocabulary().len();
    for location in
        ["../secret.bin", "/tmp/secret.bin", "a/../../secret.bin", "tokenizer.json", "MANIFEST.toml"]
    {
        let directory = bert();
        fs::remove_file(directory.path().join("model.safetensors")).unwrap();
        TinyExport { location: "table.bin", ..TinyExport::new(vocabulary) }.write(directory.path());
        let path = directory.path().join("model.onnx");
        let mut model = Model::decode(fs::read(&path).unwrap().as_slice()).unwrap();
        model.graph.as_mut().unwrap().initializer[0].external_data[0].value = location.to_owned();
        fs::write(&path, model.encode_to_vec()).unwrap();
        let message = refused(&directory, |_| {});
        assert_names(
            &message,
            &[&format!("its weights lie in `{location}`"), "a file of their own beside it"],
        );
    }
}

/// What a link leads to would be published as the checkpoint's own.
#[test]
fn a_link_out_of_the_checkpoint() {
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = |directory: &TempDir, name: &str| {
        let (here, there) = (directory.path().join(name), elsewhere.path().join("secret"));
        fs::copy(&here, &there).unwrap();
        fs::remove_file(&here).unwrap();
        std::os::unix::fs::symlink(there, here).unwrap();
    };
    for name in [
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "tokenizer_config.json",
        "config_sentence_transformers.json",
        "README.md",
    ] {
        let directory = bert();
        let path = directory.path().join(name);
        if !path.exists() {
            fs::write(path, "{}").unwrap();
        }
        moved(&directory, name);
        assert_names(
            &refused(&directory, |_| {}),
            &[name, "it is a link out of the checkpoint, to `", "secret`"],
        );
    }
    for (location, name) in [("", "model.onnx"), ("weights/table.bin", "weights/table.bin")] {
        let directory = bert();
        fs::remove_file(directory.path().join("model.safetensors")).unwrap();
        TinyExport { location, ..TinyExport::new(TinyCheckpoint::bert().vocabulary().len()) }
            .write(directory.path());
        moved(&directory, name);
        assert_names(&refused(&directory, |_| {}), &[name, "it is a link out of the checkpoint"]);
    }
    // The hub's own cache is made of links into the folder beside.
    let hub = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (hub.path().join("blobs"), hub.path().join("snapshots/0123"));
    fs::create_dir(&blobs).unwrap();
    TinyCheckpoint::bert().write(&snapshot);
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::rename(snapshot.join(name), blobs.join(name)).unwrap();
        std::os::unix::fs::symlink(Path::new("../../blobs").join(name), snapshot.join(name)).unwrap();
    }
    import(&snapshot, |_| {}).unwrap();
}

/// As large as no protobuf message is: it is not read.
#[test]
fn an_export_that_no_reader_takes() {
    let directory = bert();
    fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    let graph = fs::File::create(directory.path().join("model.onnx")).unwrap();
    graph.set_len(1 << 40).unwrap();
    assert_names(&refused(&directory, |_| {}), &["model.onnx", "more than 2147483647 bytes"]);
}

/// Sparse files, which take no room on the disk, and brackets without an end.
#[test]
fn what_is_larger_or_deeper_than_such_a_file_is() {
    for name in ["config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json", "README.md"] {
        let directory = bert();
        let path = directory.path().join(name);
        fs::OpenOptions::new().create(true).append(true).open(&path).unwrap().set_len(1 << 30).unwrap();
        assert_names(&refused(&directory, |_| {}), &[name, "bytes, which no file of its kind has"]);
        if name != "README.md" {
            fs::write(&path, "[".repeat(1_000_000)).unwrap();
            assert_names(&refused(&directory, |_| {}), &[name]);
        }
    }
    let directory = bert();
    let mut weights = 99_000_000_u64.to_le_bytes().to_vec();
    weights.resize(1_000_000, b'[');
    fs::write(directory.path().join("model.safetensors"), weights).unwrap();
    assert_names(&refused(&directory, |_| {}), &["model.safetensors", "cut off"]);
}

/// Found by a fuzz target: the library that reads it does not refuse it, it panics.
#[test]
fn a_tokenizer_whose_decoder_is_no_json() {
    let directory = bert();
    let path = directory.path().join("tokenizer.json");
    let text = fs::read_to_string(&path).unwrap();
    let decoder = text.find("\"decoder\"").unwrap();
    fs::write(&path, format!("{}: x}}", &text[..decoder + "\"decoder\"".len()])).unwrap();
    assert_names(&refused(&directory, |_| {}), &["tokenizer.json", "expected value"]);
}

#[test]
fn lengths_that_no_model_has() {
    let directory = bert();
    edit_json(&directory.path().join("config.json"), |config| {
        config["max_position_embeddings"] = json!(u64::MAX)
    });
    edit_json(&directory.path().join("sentence_bert_config.json"), |config| {
        config["max_seq_length"] = json!(u64::MAX)
    });
    assert_names(
        &refused(&directory, |_| {}),
        &["`embeddings.position_embeddings.weight`", "config.json makes it [18446744073709551615, 32]"],
    );
}

/// An export whose weights lie in another file, with one entry of what says so changed.
#[test]
fn weights_of_an_export_that_lie_where_they_must_not() {
    let directory = bert();
    fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    let export =
        TinyExport { location: "table.bin", ..TinyExport::new(TinyCheckpoint::bert().vocabulary().len()) };
    export.write(directory.path());
    let path = directory.path().join("model.onnx");
    let bytes = fs::metadata(directory.path().join("table.bin")).unwrap().len();
    let whole = Model::decode(fs::read(&path).unwrap().as_slice()).unwrap();
    let entry = |key: &str, value: String| Entry { key: key.to_owned(), value };
    for (entries, expected) in [
        (vec![], "its weights lie in ``"),
        (vec![entry("location", "../table.bin".into())], "its weights lie in `../table.bin`"),
        (vec![entry("location", "/etc/passwd".into())], "its weights lie in `/etc/passwd`"),
        (vec![entry("location", "missing".into())], "cannot read `"),
        (
            vec![entry("location", "table.bin".into()), entry("length", (bytes + 1).to_string())],
            "its weights end at byte ",
        ),
        (
            vec![
                entry("location", "table.bin".into()),
                entry("offset", "8".into()),
                entry("length", bytes.to_string()),
            ],
            "its weights end at byte ",
        ),
    ] {
        let mut model = whole.clone();
        let tensors = &mut model.graph.as_mut().unwrap().initializer;
        let table = tensors.iter_mut().find(|tensor| !tensor.external_data.is_empty()).unwrap();
        table.external_data = entries;
        fs::write(&path, model.encode_to_vec()).unwrap();
        assert_names(&refused(&directory, |_| {}), &[expected]);
    }
}
