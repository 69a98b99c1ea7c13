//! Takes over a graph that somebody else exported: copies it as it is, after a look at what it is made of.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use super::onnx::{EXTERNAL, Graph, Model, Node, Tensor, data_type};
use super::{ImportError, Phase, Precision, Progress};
use crate::engine::graph_path;

/// Where an export lies in a checkpoint, the first that is there.
pub(super) const PLACES: [&str; 2] = ["model.onnx", "onnx/model.onnx"];

/// Files that import writes itself; weights of such a name would be overwritten.
const OWN_FILES: [&str; 6] =
    ["manifest.toml", "model.onnx", "tokenizer.json", "config.json", "probe.jsonl", "model_card.md"];

/// An exported graph and the files that belong to it.
#[derive(Debug)]
pub(super) struct Export {
    /// The graph.
    pub(super) path: PathBuf,
    /// Files with weights, relative to the graph's directory.
    weights: BTreeSet<PathBuf>,
    /// The number format of the weights.
    pub(super) precision: Precision,
}

impl Export {
    /// The export in `checkpoint`, if it has one.
    pub(super) fn find(checkpoint: &Path) -> Option<PathBuf> {
        PLACES.iter().map(|place| checkpoint.join(place)).find(|path| path.is_file())
    }

    /// Reads the graph in `path`.
    ///
    /// # Errors
    /// If it is no ONNX graph, or its weights lie outside its directory.
    pub(super) fn read(path: &Path) -> Result<Self, ImportError> {
        let bytes = Bytes::from(fs::read(path).map_err(ImportError::io("read", path))?);
        let model = Model::decode(bytes).map_err(|error| ImportError::malformed(path, error))?;
        let Some(graph) = &model.graph else {
            return Err(ImportError::malformed(path, "it holds no ONNX graph"));
        };
        let mut parts = Parts::default();
        parts.graph(graph);
        model.functions.iter().flat_map(|function| &function.node).for_each(|node| parts.node(node));
        let mut weights = BTreeSet::new();
        for location in parts.locations {
            weights.insert(beside(&location).ok_or_else(|| {
                let reason =
                    format!("its weights lie in `{location}`, and must lie in a file of their own beside it");
                ImportError::malformed(path, reason)
            })?);
        }
        Ok(Self { path: path.to_owned(), weights, precision: parts.matrices.precision() })
    }

    /// The files with weights, relative to the graph's directory and below it.
    pub(super) fn weights(&self) -> impl Iterator<Item = &Path> {
        self.weights.iter().map(PathBuf::as_path)
    }

    /// Copies graph and weights into `stage` and returns the SHA-256 of them all.
    pub(super) fn copy(&self, stage: &Path, progress: &dyn Fn(Progress)) -> Result<String, ImportError> {
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let files = self.weights.iter().map(|file| (directory.join(file), stage.join(file)));
        let files: Vec<_> = std::iter::once((self.path.clone(), graph_path(stage))).chain(files).collect();
        let mut total = 0;
        for (from, _) in &files {
            total += fs::metadata(from).map_err(ImportError::io("read", from))?.len();
        }
        let (mut hasher, mut done) = (Sha256::new(), 0);
        for (from, to) in &files {
            if let Some(directory) = to.parent() {
                fs::create_dir_all(directory).map_err(ImportError::io("write", directory))?;
            }
            let mut target = File::create(to).map_err(ImportError::io("write", to))?;
            read_in_chunks(from, |chunk| {
                hasher.update(chunk);
                done += chunk.len() as u64;
                progress(Progress { phase: Phase::Copy, done, total });
                target.write_all(chunk).map_err(ImportError::io("write", to))
            })?;
        }
        Ok(hex::encode(hasher.finalize()))
    }
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

/// Calls `take` with the file's bytes, a part at a time.
pub(super) fn read_in_chunks(
    path: &Path,
    mut take: impl FnMut(&[u8]) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let mut file = File::open(path).map_err(ImportError::io("read", path))?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk).map_err(ImportError::io("read", path))? {
            0 => return Ok(()),
            length => take(&chunk[..length])?,
        }
    }
}

/// What matters of a graph's nodes and constants, those of branches and loops included.
#[derive(Default)]
struct Parts {
    locations: BTreeSet<String>,
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
        graph.node.iter().for_each(|node| self.node(node));
    }

    fn node(&mut self, node: &Node) {
        self.matrices.dynamic |= node.op_type.starts_with("Dynamic");
        for attribute in &node.attribute {
            attribute.t.iter().chain(&attribute.tensors).for_each(|tensor| self.tensor(tensor));
            attribute.g.iter().chain(&attribute.graphs).for_each(|graph| self.graph(graph));
        }
    }

    fn tensor(&mut self, tensor: &Tensor) {
        if tensor.data_location == Some(EXTERNAL) {
            let location = tensor.external_data.iter().find(|entry| entry.key == "location");
            self.locations.extend(location.map(|entry| entry.value.clone()));
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
    use super::super::onnx::{Attribute, Entry};
    use super::*;

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

    #[test]
    fn constants_in_branches_are_seen() {
        let location = Entry { key: "location".to_owned(), value: "../deep.bin".to_owned() };
        let tensor = Tensor { data_location: Some(EXTERNAL), external_data: vec![location], ..matrix(1) };
        let constant = Node {
            attribute: vec![Attribute { t: Some(tensor), ..Attribute::default() }],
            ..Node::default()
        };
        let branch =
            Attribute { g: Some(Graph { node: vec![constant], ..Graph::default() }), ..Attribute::default() };
        let mut parts = Parts::default();
        parts.node(&Node { attribute: vec![branch], ..Node::default() });
        assert!(parts.locations.contains("../deep.bin"));
    }
}
