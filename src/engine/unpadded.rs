//! A packed graph as CUDA takes it without any padding: attention by `PackedMultiHeadAttention`, which has no kernel on the processor, and
//! the weights of pooling made on the device, where a `[B, T]` matrix need not be carried to it.
//!
//! The version's file stays as it is: what is edited is what the runtime is given, so that one version serves on all devices. Weights lie
//! in files beside the graph, which is small.

use std::collections::HashMap;
use std::path::Path;

use prost::Message as _;

use super::session::names::*;
use crate::onnx::{Attribute, Graph, Model, Node, Tensor, ValueInfo, data_type};

/// How a packed graph is given to the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// As it is: only attention sees padding, made and undone by `Gather`.
    Gathered,
    /// Without padding in attention either.
    Unpadded,
}

/// The bytes of the packed graph in `path` without padding. `None` if it is none of those that `import` compiles.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let Ok(mut model) = Model::decode(std::fs::read(path)?.as_slice()) else { return Ok(None) };
    let edited = model.graph.as_mut().and_then(|graph| {
        attend(graph)?;
        pool(graph)
    });
    Ok(edited.map(|()| model.encode_to_vec()))
}

/// Puts `PackedMultiHeadAttention` in the place of each attention and of the five nodes that pad for it.
fn attend(graph: &mut Graph) -> Option<()> {
    let made: HashMap<&str, &Node> =
        graph.node.iter().filter_map(|node| Some((node.output.first()?.as_str(), node))).collect();
    let reader = |value: &str, operator: &str| {
        graph
            .node
            .iter()
            .find(|node| node.op_type == operator && node.input.first().is_some_and(|name| name == value))
    };
    let (mut packed, mut dropped) = (HashMap::new(), Vec::new());
    for attention in graph.node.iter().filter(|node| node.op_type == "MultiHeadAttention") {
        let gathers: Vec<&&Node> =
            attention.input.iter().take(3).filter_map(|name| made.get(name.as_str())).collect();
        let values: Vec<String> = gathers
            .iter()
            .filter(|gather| {
                gather.op_type == "Gather" && gather.input.get(1).is_some_and(|name| name == PAD_INDEX)
            })
            .map(|gather| gather.input[0].clone())
            .collect();
        let flat = reader(attention.output.first()?, "Reshape")?;
        let back = reader(flat.output.first()?, "Gather").filter(|back| back.input[1] == UNPAD_INDEX)?;
        let [query, key, value] = <[String; 3]>::try_from(values).ok()?;
        let node = Node {
            input: vec![
                query,
                key,
                value,
                String::new(),
                TOKEN_OFFSET.to_owned(),
                CUMULATIVE_LENGTHS.to_owned(),
            ],
            output: back.output.clone(),
            name: attention.name.clone(),
            op_type: "PackedMultiHeadAttention".to_owned(),
            attribute: attention.attribute.clone(),
            domain: attention.domain.clone(),
        };
        dropped.extend(gathers.iter().map(|gather| gather.name.clone()));
        dropped.extend([flat.name.clone(), attention.name.clone()]);
        packed.insert(back.name.clone(), node);
    }
    if packed.is_empty() {
        return None;
    }
    graph.node.retain(|node| !dropped.contains(&node.name));
    for node in &mut graph.node {
        if let Some(attention) = packed.remove(&node.name) {
            *node = attention;
        }
    }
    let int = data_type::INT32;
    replace_inputs(
        graph,
        &[PAD_INDEX, UNPAD_INDEX, ATTENTION_MASK],
        [
            ValueInfo::tensor(TOKEN_OFFSET, int, ["B".into(), "S".into()]),
            ValueInfo::tensor(CUMULATIVE_LENGTHS, int, ["B1".into()]),
        ],
    );
    Some(())
}

/// Makes the `[B, T]` matrix of pooling from each token's weight and row.
fn pool(graph: &mut Graph) -> Option<()> {
    let at =
        graph.node.iter().position(|node| node.input.first().is_some_and(|name| name == POOLING_WEIGHTS))?;
    let node = |operator: &str, inputs: [&str; 2], output: &str, attribute| Node {
        input: inputs.iter().filter(|name| !name.is_empty()).map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        name: format!("pooling.{operator}.{output}"),
        op_type: operator.to_owned(),
        attribute,
        ..Node::default()
    };
    let axis = Tensor {
        name: "pooling.axis".to_owned(),
        data_type: data_type::INT64,
        dims: vec![1],
        raw_data: Some(1_i64.to_le_bytes().to_vec().into()),
        ..Tensor::default()
    };
    let to_float = vec![Attribute::int("to", data_type::FLOAT.into())];
    let nodes = [
        node("Unsqueeze", [ROWS, "pooling.axis"], "pooling.rows", vec![]),
        node("Equal", ["pooling.rows", ROW_IDS], "pooling.is_of_row", vec![]),
        node("Cast", ["pooling.is_of_row", ""], "pooling.of_row", to_float),
        node("Mul", ["pooling.of_row", TOKEN_WEIGHTS], POOLING_WEIGHTS, vec![]),
    ];
    graph.node.splice(at..at, nodes);
    graph.initializer.push(axis);
    replace_inputs(
        graph,
        &[POOLING_WEIGHTS],
        [
            ValueInfo::tensor(ROWS, data_type::INT64, ["B".into()]),
            ValueInfo::tensor(ROW_IDS, data_type::INT64, ["T".into()]),
            ValueInfo::tensor(TOKEN_WEIGHTS, data_type::FLOAT, ["T".into()]),
        ],
    );
    Some(())
}

