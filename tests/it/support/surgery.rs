//! Changes to a compiled graph that no import makes.

use std::fs;
use std::path::Path;

use prost::Message;
use sextant::onnx::{Model, Node, Tensor, data_type};

use super::checkpoint::HIDDEN;

/// Puts an operation with these constants, of shape `dims`, after the pooled vectors of the compiled graph in `directory`.
pub fn after_pooling(directory: &Path, operator: &str, dims: &[usize], values: &[f32]) {
    let path = directory.join("model.onnx");
    // Compiled graphs hold only what the schema here knows, so they may be encoded again.
    let mut model = Model::decode(fs::read(&path).unwrap().as_slice()).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let pooled = graph.node.iter_mut().flat_map(|node| &mut node.output).find(|name| *name == "pooled");
    *pooled.unwrap() = "untouched".to_owned();
    graph.initializer.push(Tensor {
        name: "surgery".to_owned(),
        dims: dims.iter().map(|&length| length as i64).collect(),
        data_type: data_type::FLOAT,
        raw_data: Some(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into()),
        ..Tensor::default()
    });
    graph.node.push(Node {
        input: vec!["untouched".to_owned(), "surgery".to_owned()],
        output: vec!["pooled".to_owned()],
        op_type: operator.to_owned(),
        ..Node::default()
    });
    fs::write(path, model.encode_to_vec()).unwrap();
}

/// An orthogonal matrix, `[HIDDEN, HIDDEN]`: components change places, and some their sign.
pub fn rotation() -> Vec<f32> {
    let mut matrix = vec![0.0; HIDDEN * HIDDEN];
    for row in 0..HIDDEN {
        matrix[row * HIDDEN + (row + 5) % HIDDEN] = if row % 3 == 0 { -1.0 } else { 1.0 };
    }
    matrix
}
