//! What the tests share.

pub mod app;
pub mod checkpoint;
pub mod contract;
pub mod fake;

use serde_json::Value;
use sextant::engine::Pooling;
use sextant::repository::manifest::{Graph, Manifest, Precision, SCHEMA, Source, Space};

/// A manifest for version 1 of `model`, with nothing out of the ordinary.
pub fn manifest(model: &str, dimensions: usize) -> Manifest {
    Manifest {
        schema: SCHEMA,
        model: model.to_owned(),
        version: 1,
        created: "2026-01-01T00:00:00Z".to_owned(),
        licence: "MIT".to_owned(),
        architecture: "bert".to_owned(),
        graph: Graph::Packed,
        precision: Precision::Fp32,
        dimensions,
        matryoshka_dimensions: Vec::new(),
        max_tokens: 64,
        pooling: Pooling::Mean,
        normalise: true,
        space: Space("0123456789abcdef".to_owned()),
        training_data: "none".to_owned(),
        intended_use: "tests".to_owned(),
        default_query_prompt: None,
        default_document_prompt: None,
        default_prompt: None,
        source: Source::Directory { name: "tiny".to_owned() },
        calibration: None,
        prompts: [].into(),
        files: Vec::new(),
    }
}

/// A JSON list of numbers.
pub fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}
