//! Builds an ONNX graph node by node. Large constants go to a file beside it as they are made, so that only one of them
//! is in memory and a model may be larger than the 2 GB of one protobuf message.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use half::f16;
use prost::Message;

use super::{ImportError, Precision};
use crate::engine::graph_path;
use crate::onnx::{
    Attribute, EXTERNAL, Entry, Graph, Model, Node, OperatorSet, Tensor, ValueInfo, data_type,
};

/// The large constants' file name, as the graph names it.
const DATA_FILE: &str = "model.onnx.data";
/// The operators that ONNX Runtime adds to ONNX's own.
const MICROSOFT: &str = "com.microsoft";
/// Constants of fewer bytes stay in the graph.
const INLINE: usize = 1024;
/// The runtime maps a constant instead of reading it only where it begins on a page.
const PAGE: u64 = 4096;

/// A graph in the making. Values are known by name.
pub(super) struct Builder {
    directory: PathBuf,
    nodes: Vec<Node>,
    constants: Vec<Tensor>,
    data: BufWriter<File>,
    written: u64,
    /// Floats are stored in 16 bits.
    half: bool,
    metadata: Vec<Entry>,
}

impl Builder {
    /// Begins a graph in `directory`. With `half` its floats are stored in 16 bits.
    pub(super) fn create(directory: &Path, half: bool) -> Result<Self, ImportError> {
        let path = directory.join(DATA_FILE);
        let file = File::create(&path).map_err(ImportError::io("write", &path))?;
        Ok(Self {
            directory: directory.to_owned(),
            nodes: Vec::new(),
            constants: Vec::new(),
            data: BufWriter::with_capacity(1 << 20, file),
            written: 0,
            half,
            metadata: Vec::new(),
        })
    }

    /// The element type of floats in this graph.
    pub(super) fn float_type(&self) -> i32 {
        if self.half { data_type::FLOAT16 } else { data_type::FLOAT }
    }

    /// A constant of floats.
    ///
    /// # Errors
    /// If the disk is full, or a value is too large for 16 bits.
    pub(super) fn floats(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &[f32],
    ) -> Result<String, ImportError> {
        if !self.half {
            return self.constant(name, data_type::FLOAT, shape, values.iter().map(|v| v.to_le_bytes()));
        }
        if let Some(&value) = values.iter().find(|value| !f16::from_f32(**value).is_finite()) {
            let (tensor, precision) = (name.to_owned(), Precision::Fp16);
            let remedy = "import with --precision fp32";
            return Err(ImportError::Value { tensor, value, precision, remedy });
        }
        let values = values.iter().map(|value| f16::from_f32(*value).to_le_bytes());
        self.constant(name, data_type::FLOAT16, shape, values)
    }

    /// A constant of integers.
    pub(super) fn integers(&mut self, name: &str, values: &[i64]) -> Result<String, ImportError> {
        self.constant(name, data_type::INT64, &[values.len()], values.iter().map(|v| v.to_le_bytes()))
    }

    /// A constant of any type, its elements as little-endian bytes.
    pub(super) fn constant<const WIDTH: usize>(
        &mut self,
        name: &str,
        data_type: i32,
        shape: &[usize],
        elements: impl ExactSizeIterator<Item = [u8; WIDTH]>,
    ) -> Result<String, ImportError> {
        let mut tensor = Tensor {
            name: name.to_owned(),
            data_type,
            dims: shape.iter().map(|&length| length as i64).collect(),
            ..Tensor::default()
        };
        let length = elements.len() * WIDTH;
        if length < INLINE {
            tensor.raw_data = Some(elements.flatten().collect::<Vec<u8>>().into());
        } else {
            let offset = self.written.next_multiple_of(PAGE);
            self.append(offset, elements)
                .map_err(ImportError::io("write", &self.directory.join(DATA_FILE)))?;
            self.written = offset + length as u64;
            tensor.data_location = Some(EXTERNAL);
            let entry = |key: &str, value: String| Entry { key: key.to_owned(), value };
            tensor.external_data = vec![
                entry("location", DATA_FILE.to_owned()),
                entry("offset", offset.to_string()),
                entry("length", length.to_string()),
            ];
        }
        self.constants.push(tensor);
        Ok(name.to_owned())
    }

