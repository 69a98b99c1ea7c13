//! A tiny ONNX export with the inputs and outputs of one made by `optimum`: every token's vector is a row of a table, plus
//! a row for its type, and zero where the mask is.

use std::fs;
use std::path::Path;

use half::f16;
use prost::Message;
use sextant::onnx::{
    Attribute, EXTERNAL, Entry, Graph, Model, Node, OperatorSet, Tensor, ValueInfo, data_type,
};

use super::checkpoint::{HIDDEN, Random};

/// What to export.
#[derive(Debug, Clone)]
pub struct TinyExport {
    /// Rows of the table.
    pub vocabulary: usize,
    /// Where the table lies, relative to the graph; inside it if empty.
    pub location: &'static str,
    /// Store the table in 16 bits.
    pub half: bool,
    /// Name of the output, `[B, S, HIDDEN]`.
    pub output: &'static str,
    /// An input more than an encoder of text has.
    pub extra_input: Option<&'static str>,
    /// Round the tokens' vectors to 8 bits by the range of the whole batch, as dynamic int8 does.
    pub dynamic: bool,
}

impl TinyExport {
    /// One file, fp32.
    pub fn new(vocabulary: usize) -> Self {
        Self {
            vocabulary,
            location: "",
            half: false,
            output: "last_hidden_state",
            extra_input: None,
            dynamic: false,
        }
    }

    /// The table, `[vocabulary, HIDDEN]`.
    pub fn table(&self) -> Vec<f32> {
        let mut random = Random(9);
        (0..self.vocabulary * HIDDEN).map(|_| random.next()).collect()
    }

    /// Writes `model.onnx` into `directory`, and the table where it belongs.
    pub fn write(&self, directory: &Path) {
        let table: Vec<u8> = match self.half {
            true => self.table().into_iter().flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
            false => self.table().into_iter().flat_map(f32::to_le_bytes).collect(),
        };
        let mut words = Tensor {
            name: "table".to_owned(),
            dims: vec![self.vocabulary as i64, HIDDEN as i64],
            data_type: if self.half { data_type::FLOAT16 } else { data_type::FLOAT },
            ..Tensor::default()
        };
        if self.location.is_empty() {
            words.raw_data = Some(table.into());
        } else {
            words.data_location = Some(EXTERNAL);
            words.external_data = vec![Entry { key: "location".to_owned(), value: self.location.to_owned() }];
            let path = directory.join(self.location);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, table).unwrap();
        }
        let float = |name: &str, dims: Vec<i64>, values: &[f32]| Tensor {
            name: name.to_owned(),
            dims,
            data_type: data_type::FLOAT,
            raw_data: Some(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into()),
            ..Tensor::default()
        };
        let last = Tensor {
            name: "last".to_owned(),
            dims: vec![1],
            data_type: data_type::INT64,
            raw_data: Some((-1i64).to_le_bytes().to_vec().into()),
            ..Tensor::default()
        };
        let to_float = || vec![Attribute::int("to", data_type::FLOAT.into())];
        let mut node = vec![
            operation("Gather", &["table", "input_ids"], "words", vec![]),
            operation("Cast", &["words"], "floats", to_float()),
            operation("Gather", &["types", "token_type_ids"], "kinds", vec![]),
            operation("Add", &["floats", "kinds"], "sum", vec![]),
            operation("Cast", &["attention_mask"], "mask", to_float()),
            operation("Unsqueeze", &["mask", "last"], "column", vec![]),
            operation("Mul", &["sum", "column"], if self.dynamic { "exact" } else { self.output }, vec![]),
        ];
        if self.dynamic {
            let mut rounded = operation("DynamicQuantizeLinear", &["exact"], "rounded", vec![]);
            rounded.output.extend(["scale".to_owned(), "zero".to_owned()]);
            node.push(rounded);
            node.push(operation("DequantizeLinear", &["rounded", "scale", "zero"], self.output, vec![]));
        }
        let names = ["input_ids", "attention_mask", "token_type_ids"];
        let inputs = names.into_iter().chain(self.extra_input);
        let graph = Graph {
            node,
            name: "export".to_owned(),
            initializer: vec![words, float("types", vec![2, 1], &[0.0, 100.0]), last],
            input: inputs
                .map(|name| ValueInfo::tensor(name, data_type::INT64, ["B".into(), "S".into()]))
                .collect(),
            output: vec![ValueInfo::tensor(
                self.output,
                data_type::FLOAT,
                ["B".into(), "S".into(), HIDDEN.into()],
            )],
            ..Graph::default()
        };
        let model = Model {
            ir_version: 9,
            graph: Some(graph),
            opset_import: vec![OperatorSet { domain: String::new(), version: 17 }],
            ..Model::default()
        };
        fs::write(directory.join("model.onnx"), model.encode_to_vec()).unwrap();
    }
}

/// A node with one output.
pub fn operation(kind: &str, inputs: &[&str], output: &str, attribute: Vec<Attribute>) -> Node {
    Node {
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        op_type: kind.to_owned(),
        attribute,
        ..Node::default()
    }
}
