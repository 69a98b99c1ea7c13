//! The forms in which a packed graph is given to the runtime on GPUs, where batches are large.
//!
//! Pooling by a `[B, T]` matrix costs the square of the batch: there it is done row by row in a padded view, `[B, S, H]`. And attention may do
//! without padding, by `PackedMultiHeadAttention`, which has no kernel on the processor.
//!
//! The version's file stays as it is: what is edited is what the runtime is given, so that one version serves on all devices. Weights lie
//! in files beside the graph, which is small.

use std::collections::HashMap;
use std::path::Path;

use prost::Message as _;

use super::session::names::*;
use crate::onnx::{Graph, Model, Node, Tensor, ValueInfo, data_type};

/// How a packed graph is given to the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// As the file has it.
    File,
    /// Pooled without a matrix.
    Gathered,
    /// The same, and without padding in attention.
    Unpadded,
}

/// The bytes of the packed graph in `path` in this form. `None` if it is to be loaded as the file has it, or is none of those that `import`
/// compiles, of which nothing is lost when they are written again.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn read(path: &Path, form: Form) -> std::io::Result<Option<Vec<u8>>> {
    if form == Form::File {
        return Ok(None);
    }
    let Ok(mut model) = Model::decode(std::fs::read(path)?.as_slice()) else { return Ok(None) };
    if model.producer_name != env!("CARGO_PKG_NAME") {
        return Ok(None);
    }
    let edited = model.graph.as_mut().and_then(|graph| {
        if form == Form::Unpadded {
            attend(graph)?;
        }
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
        let back = reader(flat.output.first()?, "Gather")
            .filter(|back| back.input.get(1).is_some_and(|name| name == UNPAD_INDEX))?;
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
        &[UNPAD_INDEX, ATTENTION_MASK],
        [
            ValueInfo::tensor(TOKEN_OFFSET, int, ["B".into(), "S".into()]),
            ValueInfo::tensor(CUMULATIVE_LENGTHS, int, ["B1".into()]),
        ],
    );
    Some(())
}

/// Pools each row in its padded view, in the place of one product with a `[B, T]` matrix.
fn pool(graph: &mut Graph) -> Option<()> {
    let at =
        graph.node.iter().position(|node| node.input.first().is_some_and(|name| name == POOLING_WEIGHTS))?;
    let (tokens, pooled) = (graph.node[at].input.get(1)?.clone(), graph.node[at].output.first()?.clone());
    let node = |operator: &str, inputs: [&str; 2], output: &str| Node {
        input: inputs.map(str::to_owned).to_vec(),
        output: vec![output.to_owned()],
        name: format!("pooling.{operator}"),
        op_type: operator.to_owned(),
        ..Node::default()
    };
    let nodes = [
        node("Gather", [&tokens, PAD_INDEX], "pooling.tokens"),
        node("Unsqueeze", [PADDED_WEIGHTS, "pooling.axis"], "pooling.weights"),
        node("MatMul", ["pooling.weights", "pooling.tokens"], "pooling.sums"),
        node("Squeeze", ["pooling.sums", "pooling.axis"], &pooled),
    ];
    graph.node.splice(at..=at, nodes);
    graph.initializer.push(Tensor {
        name: "pooling.axis".to_owned(),
        data_type: data_type::INT64,
        dims: vec![1],
        raw_data: Some(1_i64.to_le_bytes().to_vec().into()),
        ..Tensor::default()
    });
    let weights = ValueInfo::tensor(PADDED_WEIGHTS, data_type::FLOAT, ["B".into(), "S".into()]);
    replace_inputs(graph, &[POOLING_WEIGHTS], [weights]);
    Some(())
}

fn replace_inputs<const COUNT: usize>(graph: &mut Graph, old: &[&str], new: [ValueInfo; COUNT]) {
    graph.input.retain(|input| !old.contains(&input.name.as_str()));
    graph.input.extend(new);
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(read(file.path(), Form::Unpadded).unwrap(), None);
        let foreign = Model { graph: Some(attention()), ..Model::default() };
        std::fs::write(file.path(), foreign.encode_to_vec()).unwrap();
        assert_eq!(read(file.path(), Form::Unpadded).unwrap(), None, "of which fields may be left out here");
    }
}
