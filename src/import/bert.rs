//! The graph of a BERT-family encoder that computes no padding.
//!
//! Linear layers, norms and activations run on the tokens of all rows end to end, `[T, H]`; only attention sees a padded
//! view `[B, S, H]`, made and undone by `Gather`. Pooling is one product with a `[B, T]` matrix.

use std::path::Path;

use super::encoder::{Activation, Encoder, Linear, Place, Projection, WORD_EMBEDDINGS};
use super::graph::Builder;
use super::int8::Quantisation;
use super::weights::Weights;
use super::{ImportError, Phase, Progress};
use crate::engine::layout::Padding;
use crate::engine::session::names::*;
use crate::onnx::{Attribute, ValueInfo, data_type};

/// How the graph computes.
#[derive(Clone, Copy)]
pub(super) enum Arithmetic<'a> {
    /// In 32 bits.
    Fp32,
    /// In 32 bits, with the input of every linear layer as an output named by its [`Place`]: what calibration looks at.
    Observed,
    /// In 16 bits but for the pooling.
    Fp16,
    /// Linear layers in 8 bits.
    Int8(&'a Quantisation),
}

impl Encoder {
    /// Writes the graph into `directory`.
    pub(super) fn compile(
        &self,
        weights: &mut Weights,
        arithmetic: Arithmetic<'_>,
        directory: &Path,
        progress: &dyn Fn(Progress),
    ) -> Result<(), ImportError> {
        let report = |done: usize| {
            progress(Progress { phase: Phase::Compile, done: done as u64, total: self.layers as u64 + 1 });
        };
        report(0);
        let half = matches!(arithmetic, Arithmetic::Fp16);
        let graph = Builder::create(directory, half)?;
        let mut compiler = Compiler { encoder: self, weights, arithmetic, graph, observed: Vec::new() };
        let mut tokens = compiler.embed()?;
        for layer in 0..self.layers {
            report(layer + 1);
            tokens = compiler.layer(layer, &tokens)?;
        }
        compiler.finish(&tokens)?;
        report(self.layers + 1);
        Ok(())
    }
}

/// One graph in the making.
struct Compiler<'a> {
    encoder: &'a Encoder,
    weights: &'a mut Weights,
    arithmetic: Arithmetic<'a>,
    graph: Builder,
    /// Outputs for calibration, with their widths.
    observed: Vec<(String, usize)>,
}

