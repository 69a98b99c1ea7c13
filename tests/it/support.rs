//! What tests share: tiny models that they make themselves, and what those must compute.

pub mod checkpoint;
pub mod export;
pub mod reference;

use std::fs;
use std::path::Path;

use sextant::engine::Runtime;

/// The library that `make setup` fetched.
pub fn runtime() -> &'static Runtime {
    Runtime::load(None).expect("the tests need ONNX Runtime: run `make setup`, or set ORT_DYLIB_PATH")
}

/// Changes a JSON file in place.
pub fn edit_json(path: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
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
