//! What the tests share.

pub mod app;
pub mod certificates;
pub mod checkpoint;
pub mod contract;
pub mod export;
pub mod fake;
pub mod frames;
pub mod hostile;
pub mod load;
pub mod reference;
pub mod s3;
pub mod surgery;
pub mod trial;
pub mod wire;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sextant::engine::{Backend, Pooling, Runtime};
use sextant::repository::manifest::{Graph, Manifest, Precision, Source, Space};
use sextant::repository::{CacheSettings, Repository};

/// Where a test keeps the versions of the repository in the directory `models`: in there, under a name that no model can have. Not this
/// user's cache, which tests would fill, and not one of all tests: another's good copy would hide a file that is damaged here.
pub fn cache(models: &Path) -> PathBuf {
    models.join(".cache")
}

/// The repository in the directory `models`, which is made if it is not there.
pub fn open(models: &Path) -> Repository {
    let repository = Repository::open(models.to_str().unwrap(), true).unwrap();
    repository.with_cache(CacheSettings::new(Some(cache(models)), None))
}

/// A manifest for version 1 of `model`, with nothing out of the ordinary.
pub fn manifest(model: &str, dimensions: usize) -> Manifest {
    Manifest {
        schema: 1,
        model: model.to_owned(),
        version: 1,
        created: "2026-01-01T00:00:00Z".to_owned(),
        licence: "MIT".to_owned(),
        architecture: "bert".to_owned(),
        graph: Graph::Packed,
        precision: Precision::Fp32,
        dimensions,
        matryoshka_dimensions: Vec::new(),
        cut_to_dimensions: false,
        max_tokens: 64,
        max_query_tokens: None,
        max_document_tokens: None,
        truncate_start: false,
        pooling: Pooling::Mean,
        normalise: true,
        space: Space("0123456789abcdef".to_owned()),
        space_parent: None,
        depends_on_batch: Some(false),
        training_data: "none".to_owned(),
        intended_use: "tests".to_owned(),
        default_query_prompt: None,
        default_document_prompt: None,
        default_prompt: None,
        source: Source::Directory { name: "tiny".to_owned() },
        calibration: None,
        assumptions: Vec::new(),
        prompts: [].into(),
        files: Vec::new(),
    }
}

/// A JSON list of numbers.
pub fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

/// The library that `make setup` fetched.
pub fn runtime() -> &'static Runtime {
    Runtime::load(None).expect("the tests need ONNX Runtime: run `make setup`, or set ORT_DYLIB_PATH")
}

/// The processor under that library.
pub fn backend() -> Backend {
    Backend::cpu(runtime())
}

/// Says that a test is skipped for want of something that CI must have.
pub fn skipped(for_want_of: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{for_want_of}");
    // Past the capture of the test's output: nobody looks at that of a test that passes.
    let _nobody_to_tell = writeln!(std::io::stderr(), "skipped, {for_want_of}");
}

/// Changes a JSON file in place.
pub fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    fs::write(path, serde_json::to_vec(&value).unwrap()).unwrap();
}

/// The cosine of the angle between two vectors.
pub fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let dot = |left: &[f32], right: &[f32]| -> f64 {
        left.iter().zip(right).map(|(left, right)| f64::from(*left) * f64::from(*right)).sum()
    };
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
}

/// The largest difference of two components at the same place.
pub fn distance(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}
