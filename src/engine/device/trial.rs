//! A graph of a matrix product and one more operation, run on a device before any model is: whether the device works at all, and what is wrong with it,
//! should be known at once and without a doubt about the model.

use ort::value::Tensor;
use prost::Message as _;

use super::Backend;
use crate::engine::options::{self, Graph, SessionOptions};
use crate::engine::placement::Placement;
use crate::onnx;

/// The product of the matrix that is fed and a constant one, both `[2, 2]`, without what is below zero: a product is the work of cuBLAS, the rest
/// that of ONNX Runtime's own kernels, of which there may be none for this GPU.
fn graph() -> Vec<u8> {
    let node = |operator: &str, inputs: &[&str], output: &str| onnx::Node {
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        name: operator.to_owned(),
        op_type: operator.to_owned(),
        ..onnx::Node::default()
    };
    let constant = [1.0_f32, 2.0, 3.0, 4.0];
    let matrix = |name| onnx::ValueInfo::tensor(name, onnx::data_type::FLOAT, [2.into(), 2.into()]);
    let graph = onnx::Graph {
        node: vec![node("MatMul", &["x", "w"], "product"), node("Relu", &["product"], "y")],
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

/// Runs it on the device of `options`, and says where its nodes lay and whether the result is right.
pub(super) fn run(backend: &Backend, options: SessionOptions) -> ort::Result<(Placement, bool)> {
    let mut session = options::commit(backend, Graph::Bytes(&graph()), options)?;
    let placement = Placement::of(&session)?;
    let x = Tensor::from_array(([2_usize, 2], vec![1.0_f32, 0.0, 2.0, -1.0]))?;
    let outputs = session.run(vec![("x", x)])?;
    let (_, result) = outputs["y"].try_extract_tensor::<f32>()?;
    Ok((placement, result == [1.0, 2.0, 0.0, 0.0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Device, Runtime};

    #[test]
    fn the_processor_passes_and_has_both_nodes() {
        let backend = Backend::cpu(Runtime::load(None).unwrap());
        let (placement, is_right) = run(&backend, SessionOptions::cpu(1, false)).unwrap();
        assert!(is_right);
        assert_eq!(placement.nodes().into_iter().collect::<Vec<_>>(), [("CPUExecutionProvider", 2)]);
        assert_eq!(placement.strays(Device::Cpu), None);
        let elsewhere = placement.strays(Device::Cuda(0));
        assert_eq!(
            elsewhere.as_deref(),
            Some("1 MatMul on CPUExecutionProvider"),
            "what a fall-back would look like"
        );
    }
}
