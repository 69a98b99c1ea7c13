//! What an exported graph is made of, as far as that decides whether it is taken over: the number format of its weights, and which of them
//! lie in other files. Those must lie below the graph's directory, wherever in the graph they are named and whoever reads it.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use super::{Precision, inlined};
use crate::onnx::{Attribute, Entry, Graph, Model, Node, SparseTensor, Tensor, data_type};

/// Files that import writes itself; weights of such a name would be overwritten.
const OWN_FILES: [&str; 6] =
    ["manifest.toml", "model.onnx", "tokenizer.json", "config.json", "probe.jsonl", "model_card.md"];

/// What lies in other files of the graph that `bytes` hold, and the number format of its weights.
///
/// # Errors
/// In a sentence, if they hold no graph, or say of weights that they lie where they must not.
pub(crate) fn parse(bytes: Bytes) -> Result<(BTreeMap<PathBuf, u64>, Precision), String> {
    let model = Model::decode(bytes).map_err(|error| error.to_string())?;
    let graph = model.graph.as_ref().ok_or("it holds no ONNX graph")?;
    inlined::check(&model)?;
    let mut parts = Parts::default();
    parts.graph(graph);
    for function in &model.functions {
        function.attribute_proto.iter().for_each(|attribute| parts.attribute(attribute));
        function.node.iter().for_each(|node| parts.node(node));
    }
    for training in &model.training_info {
        training.initialization.iter().chain(&training.algorithm).for_each(|graph| parts.graph(graph));
    }
    let mut weights = BTreeMap::new();
    for entries in &parts.externals {
        let (file, end) = external(entries)?;
        let most = weights.entry(file).or_insert(0);
        *most = end.max(*most);
    }
    Ok((weights, parts.matrices.precision()))
}

/// Where the values of a constant in another file lie: the file, and where in it they end.
fn external(entries: &[Entry]) -> Result<(PathBuf, u64), String> {
    // Of two of one key a reader may take the first and another the last.
    let value = |key: &str| {
        let mut values = entries.iter().filter(|entry| entry.key == key).map(|entry| entry.value.as_str());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(format!("it says twice what the `{key}` of weights in another file is")),
        }
    };
    let number = |key: &str| match value(key)? {
        None => Ok(0),
        Some(text) => {
            text.parse::<u64>().map_err(|_| format!("the `{key}` of weights in another file is `{text}`"))
        }
    };
    let location = value("location")?.unwrap_or_default();
    let file = beside(location).ok_or_else(|| {
        format!("its weights lie in `{location}`, and must lie in a file of their own beside it")
    })?;
    let end = number("offset")?.checked_add(number("length")?);
    Ok((file, end.ok_or_else(|| format!("its weights in `{location}` have no end"))?))
}