    fn append<const WIDTH: usize>(
        &mut self,
        offset: u64,
        elements: impl Iterator<Item = [u8; WIDTH]>,
    ) -> std::io::Result<()> {
        self.data.write_all(&vec![0; (offset - self.written) as usize])?;
        for element in elements {
            self.data.write_all(&element)?;
        }
        Ok(())
    }

    /// Adds an ONNX operation of one output and returns the output's name.
    pub(super) fn add(&mut self, operator: &str, inputs: &[&str], attributes: Vec<Attribute>) -> String {
        let output = format!("{operator}_{}", self.nodes.len());
        self.add_as(operator, "", inputs, &[&output], attributes);
        output
    }

    /// Adds an operation of ONNX Runtime's own and returns the output's name.
    pub(super) fn add_microsoft(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<Attribute>,
    ) -> String {
        let output = format!("{operator}_{}", self.nodes.len());
        self.add_as(operator, MICROSOFT, inputs, &[&output], attributes);
        output
    }

    /// Adds an operation of set `domain` whose outputs get these names.
    pub(super) fn add_as(
        &mut self,
        operator: &str,
        domain: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<Attribute>,
    ) {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        self.nodes.push(Node {
            input: owned(inputs),
            output: owned(outputs),
            name: format!("{operator}_{}", self.nodes.len()),
            op_type: operator.to_owned(),
            attribute: attributes,
            domain: domain.to_owned(),
        });
    }

    /// Says something of the graph to the engine.
    pub(super) fn tell(&mut self, key: &str, value: String) {
        self.metadata.push(Entry { key: key.to_owned(), value });
    }

    /// Writes the graph.
    pub(super) fn finish(mut self, input: Vec<ValueInfo>, output: Vec<ValueInfo>) -> Result<(), ImportError> {
        self.data.flush().map_err(ImportError::io("write", &self.directory.join(DATA_FILE)))?;
        let model = Model {
            // The format and operator sets that ONNX Runtime 1.16 and later know; nothing newer is needed.
            ir_version: 9,
            producer_name: env!("CARGO_PKG_NAME").to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(Graph {
                node: self.nodes,
                name: "encoder".to_owned(),
                initializer: self.constants,
                input,
                output,
                ..Graph::default()
            }),
            opset_import: [("", 17), (MICROSOFT, 1)]
                .map(|(domain, version)| OperatorSet { domain: domain.to_owned(), version })
                .to_vec(),
            metadata_props: self.metadata,
            ..Model::default()
        };
        let path = graph_path(&self.directory);
        std::fs::write(&path, model.encode_to_vec()).map_err(ImportError::io("write", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_constants_lie_on_pages_of_their_own_file_and_small_ones_in_the_graph() {
        let directory = tempfile::tempdir().unwrap();
        let mut builder = Builder::create(directory.path(), false).unwrap();
        let large: Vec<f32> = (0..1500u16).map(f32::from).collect();
        for name in ["first", "second"] {
            builder.floats(name, &[3, 500], &large).unwrap();
        }
        builder.integers("small", &[-1, 7]).unwrap();
        let sum = builder.add("Add", &["first", "second"], vec![]);
        builder.add_as("Identity", "", &[&sum], &["y"], vec![]);
        builder
            .finish(vec![], vec![ValueInfo::tensor("y", data_type::FLOAT, [3.into(), "N".into()])])
            .unwrap();

        let model = Model::decode(std::fs::read(graph_path(directory.path())).unwrap().as_slice()).unwrap();
        let graph = model.graph.unwrap();
        assert_eq!(graph.node[1].input, graph.node[0].output);
        let [first, second, small] = graph.initializer.as_slice() else { panic!("three constants") };
        assert_eq!(small.raw_data.as_ref().unwrap()[..8], (-1i64).to_le_bytes());
        assert!(first.raw_data.is_none());
        let entries: Vec<&str> = second.external_data.iter().map(|entry| entry.value.as_str()).collect();
        assert_eq!(entries, ["model.onnx.data", "8192", "6000"]);
        let data = std::fs::read(directory.path().join("model.onnx.data")).unwrap();
        assert_eq!(data.len(), 8192 + 6000);
        assert_eq!(data[8192 + 4..8192 + 8], 1.0_f32.to_le_bytes());
    }
}
