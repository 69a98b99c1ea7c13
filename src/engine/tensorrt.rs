//! What TensorRT must be told of a graph before it compiles it: the shapes that will come. One outside of them would have it compile anew,
//! for minutes, in the middle of a request.
//!
//! Only padded graphs of ONNX's own operators can be given to it. Of one that `import` compiled it would know the products alone, in pieces
//! whose inner shapes nobody can name.

use std::path::Path;

use ort::ep;
use prost::Message as _;

use super::layout::bucket;
use super::session::names::{INPUT_IDS, POOLING_WEIGHTS};
use crate::onnx::Model;

/// Rows of a batch at most: memory for the largest shape is taken at once.
pub(super) const MOST_ROWS: usize = 64;

/// The shape for which the fastest kernels are chosen.
const USUAL: (usize, usize) = (32, 64);

/// Names of the inputs of a padded graph.
pub(crate) struct Inputs(Vec<String>);

impl Inputs {
    /// Those of the graph in `path`, or why TensorRT cannot have it.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        let model = Model::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
        let graph = model.graph.unwrap_or_default();
        let weights: Vec<&str> = graph.initializer.iter().map(|weight| weight.name.as_str()).collect();
        let names = graph.input.into_iter().map(|input| input.name);
        let names: Vec<String> = names.filter(|name| !weights.contains(&name.as_str())).collect();
        if names.iter().any(|name| name == POOLING_WEIGHTS) {
            return Err("it is made of ONNX Runtime's own operators, which TensorRT does not know: run it with `--device cuda`, or import \
                        an ONNX export of the model"
                .to_owned());
        }
        if names.iter().any(|name| name == INPUT_IDS) {
            Ok(Self(names))
        } else {
            Err("it has no input `input_ids`".to_owned())
        }
    }

    /// The provider with the shapes of rows up to `max_tokens`.
    pub(super) fn declare(&self, provider: ep::TensorRT, max_tokens: usize) -> ep::TensorRT {
        let longest = bucket(max_tokens);
        provider
            .with_profile_min_shapes(self.shapes(1, bucket(1)))
            .with_profile_opt_shapes(self.shapes(USUAL.0, USUAL.1.min(longest)))
            .with_profile_max_shapes(self.shapes(MOST_ROWS, longest))
    }

    /// As `input_ids:32x64,attention_mask:32x64`.
    fn shapes(&self, rows: usize, tokens: usize) -> String {
        self.0.iter().map(|name| format!("{name}:{rows}x{tokens}")).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{Graph, ValueInfo, data_type};

    fn graph(inputs: &[&str]) -> tempfile::NamedTempFile {
        let input =
            inputs.iter().map(|name| ValueInfo::tensor(name, data_type::INT64, ["B".into(), "S".into()]));
        let graph = Graph { input: input.collect(), ..Graph::default() };
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), Model { graph: Some(graph), ..Model::default() }.encode_to_vec())
            .unwrap();
        file
    }

    #[test]
    fn every_input_has_its_shapes_and_they_are_those_of_buckets() {
        let inputs = Inputs::read(graph(&["input_ids", "attention_mask"]).path()).unwrap();
        assert_eq!(inputs.shapes(1, bucket(1)), "input_ids:1x8,attention_mask:1x8");
        assert_eq!(inputs.shapes(MOST_ROWS, bucket(500)), "input_ids:64x512,attention_mask:64x512");
    }

    #[test]
    fn a_compiled_graph_is_refused_with_what_to_do() {
        let refused = |inputs: &[&str]| Inputs::read(graph(inputs).path()).err().unwrap();
        assert!(refused(&["input_ids", "pooling_weights"]).contains("--device cuda"));
        assert!(refused(&["pixel_values"]).contains("input_ids"));
    }
}