/// The file that `location` names, if it is below the graph's directory and none that import writes itself.
fn beside(location: &str) -> Option<PathBuf> {
    let mut file = PathBuf::new();
    for part in Path::new(location).components() {
        match part {
            Component::Normal(name) => file.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    let taken =
        file.to_str().is_none_or(|name| name.is_empty() || OWN_FILES.contains(&name.to_lowercase().as_str()));
    (!taken).then_some(file)
}

/// What matters of a graph's nodes and constants, those of branches and loops included.
#[derive(Default)]
struct Parts {
    /// What is said of each constant in another file.
    externals: Vec<Vec<Entry>>,
    matrices: Matrices,
}

/// Which number formats the weight matrices have. Scales, biases and norms are left out: they are floats in any graph.
#[derive(Default)]
struct Matrices {
    fp32: bool,
    fp16: bool,
    int8: bool,
    other: bool,
    /// Activation ranges come from each batch, not from the graph.
    dynamic: bool,
}

impl Parts {
    fn graph(&mut self, graph: &Graph) {
        graph.initializer.iter().for_each(|tensor| self.tensor(tensor));
        graph.sparse_initializer.iter().for_each(|tensor| self.sparse(tensor));
        graph.node.iter().for_each(|node| self.node(node));
    }

    fn node(&mut self, node: &Node) {
        self.matrices.dynamic |= node.op_type.starts_with("Dynamic");
        node.attribute.iter().for_each(|attribute| self.attribute(attribute));
    }

    fn attribute(&mut self, attribute: &Attribute) {
        attribute.t.iter().chain(&attribute.tensors).for_each(|tensor| self.tensor(tensor));
        attribute
            .sparse_tensor
            .iter()
            .chain(&attribute.sparse_tensors)
            .for_each(|tensor| self.sparse(tensor));
        attribute.g.iter().chain(&attribute.graphs).for_each(|graph| self.graph(graph));
    }

    fn sparse(&mut self, tensor: &SparseTensor) {
        tensor.values.iter().chain(&tensor.indices).for_each(|tensor| self.tensor(tensor));
    }

    fn tensor(&mut self, tensor: &Tensor) {
        // Not only where the last that is said is "external": ONNX Runtime passes over a value that it does not know and keeps the
        // one before.
        if !tensor.external_data.is_empty() || tensor.data_location.is_some_and(|location| location != 0) {
            self.externals.push(tensor.external_data.clone());
        }
        if tensor.dims.iter().filter(|length| **length > 1).count() < 2 {
            return;
        }
        match tensor.data_type {
            data_type::FLOAT => self.matrices.fp32 = true,
            data_type::FLOAT16 => self.matrices.fp16 = true,
            data_type::INT8 | data_type::UINT8 => self.matrices.int8 = true,
            // Indices and masks.
            data_type::INT64 | data_type::INT32 | data_type::BOOL => {}
            _ => self.matrices.other = true,
        }
    }
}

impl Matrices {
    fn precision(&self) -> Precision {
        match (self.fp32, self.fp16, self.int8, self.other) {
            (_, false, false, false) => Precision::Fp32,
            (false, true, false, false) => Precision::Fp16,
            (false, false, true, false) if !self.dynamic => Precision::Int8,
            _ => Precision::Mixed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{EXTERNAL, Function, Training};

    fn matrix(data_type: i32) -> Tensor {
        Tensor { dims: vec![2, 2], data_type, ..Tensor::default() }
    }

    #[test]
    fn weights_must_lie_beside_the_graph() {
        assert_eq!(beside("model.onnx_data"), Some(PathBuf::from("model.onnx_data")));
        assert_eq!(beside("./a/b.bin"), Some(PathBuf::from("a/b.bin")));
        for location in ["", ".", "..", "../a", "a/../../b", "/etc/passwd", "config.json", "./Model.onnx"] {
            assert_eq!(beside(location), None, "{location}");
        }
    }

    #[test]
    fn precision_is_that_of_the_matrices() {
        let precision = |types: &[i32], operators: &[&str]| {
            let node = |kind: &&str| Node { op_type: (*kind).to_owned(), ..Node::default() };
            let mut parts = Parts::default();
            parts.graph(&Graph {
                initializer: types.iter().map(|kind| matrix(*kind)).collect(),
                node: operators.iter().map(node).collect(),
                ..Graph::default()
            });
            parts.matrices.precision()
        };
        use data_type::{FLOAT, FLOAT16, INT8, INT64, UINT8};
        assert_eq!(precision(&[FLOAT, INT64], &["MatMul"]), Precision::Fp32);
        assert_eq!(precision(&[FLOAT16], &["MatMul"]), Precision::Fp16);
        assert_eq!(precision(&[INT8, UINT8], &["QLinearMatMul"]), Precision::Int8);
        // Ranges from each batch are not the fixed ones that int8 promises.
        assert_eq!(precision(&[INT8], &["DynamicQuantizeLinear"]), Precision::Mixed);
        assert_eq!(precision(&[FLOAT, FLOAT16], &[]), Precision::Mixed);
        assert_eq!(precision(&[16], &[]), Precision::Mixed);
        let scale = Tensor { dims: vec![1, 7], data_type: FLOAT, ..Tensor::default() };
        let mut parts = Parts::default();
        parts.graph(&Graph { initializer: vec![scale, matrix(FLOAT16)], ..Graph::default() });
        assert_eq!(parts.matrices.precision(), Precision::Fp16);
    }

    /// The entries of a constant in another file.
    fn entries(pairs: &[(&str, &str)]) -> Vec<Entry> {
        pairs
            .iter()
            .map(|(key, value)| Entry { key: (*key).to_owned(), value: (*value).to_owned() })
            .collect()
    }

    #[test]
    fn weights_in_other_files_lie_beside_the_graph_and_have_an_end() {
        let read = |pairs: &[(&str, &str)]| external(&entries(pairs)).map(|(_, end)| end);
        assert_eq!(read(&[("location", "a")]), Ok(0));
        assert_eq!(
            read(&[("offset", "4096"), ("location", "a"), ("length", "8"), ("checksum", "x")]),
            Ok(4104)
        );
        for (pairs, expected) in [
            (&[][..], "lie in ``"),
            (&[("location", "../a")], "lie in `../a`"),
            // How the runtime marks an address in its own memory.
            (&[("location", "*/_ORT_MEM_ADDR_/../../a")], "must lie in a file of their own"),
            (&[("location", "a"), ("location", "../a")], "says twice what the `location`"),
            (&[("location", "a"), ("offset", "-1")], "the `offset` of weights in another file is `-1`"),
            (&[("location", "a"), ("length", "0x10")], "the `length` of weights"),
            (&[("location", "a"), ("offset", "18446744073709551615"), ("length", "1")], "have no end"),
        ] {
            let error = read(pairs).unwrap_err();
            assert!(error.contains(expected), "{pairs:?}: {error}");
        }
    }

    #[test]
    fn weights_in_other_files_are_found_wherever_a_graph_can_hold_them() {
        let tensor = || Tensor {
            data_location: Some(EXTERNAL),
            external_data: entries(&[("location", "../deep.bin")]),
            ..matrix(1)
        };
        let sparse = || SparseTensor { indices: Some(tensor()), ..SparseTensor::default() };
        let node = |attribute| Node { attribute: vec![attribute], ..Node::default() };
        let of = |node| Graph { node: vec![node], ..Graph::default() };
        let constant = || Attribute { t: Some(tensor()), ..Attribute::default() };
        let branch = |graph| Attribute { g: Some(graph), ..Attribute::default() };
        let mut models: Vec<Model> = [
            Graph { initializer: vec![tensor()], ..Graph::default() },
            Graph { sparse_initializer: vec![sparse()], ..Graph::default() },
            of(node(constant())),
            of(node(Attribute { tensors: vec![tensor()], ..Attribute::default() })),
            of(node(Attribute { sparse_tensor: Some(sparse()), ..Attribute::default() })),
            of(node(Attribute { sparse_tensors: vec![sparse()], ..Attribute::default() })),
            of(node(Attribute { graphs: vec![of(node(constant()))], ..Attribute::default() })),
            of(node(branch(of(node(branch(of(node(constant())))))))),
        ]
        .into_iter()
        .map(|graph| Model { graph: Some(graph), ..Model::default() })
        .collect();
        let whole = || Model { graph: Some(Graph::default()), ..Model::default() };
        let function = |function| Model { functions: vec![function], ..whole() };
        models.push(function(Function { node: vec![node(constant())], ..Function::default() }));
        models.push(function(Function { attribute_proto: vec![constant()], ..Function::default() }));
        let training = |training| Model { training_info: vec![training], ..whole() };
        let graph = || Some(of(node(constant())));
        models.push(training(Training { initialization: graph(), ..Training::default() }));
        models.push(training(Training { algorithm: graph(), ..Training::default() }));
        for (index, model) in models.iter().enumerate() {
            let error = parse(model.encode_to_vec().into()).unwrap_err();
            assert!(error.contains("its weights lie in `../deep.bin`"), "{index}: {error}");
        }
        assert!(parse(whole().encode_to_vec().into()).unwrap().0.is_empty());
    }

    /// Messages of which each holds the next, by the numbers of the fields.
    fn within(fields: &[u8], innermost: Vec<u8>) -> Vec<u8> {
        let wrap = |held: Vec<u8>, field: &u8| [&[field << 3 | 2, held.len() as u8][..], &held].concat();
        fields.iter().rev().fold(innermost, wrap)
    }

    #[test]
    fn where_weights_lie_is_no_matter_of_who_reads_a_value_that_is_none() {
        let deep = || Tensor { external_data: entries(&[("location", "../deep.bin")]), ..matrix(1) };
        for (tensor, said, expected) in [
            (deep(), &[1, 7][..], "lie in `../deep.bin`"),
            (deep(), &[7], "lie in `../deep.bin`"),
            (deep(), &[1, 0], "lie in `../deep.bin`"),
            (deep(), &[], "lie in `../deep.bin`"),
            (matrix(1), &[1, 7], "lie in ``"),
        ] {
            // Field 14, as often as it is said.
            let locations = said.iter().flat_map(|value| [14 << 3, *value]);
            let tensor: Vec<u8> = tensor.encode_to_vec().into_iter().chain(locations).collect();
            let error = parse(within(&[7, 5], tensor).into()).unwrap_err();
            assert!(error.contains(expected), "{said:?}: {error}");
        }
        let inside = [matrix(1).encode_to_vec(), vec![14 << 3, 0]].concat();
        assert!(parse(within(&[7, 5], inside).into()).unwrap().0.is_empty());
    }

    #[test]
    fn a_graph_that_is_nested_without_end_is_refused() {
        let mut nested = Graph::default();
        for _ in 0..200 {
            let attribute = vec![Attribute { g: Some(nested), ..Attribute::default() }];
            nested = Graph { node: vec![Node { attribute, ..Node::default() }], ..Graph::default() };
        }
        let error =
            parse(Model { graph: Some(nested), ..Model::default() }.encode_to_vec().into()).unwrap_err();
        assert!(error.contains("recursion limit"), "{error}");
    }
}