fn replace_inputs<const COUNT: usize>(graph: &mut Graph, old: &[&str], new: [ValueInfo; COUNT]) {
    graph.input.retain(|input| !old.contains(&input.name.as_str()));
    graph.input.extend(new);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ort::value::Tensor as Value;

    use super::*;
    use crate::engine::layout::{Packed, Unpadded};
    use crate::engine::options::{self, SessionOptions};
    use crate::engine::{Backend, Pooling, Runtime};
    use crate::onnx::OperatorSet;

    fn node(operator: &str, inputs: &[&str], output: &str) -> Node {
        Node {
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.to_owned()],
            name: output.to_owned(),
            op_type: operator.to_owned(),
            ..Node::default()
        }
    }

    /// Attention as `import` writes it.
    fn attention() -> Graph {
        let mut nodes: Vec<Node> = ["q", "k", "v"]
            .iter()
            .map(|part| node("Gather", &[part, PAD_INDEX], &format!("padded {part}")))
            .collect();
        let inputs = ["padded q", "padded k", "padded v", "", ATTENTION_MASK];
        nodes.push(node("MultiHeadAttention", &inputs, "attended"));
        nodes.push(node("Reshape", &["attended", "flat"], "flattened"));
        nodes.push(node("Gather", &["flattened", UNPAD_INDEX], "packed"));
        nodes.push(node("Identity", &["packed"], "y"));
        Graph { node: nodes, ..Graph::default() }
    }

    #[test]
    fn attention_and_the_nodes_that_pad_for_it_become_one() {
        let mut graph = attention();
        assert_eq!(attend(&mut graph), Some(()));
        let [packed, after] = graph.node.as_slice() else { panic!("{:?}", graph.node) };
        assert_eq!(
            (packed.op_type.as_str(), packed.output[0].as_str()),
            ("PackedMultiHeadAttention", "packed")
        );
        assert_eq!(packed.input, ["q", "k", "v", "", TOKEN_OFFSET, CUMULATIVE_LENGTHS]);
        assert_eq!(after.input, ["packed"]);
    }

    #[test]
    fn a_graph_of_another_make_has_no_such_form() {
        let mut other = attention();
        other.node[1].input[1] = "other_index".to_owned();
        assert_eq!(attend(&mut other), None);
        assert_eq!(attend(&mut Graph::default()), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no graph").unwrap();
        assert_eq!(read(file.path()).unwrap(), None);
    }

    #[test]
    fn pooling_gives_the_same_without_its_matrix() {
        let float =
            |name: &str, shape: [&str; 2]| ValueInfo::tensor(name, data_type::FLOAT, shape.map(Into::into));
        let graph = Graph {
            node: vec![node("MatMul", &[POOLING_WEIGHTS, "tokens"], POOLED)],
            name: "pooling".to_owned(),
            input: vec![float(POOLING_WEIGHTS, ["B", "T"]), float("tokens", ["T", "H"])],
            output: vec![float(POOLED, ["B", "H"])],
            ..Graph::default()
        };
        let mut edited = graph.clone();
        assert_eq!(pool(&mut edited), Some(()));
        let backend = Backend::cpu(Runtime::load(None).unwrap());
        let run = |graph: Graph,
                   mut inputs: Vec<(&'static str, Value<f32>)>,
                   ids: Vec<(&'static str, Value<i64>)>| {
            let opset_import = vec![OperatorSet { domain: String::new(), version: 17 }];
            let model = Model { ir_version: 9, graph: Some(graph), opset_import, ..Model::default() };
            let bytes = model.encode_to_vec();
            let mut session =
                options::commit(&backend, options::Graph::Bytes(&bytes), SessionOptions::cpu(1, false))
                    .unwrap();
            inputs.push((
                "tokens",
                Value::from_array(([6_usize, 2], (0..12_u8).map(f32::from).collect::<Vec<_>>())).unwrap(),
            ));
            let inputs = inputs.into_iter().map(|(name, value)| (name, value.into_dyn()));
            let inputs: Vec<_> =
                inputs.chain(ids.into_iter().map(|(name, value)| (name, value.into_dyn()))).collect();
            let outputs = session.run(inputs).unwrap();
            outputs[POOLED].try_extract_tensor::<f32>().unwrap().1.to_vec()
        };
        let batch: [Arc<[u32]>; 3] = [[1, 2].into(), [3].into(), [4, 5, 6].into()];
        for pooling in [Pooling::Mean, Pooling::Cls] {
            let packed = Packed::new(&batch, pooling);
            let weights = Value::from_array(([3_usize, 6], packed.pooling_weights)).unwrap();
            let expected = run(graph.clone(), vec![(POOLING_WEIGHTS, weights)], vec![]);
            let unpadded = Unpadded::new(&batch, pooling);
            let weights = Value::from_array(([6_usize], unpadded.token_weights)).unwrap();
            let ids = vec![
                (ROWS, Value::from_array(([3_usize], vec![0_i64, 1, 2])).unwrap()),
                (ROW_IDS, Value::from_array(([6_usize], unpadded.row_ids)).unwrap()),
            ];
            let pooled = run(edited.clone(), vec![(TOKEN_WEIGHTS, weights)], ids);
            assert!(
                expected.len() == 6 && expected.iter().zip(&pooled).all(|(a, b)| (a - b).abs() < 1e-5),
                "{pooled:?}"
            );
        }
    }
}
