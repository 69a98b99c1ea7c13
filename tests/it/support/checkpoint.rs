//! A tiny BERT or RoBERTa checkpoint, as sentence-transformers would save it, with random weights that are the same in
//! every run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

/// Width of the vectors.
pub const HIDDEN: usize = 32;
/// Attention heads.
pub const HEADS: usize = 4;
/// Width between the two feed-forward layers.
pub const INTERMEDIATE: usize = 64;
/// Longest input, special tokens included.
pub const POSITIONS: usize = 64;
/// The norms' epsilon.
pub const EPSILON: f64 = 1e-12;

/// Words that are one token; all others fall into letters.
const WORDS: [&str; 16] = [
    "the", "a", "of", "and", "cat", "dog", "river", "house", "red", "small", "runs", "sleeps", "in", "on",
    "over", "what",
];

/// A tensor by its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// Outermost first.
    pub shape: Vec<usize>,
    /// Row by row.
    pub values: Vec<f32>,
}

/// What to make; `TinyCheckpoint::bert().write(directory)` is a whole checkpoint.
#[derive(Debug, Clone)]
pub struct TinyCheckpoint {
    /// `model_type`
    pub architecture: &'static str,
    /// `mean`, `cls`, `lasttoken`, ...; no `modules.json` if empty.
    pub pooling: &'static str,
    /// Layers of the encoder.
    pub layers: usize,
    /// `hidden_act`
    pub activation: &'static str,
    /// What stands before the tensors' names.
    pub prefix: &'static str,
    /// Number format of the weights.
    pub dtype: Dtype,
    /// Another seed, another model.
    pub seed: u64,
}

impl TinyCheckpoint {
    /// Two layers, mean pooling, normalised.
    pub fn bert() -> Self {
        Self {
            architecture: "bert",
            pooling: "mean",
            layers: 2,
            activation: "gelu",
            prefix: "",
            dtype: Dtype::F32,
            seed: 1,
        }
    }

    /// The same with RoBERTa's rules: positions are counted from 2, there is one token type.
    pub fn roberta() -> Self {
        Self { architecture: "roberta", prefix: "roberta.", ..Self::bert() }
    }

    /// The id of the first position.
    pub fn first_position(&self) -> usize {
        if self.architecture == "bert" { 0 } else { 2 }
    }

    /// The vocabulary, by id.
    pub fn vocabulary(&self) -> Vec<String> {
        let special = match self.architecture {
            "bert" => ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
            _ => ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"],
        };
        let letters = ('a'..='z').chain('0'..='9');
        let signs = ".,;:?!'-()".chars().map(String::from);
        let starts = letters.clone().map(String::from);
        let others = letters.map(|letter| format!("##{letter}"));
        let words = WORDS.map(str::to_owned);
        special.map(str::to_owned).into_iter().chain(signs).chain(starts).chain(others).chain(words).collect()
    }

    /// The weights by their names without the prefix.
    pub fn weights(&self) -> BTreeMap<String, Weight> {
        let mut random = Random(self.seed);
        let mut weights = BTreeMap::new();
        let mut add = |name: String, shape: &[usize], middle: f32, spread: f32| {
            let values = (0..shape.iter().product()).map(|_| middle + spread * random.next()).collect();
            weights.insert(name, Weight { shape: shape.to_vec(), values });
        };
        let types = if self.architecture == "bert" { 2 } else { 1 };
        let positions = POSITIONS + self.first_position();
        for (name, rows) in
            [("word", self.vocabulary().len()), ("position", positions), ("token_type", types)]
        {
            add(format!("embeddings.{name}_embeddings.weight"), &[rows, HIDDEN], 0.0, 0.7);
        }
        let layers = (0..self.layers).map(|layer| format!("encoder.layer.{layer}."));
        let norms = layers.clone().flat_map(|layer| {
            ["attention.output.LayerNorm", "output.LayerNorm"].map(|name| format!("{layer}{name}"))
        });
        for norm in norms.chain(["embeddings.LayerNorm".to_owned()]) {
            add(format!("{norm}.weight"), &[HIDDEN], 1.0, 0.3);
            add(format!("{norm}.bias"), &[HIDDEN], 0.0, 0.2);
        }
        for layer in layers {
            for (name, outputs, inputs) in [
                ("attention.self.query", HIDDEN, HIDDEN),
                ("attention.self.key", HIDDEN, HIDDEN),
                ("attention.self.value", HIDDEN, HIDDEN),
                ("attention.output.dense", HIDDEN, HIDDEN),
                ("intermediate.dense", INTERMEDIATE, HIDDEN),
                ("output.dense", HIDDEN, INTERMEDIATE),
            ] {
                add(format!("{layer}{name}.weight"), &[outputs, inputs], 0.0, 0.4);
                add(format!("{layer}{name}.bias"), &[outputs], 0.0, 0.2);
            }
        }
        weights
    }

