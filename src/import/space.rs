//! The vector space of a version: a digest over everything that shapes a vector, and over nothing else.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::ImportError;
use super::encoder::Encoder;
use crate::engine::Pooling;
use crate::repository::manifest::{Precision, Space};
use crate::tokenize::Truncate;

/// What shapes a version's vectors.
///
/// Digested as JSON: fields in this order, enums by the names that the manifest gives them, prompts by name. Any change to
/// a name, to the order or to what is in here moves every version that is imported afterwards into a space of its own.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Ingredients<'a> {
    pub(super) graph: Origin<'a>,
    /// SHA-256 of tokenizer.json.
    pub(super) tokenizer: &'a str,
    pub(super) precision: Precision,
    pub(super) pooling: Pooling,
    pub(super) normalise: bool,
    /// The same long text is cut elsewhere.
    pub(super) max_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_query_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_document_tokens: Option<usize>,
    /// Which end of it is cut off; absent where it is the end, as in every version of before this was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) truncate: Option<Truncate>,
    /// The width that vectors are cut to after they were normalised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) truncate_dim: Option<usize>,
    pub(super) prompts: &'a BTreeMap<String, String>,
    // Which of them a client gets that names none.
    pub(super) default_prompt: Option<&'a str>,
    pub(super) default_query_prompt: Option<&'a str>,
    pub(super) default_document_prompt: Option<&'a str>,
}

/// What a graph computes, by what it was made from.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Origin<'a> {
    /// The encoder as read from config.json. Not the compiled graph: another release of the compiler may write the same
    /// function with other nodes. Not config.json itself: most of its keys (`_name_or_path`, `transformers_version`) shape
    /// nothing, and a key left out means the same as its default written down.
    Compiled {
        /// SHA-256 of model.safetensors.
        weights: &'a str,
        encoder: &'a Encoder,
        /// What int8 ranges were made with.
        #[serde(skip_serializing_if = "Option::is_none")]
        ranges: Option<Ranges<'a>>,
    },
    /// The files alone: config.json has no say in what an export computes.
    TakenOver {
        /// SHA-256 of the graph and the weights beside it.
        files: &'a str,
    },
}

/// What the activation ranges of an int8 graph were made with: other ranges, other vectors.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Ranges<'a> {
    /// SHA-256 of the calibration texts.
    pub(super) texts: &'a str,
    /// Which way of making int8 of them.
    pub(super) recipe: u32,
}

impl Ingredients<'_> {
    /// The space of a version that claims no other's.
    pub(super) fn space(&self) -> Result<Space, ImportError> {
        let canonical = serde_json::to_vec(self).map_err(|error| {
            ImportError::Request(format!("the vector space cannot be described: {error}"))
        })?;
        Ok(Space(hex::encode(&Sha256::digest(canonical)[..8])))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::encoder::Activation;
    use super::*;

    fn encoder() -> Encoder {
        Encoder {
            architecture: "bert".to_owned(),
            hidden: 384,
            layers: 6,
            heads: 12,
            intermediate: 1536,
            vocabulary: 30522,
            table: 512,
            first_position: 0,
            padding: None,
            token_types: 2,
            epsilon: 1e-12,
            activation: Activation::Gelu,
        }
    }

    fn prompts(prompts: &[(&str, &str)]) -> BTreeMap<String, String> {
        prompts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn ingredients<'a>(encoder: &'a Encoder, prompts: &'a BTreeMap<String, String>) -> Ingredients<'a> {
        Ingredients {
            graph: Origin::Compiled { weights: "aa", encoder, ranges: None },
            tokenizer: "bb",
            precision: Precision::Fp32,
            pooling: Pooling::Mean,
            normalise: true,
            max_tokens: 256,
            max_query_tokens: None,
            max_document_tokens: None,
            truncate: None,
            truncate_dim: None,
            prompts,
            default_prompt: None,
            default_query_prompt: Some("query"),
            default_document_prompt: None,
        }
    }

    #[test]
    fn a_space_outlives_releases() {
        let prompts = prompts(&[("query", "find: "), ("text", "")]);
        // If this fails, every version imported from now on is foreign to the indexes made with the one before it.
        assert_eq!(ingredients(&encoder(), &prompts).space().unwrap().0, "07a1433051899550");
    }

    #[test]
    fn every_ingredient_counts() {
        let (same, texts) = (encoder(), prompts(&[("query", "find: "), ("text", "")]));
        let first = || ingredients(&same, &texts);
        let compiled = |weights, ranges| {
            let graph = Origin::Compiled { weights, encoder: &same, ranges };
            Ingredients { graph, ..first() }
        };
        let taken_over = |files| Ingredients { graph: Origin::TakenOver { files }, ..first() };
        let mut all = vec![
            first(),
            Ingredients { tokenizer: "cc", ..first() },
            Ingredients { precision: Precision::Fp16, ..first() },
            Ingredients { pooling: Pooling::Cls, ..first() },
            Ingredients { pooling: Pooling::LastToken, ..first() },
            Ingredients { normalise: false, ..first() },
            Ingredients { max_tokens: 255, ..first() },
            Ingredients { max_query_tokens: Some(32), ..first() },
            Ingredients { max_document_tokens: Some(32), ..first() },
            Ingredients { truncate: Some(Truncate::Start), ..first() },
            Ingredients { truncate_dim: Some(32), ..first() },
            Ingredients { default_prompt: Some("query"), ..first() },
            Ingredients { default_query_prompt: None, ..first() },
            Ingredients { default_query_prompt: Some("text"), ..first() },
            Ingredients { default_document_prompt: Some("query"), ..first() },
            taken_over("aa"),
            taken_over("ab"),
            compiled("ab", None),
            compiled("aa", Some(Ranges { texts: "dd", recipe: 1 })),
            compiled("aa", Some(Ranges { texts: "de", recipe: 1 })),
            compiled("aa", Some(Ranges { texts: "dd", recipe: 2 })),
        ];
        let other_prompts = [
            prompts(&[]),
            prompts(&[("query", "find: ")]),
            prompts(&[("query", "find:"), ("text", "")]),
            prompts(&[("question", "find: "), ("text", "")]),
        ];
        all.extend(other_prompts.iter().map(|prompts| Ingredients { prompts, ..first() }));
        let other_encoders = [
            Encoder { hidden: 768, ..encoder() },
            Encoder { layers: 5, ..encoder() },
            Encoder { heads: 6, ..encoder() },
            Encoder { intermediate: 768, ..encoder() },
            Encoder { vocabulary: 30521, ..encoder() },
            Encoder { table: 514, ..encoder() },
            Encoder { first_position: 2, ..encoder() },
            Encoder { padding: Some(1), ..encoder() },
            Encoder { token_types: 1, ..encoder() },
            Encoder { epsilon: 1e-5, ..encoder() },
            Encoder { activation: Activation::GeluTanh, ..encoder() },
            Encoder { activation: Activation::Relu, ..encoder() },
        ];
        all.extend(other_encoders.iter().map(|encoder| ingredients(encoder, &texts)));
        let spaces: BTreeSet<String> = all.iter().map(|one| one.space().unwrap().0).collect();
        assert_eq!(spaces.len(), all.len());
    }

    #[test]
    fn the_name_of_an_architecture_does_not_count() {
        let texts = BTreeMap::new();
        let renamed = Encoder { architecture: "another".to_owned(), ..encoder() };
        let space = |encoder: &Encoder| ingredients(encoder, &texts).space().unwrap();
        assert_eq!(space(&renamed), space(&encoder()));
    }
}
