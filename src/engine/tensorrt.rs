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
use crate::onnx::{Model, data_type};

/// Rows of a batch at most: memory for the largest shape is taken at once.
pub(super) const MOST_ROWS: usize = 64;

/// The shape for which the fastest kernels are chosen.
const USUAL: (usize, usize) = (32, 64);

/// What must be known of a padded graph.
pub(crate) struct Inputs {
    names: Vec<String>,
    /// Its weights are in 16 bits. TensorRT must be allowed these then; otherwise it must not, or an fp32 version would not be one any more.
    is_half: bool,
}

impl Inputs {
    /// Those of the graph in `path`, or why TensorRT cannot have it.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        let model = Model::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
        let graph = model.graph.unwrap_or_default();
        let is_half = graph.initializer.iter().any(|weight| weight.data_type == data_type::FLOAT16);
        let weights: Vec<&str> = graph.initializer.iter().map(|weight| weight.name.as_str()).collect();
        let names = graph.input.into_iter().map(|input| input.name);
        let names: Vec<String> = names.filter(|name| !weights.contains(&name.as_str())).collect();
        if names.iter().any(|name| name == POOLING_WEIGHTS) {
            return Err("it is made of ONNX Runtime's own operators, which TensorRT does not know: run it with `--device cuda`, or import \
                        an ONNX export of the model"
                .to_owned());
        }
        if names.iter().any(|name| name == INPUT_IDS) {
            Ok(Self { names, is_half })
        } else {
            Err("it has no input `input_ids`".to_owned())
        }
    }

    /// The provider with the shapes of rows up to `max_tokens`.
    pub(super) fn declare(&self, provider: ep::TensorRT, max_tokens: usize) -> ep::TensorRT {
        let longest = bucket(max_tokens);
        provider
            .with_fp16(self.is_half)
            .with_profile_min_shapes(self.shapes(1, bucket(1)))
            .with_profile_opt_shapes(self.shapes(USUAL.0, USUAL.1.min(longest)))
            .with_profile_max_shapes(self.shapes(MOST_ROWS, longest))
    }

    /// As `input_ids:32x64,attention_mask:32x64`.
    fn shapes(&self, rows: usize, tokens: usize) -> String {
        self.names.iter().map(|name| format!("{name}:{rows}x{tokens}")).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{Graph, Tensor, ValueInfo};

    fn graph(inputs: &[&str]) -> tempfile::NamedTempFile {
        graph_of(inputs, data_type::FLOAT)
    }

    fn graph_of(inputs: &[&str], weights: i32) -> tempfile::NamedTempFile {
        let input =
            inputs.iter().map(|name| ValueInfo::tensor(name, data_type::INT64, ["B".into(), "S".into()]));
        let weight = Tensor { name: "weight".to_owned(), data_type: weights, ..Tensor::default() };
        let graph = Graph { input: input.collect(), initializer: vec![weight], ..Graph::default() };
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
    fn sixteen_bits_are_allowed_to_graphs_that_have_them() {
        let is_half = |weights| Inputs::read(graph_of(&["input_ids"], weights).path()).unwrap().is_half;
        assert_eq!((is_half(data_type::FLOAT), is_half(data_type::FLOAT16)), (false, true));
    }

    #[test]
    fn a_compiled_graph_is_refused_with_what_to_do() {
        let refused = |inputs: &[&str]| Inputs::read(graph(inputs).path()).err().unwrap();
        assert!(refused(&["input_ids", "pooling_weights"]).contains("--device cuda"));
        assert!(refused(&["pixel_values"]).contains("input_ids"));
    }
}