    /// Writes the checkpoint's files into `directory`.
    pub fn write(&self, directory: &Path) {
        fs::create_dir_all(directory).unwrap();
        let write = |name: &str, value: Value| {
            fs::write(directory.join(name), serde_json::to_vec_pretty(&value).unwrap()).unwrap();
        };
        write("config.json", self.config());
        write("tokenizer.json", self.tokenizer());
        write("tokenizer_config.json", json!({"model_max_length": 1e30, "tokenizer_class": "BertTokenizer"}));
        write("sentence_bert_config.json", json!({"max_seq_length": POSITIONS, "do_lower_case": false}));
        if !self.pooling.is_empty() {
            let modules = ["Transformer", "Pooling", "Normalize"].iter().enumerate().map(|(index, class)| {
                let path = if index == 0 { String::new() } else { format!("{index}_{class}") };
                json!({"idx": index, "name": index.to_string(), "path": path, "type": format!("sentence_transformers.models.{class}")})
            });
            write("modules.json", modules.collect());
            fs::create_dir_all(directory.join("1_Pooling")).unwrap();
            write(
                "1_Pooling/config.json",
                json!({"embedding_dimension": HIDDEN, "pooling_mode": self.pooling}),
            );
        }
        self.write_weights(directory, &self.weights());
    }

    /// Writes `weights`, in this checkpoint's format and with its prefix, as `model.safetensors`.
    pub fn write_weights(&self, directory: &Path, weights: &BTreeMap<String, Weight>) {
        let encode = |value: &f32| match self.dtype {
            Dtype::F16 => f16::from_f32(*value).to_le_bytes().to_vec(),
            Dtype::BF16 => bf16::from_f32(*value).to_le_bytes().to_vec(),
            Dtype::F64 => f64::from(*value).to_le_bytes().to_vec(),
            _ => value.to_le_bytes().to_vec(),
        };
        let bytes: Vec<(String, &[usize], Vec<u8>)> = weights
            .iter()
            .map(|(name, weight)| {
                let bytes = weight.values.iter().flat_map(encode).collect();
                (format!("{}{name}", self.prefix), weight.shape.as_slice(), bytes)
            })
            .collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(self.dtype, shape.to_vec(), bytes).unwrap())
        });
        safetensors::serialize_to_file(views, None, &directory.join("model.safetensors")).unwrap();
    }

    fn config(&self) -> Value {
        json!({
            "model_type": self.architecture,
            "hidden_size": HIDDEN,
            "num_hidden_layers": self.layers,
            "num_attention_heads": HEADS,
            "intermediate_size": INTERMEDIATE,
            "vocab_size": self.vocabulary().len(),
            "max_position_embeddings": POSITIONS + self.first_position(),
            "type_vocab_size": if self.architecture == "bert" { 2 } else { 1 },
            "layer_norm_eps": EPSILON,
            "hidden_act": self.activation,
            "position_embedding_type": "absolute",
            "pad_token_id": if self.architecture == "bert" { 0 } else { 1 },
        })
    }

    fn tokenizer(&self) -> Value {
        let vocabulary = self.vocabulary();
        let id = |token: &str| vocabulary.iter().position(|entry| entry == token).unwrap();
        let special = |token: &str| json!({"id": token, "ids": [id(token)], "tokens": [token]});
        let added = |token: &&String| {
            json!({"id": id(token), "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        };
        let frame = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
        let text = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": vocabulary.iter().filter(|token| token.starts_with('[')).map(|token| added(&token)).collect::<Vec<_>>(),
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [frame("[CLS]"), text("A"), frame("[SEP]")],
                "pair": [frame("[CLS]"), text("A"), frame("[SEP]"), text("B"), frame("[SEP]")],
                "special_tokens": {"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")},
            },
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": vocabulary.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect::<serde_json::Map<_, _>>(),
            },
        })
    }
}

/// SplitMix64 (Steele et al. 2014).
pub struct Random(pub u64);

impl Random {
    /// From -1 to 1.
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}
