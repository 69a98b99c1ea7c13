//! A graph of one matrix product, run on a device before any model is: whether the device works at all, and what is wrong with it, should
//! be known within seconds and without a doubt about the model.

use ort::value::Tensor;
use prost::Message as _;

use super::Backend;
use crate::engine::options::{self, Graph, SessionOptions};
use crate::engine::placement::Placement;
use crate::onnx;

/// The product of the matrix that is fed and a constant one, both `[2, 2]`.
fn graph() -> Vec<u8> {
    let constant = [1.0_f32, 2.0, 3.0, 4.0];
    let matrix = |name| onnx::ValueInfo::tensor(name, onnx::data_type::FLOAT, [2.into(), 2.into()]);
    let graph = onnx::Graph {
        node: vec![onnx::Node {
            input: vec!["x".to_owned(), "w".to_owned()],
            output: vec!["y".to_owned()],
            op_type: "MatMul".to_owned(),
            ..onnx::Node::default()
        }],
        name: "trial".to_owned(),
        initializer: vec![onnx::Tensor {
            dims: vec![2, 2],
            data_type: onnx::data_type::FLOAT,
            name: "w".to_owned(),
            raw_data: Some(constant.map(f32::to_le_bytes).concat().into()),
            ..onnx::Tensor::default()
        }],
        input: vec![matrix("x")],
        output: vec![matrix("y")],
        ..onnx::Graph::default()
    };
    let model = onnx::Model {
        ir_version: 9,
        graph: Some(graph),
        opset_import: vec![onnx::OperatorSet { domain: String::new(), version: 17 }],
        ..onnx::Model::default()
    };
    model.encode_to_vec()
}

/// Runs the product on the device of `options`, and says where its one node lay and whether the product is right.
pub(super) fn run(backend: &Backend, options: SessionOptions) -> ort::Result<(Placement, bool)> {
    let mut session = options::commit(backend, Graph::Bytes(&graph()), options)?;
    let placement = Placement::of(&session)?;
    let x = Tensor::from_array(([2_usize, 2], vec![1.0_f32, 0.0, 1.0, 1.0]))?;
    let outputs = session.run(vec![("x", x)])?;
    let (_, product) = outputs["y"].try_extract_tensor::<f32>()?;
    Ok((placement, product == [1.0, 2.0, 4.0, 6.0]))
}