impl Compiler<'_> {
    /// Token vectors before the first layer, `[T, H]`.
    fn embed(&mut self) -> Result<String, ImportError> {
        let Encoder { hidden, vocabulary, table, first_position, padding, token_types, .. } = *self.encoder;
        self.graph.integers("flat", &[-1, hidden as i64])?;
        self.graph.integers("thirds", &[hidden as i64; 3])?;
        let words = self.weights.read(WORD_EMBEDDINGS, &[vocabulary, hidden])?;
        let words = self.graph.floats("word_embeddings", &[vocabulary, hidden], &words)?;
        let mut positions = self.weights.read("embeddings.position_embeddings.weight", &[table, hidden])?;
        // That of the padding goes behind the others: the engine counts from 0, and gives it to none but a padding token in a text.
        let mut rows: Vec<f32> = positions.drain(..first_position * hidden).collect();
        if let Some(padding) = padding {
            positions.extend(rows.drain(padding * hidden..));
            let told = Padding { token: padding as u32, position: (table - first_position) as i64 };
            self.graph.tell(PADDING, told.to_string());
        }
        let types = "embeddings.token_type_embeddings.weight";
        if self.weights.has(types) {
            // Every token of a single text has type 0, so its vector is added once here and not for every token.
            let types = self.weights.read(types, &[token_types, hidden])?;
            for row in positions.chunks_exact_mut(hidden) {
                row.iter_mut().zip(&types).for_each(|(position, kind)| *position += kind);
            }
        }
        let shape = [positions.len() / hidden, hidden];
        let positions = self.graph.floats("position_embeddings", &shape, &positions)?;
        let words = self.graph.add("Gather", &[&words, INPUT_IDS], vec![]);
        let positions = self.graph.add("Gather", &[&positions, POSITION_IDS], vec![]);
        let sum = self.graph.add("Add", &[&words, &positions], vec![]);
        let [scale, shift] = self.norm("embeddings.LayerNorm")?;
        let attributes = vec![Attribute::float("epsilon", self.encoder.epsilon), Attribute::int("axis", -1)];
        Ok(self.graph.add("LayerNormalization", &[&sum, &scale, &shift], attributes))
    }

    /// One layer over `tokens`, `[T, H]`.
    fn layer(&mut self, layer: usize, tokens: &str) -> Result<String, ImportError> {
        let parts = ["query", "key", "value"].map(|part| format!("layer.{layer}.{part}"));
        let [query, key, value] = parts.each_ref().map(String::as_str);
        let joined = self.linear(Place { layer, projection: Projection::Attention }, tokens)?;
        let axis = vec![Attribute::int("axis", -1)];
        self.graph.add_as("Split", "", &[&joined, "thirds"], &[query, key, value], axis);
        let [query, key, value] =
            [query, key, value].map(|part| self.graph.add("Gather", &[part, PAD_INDEX], vec![]));
        let heads = vec![Attribute::int("num_heads", self.encoder.heads as i64)];
        let inputs = [query.as_str(), &key, &value, "", ATTENTION_MASK];
        let padded = self.graph.add_microsoft("MultiHeadAttention", &inputs, heads);
        let rows = self.graph.add("Reshape", &[&padded, "flat"], vec![]);
        let attention = self.graph.add("Gather", &[&rows, UNPAD_INDEX], vec![]);
        let output = self.linear(Place { layer, projection: Projection::Output }, &attention)?;
        let name = format!("encoder.layer.{layer}");
        let attended = self.skip_norm(&output, tokens, &format!("{name}.attention.output.LayerNorm"))?;
        let up = self.linear(Place { layer, projection: Projection::Up }, &attended)?;
        let active = match self.encoder.activation {
            Activation::Gelu => self.graph.add_microsoft("Gelu", &[&up], vec![]),
            Activation::GeluTanh => self.graph.add_microsoft("FastGelu", &[&up], vec![]),
            Activation::Relu => self.graph.add("Relu", &[&up], vec![]),
        };
        let down = self.linear(Place { layer, projection: Projection::Down }, &active)?;
        self.skip_norm(&down, &attended, &format!("{name}.output.LayerNorm"))
    }

    fn linear(&mut self, place: Place, input: &str) -> Result<String, ImportError> {
        let linear = self.encoder.linear(self.weights, place)?;
        match self.arithmetic {
            Arithmetic::Int8(quantisation) => {
                return quantisation.linear(&mut self.graph, place, input, linear);
            }
            Arithmetic::Observed => self.observed.push((input.to_owned(), linear.inputs)),
            Arithmetic::Fp32 | Arithmetic::Fp16 => {}
        }
        let Linear { inputs, outputs, weight, bias } = linear;
        let weight = self.graph.floats(&format!("{place}.weight"), &[inputs, outputs], &weight)?;
        let bias = self.graph.floats(&format!("{place}.bias"), &[outputs], &bias)?;
        // 4 % faster than MatMul and Add, with the same vectors.
        Ok(self.graph.add("Gemm", &[input, &weight, &bias], vec![]))
    }

    /// The norm of the sum of two values.
    fn skip_norm(&mut self, left: &str, right: &str, name: &str) -> Result<String, ImportError> {
        let [scale, shift] = self.norm(name)?;
        let epsilon = vec![Attribute::float("epsilon", self.encoder.epsilon)];
        Ok(self.graph.add_microsoft("SkipLayerNormalization", &[left, right, &scale, &shift], epsilon))
    }

    /// A norm's weight and bias.
    fn norm(&mut self, name: &str) -> Result<[String; 2], ImportError> {
        let shape = [self.encoder.hidden];
        let mut constant = |part: &str| {
            let name = format!("{name}.{part}");
            let values = self.weights.read(&name, &shape)?;
            self.graph.floats(&name, &shape, &values)
        };
        Ok([constant("weight")?, constant("bias")?])
    }

    /// Pools the last layer's `tokens` and writes the graph.
    fn finish(mut self, tokens: &str) -> Result<(), ImportError> {
        let hidden = self.encoder.hidden;
        // Sums over many tokens lose digits in 16 bits, so that pooling is always done in 32.
        let (operator, attributes) = match self.arithmetic {
            Arithmetic::Fp16 => ("Cast", vec![Attribute::int("to", data_type::FLOAT.into())]),
            _ => ("Identity", vec![]),
        };
        self.graph.add_as(operator, "", &[tokens], &[TOKEN_EMBEDDINGS], attributes);
        self.graph.add_as("MatMul", "", &[POOLING_WEIGHTS, TOKEN_EMBEDDINGS], &[POOLED], vec![]);
        let long = data_type::INT64;
        let inputs = vec![
            ValueInfo::tensor(INPUT_IDS, long, ["T".into()]),
            ValueInfo::tensor(POSITION_IDS, long, ["T".into()]),
            ValueInfo::tensor(PAD_INDEX, long, ["B".into(), "S".into()]),
            ValueInfo::tensor(UNPAD_INDEX, long, ["T".into()]),
            ValueInfo::tensor(ATTENTION_MASK, data_type::INT32, ["B".into(), "S".into()]),
            ValueInfo::tensor(POOLING_WEIGHTS, data_type::FLOAT, ["B".into(), "T".into()]),
        ];
        let mut outputs = vec![
            ValueInfo::tensor(POOLED, data_type::FLOAT, ["B".into(), hidden.into()]),
            ValueInfo::tensor(TOKEN_EMBEDDINGS, data_type::FLOAT, ["T".into(), hidden.into()]),
        ];
        outputs.extend(self.observed.iter().map(|(name, width)| {
            ValueInfo::tensor(name, self.graph.float_type(), ["T".into(), (*width).into()])
        }));
        self.graph.finish(inputs, outputs)
    }
}
