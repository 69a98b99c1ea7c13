//! ONNX exports, taken over as they are.

use std::fs;
use std::path::Path;

use serde_json::json;
use sextant::repository::manifest::{Graph, Precision};
use tempfile::TempDir;

use super::{TEXTS, import};
use crate::support::checkpoint::{HIDDEN, TinyCheckpoint};
use crate::support::export::TinyExport;
use crate::support::{cosine, distance, edit_json};

/// A checkpoint whose architecture cannot be compiled, without weights.
fn checkpoint() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    TinyCheckpoint::bert().write(directory.path());
    fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    edit_json(&directory.path().join("config.json"), |config| config["model_type"] = json!("mpnet"));
    directory
}

fn export() -> TinyExport {
    TinyExport::new(TinyCheckpoint::bert().vocabulary().len())
}

/// What the export computes: the mean of the tokens' rows.
fn expected(export: &TinyExport, ids: &[u32]) -> Vec<f32> {
    let table = export.table();
    let row = |id: &u32| &table[*id as usize * HIDDEN..(*id as usize + 1) * HIDDEN];
    let mut vector: Vec<f32> = (0..HIDDEN).map(|c| ids.iter().map(|id| row(id)[c]).sum::<f32>()).collect();
    sextant::engine::pooling::normalise(&mut vector);
    vector
}

/// Imports the export in `directory` and checks its vectors.
fn check(directory: &Path, export: &TinyExport, precision: Precision) -> super::Imported {
    let version = import(directory, |_| {}).unwrap();
    assert_eq!((version.manifest.graph, version.manifest.precision), (Graph::Padded, precision));
    assert_eq!((version.manifest.dimensions, version.manifest.architecture.as_str()), (HIDDEN, "mpnet"));
    for (text, vector) in TEXTS.iter().zip(version.embed(&TEXTS, 3)) {
        assert!(cosine(&vector, &expected(export, &version.ids(text))) > 0.999_99, "{text:?}");
    }
    version
}

#[test]
fn an_export_is_copied_byte_for_byte() {
    let directory = checkpoint();
    export().write(directory.path());
    let version = check(directory.path(), &export(), Precision::Fp32);
    let read = |directory: &Path| fs::read(directory.join("model.onnx")).unwrap();
    assert_eq!(read(version.path()), read(directory.path()));
    assert!(
        fs::read_to_string(version.path().join("MODEL_CARD.md")).unwrap().contains("taken over as exported")
    );
}

#[test]
fn weights_beside_an_export_come_along() {
    let directory = checkpoint();
    let export = TinyExport { location: "weights/table.bin", half: true, ..export() };
    fs::create_dir(directory.path().join("onnx")).unwrap();
    export.write(&directory.path().join("onnx"));
    let version = check(directory.path(), &export, Precision::Fp16);
    assert!(version.path().join("weights/table.bin").is_file());
}

#[test]
fn weights_that_can_be_compiled_go_before_an_export_unless_it_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    TinyCheckpoint::bert().write(directory.path());
    export().write(directory.path());
    let compiled = import(directory.path(), |_| {}).unwrap();
    assert_eq!(compiled.manifest.graph, Graph::Packed);
    let taken = import(directory.path(), |request| request.graph = Some(Graph::Padded)).unwrap();
    assert_eq!(taken.manifest.graph, Graph::Padded);
    assert_ne!(taken.manifest.space, compiled.manifest.space);
    assert!(distance(&taken.embed(&TEXTS, 1)[1], &compiled.embed(&TEXTS, 1)[1]) > 1e-3);
    // Weights of an architecture that cannot be compiled are no obstacle either.
    edit_json(&directory.path().join("config.json"), |config| config["model_type"] = json!("mpnet"));
    check(directory.path(), &export(), Precision::Fp32);
}
