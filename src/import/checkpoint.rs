//! What a checkpoint directory says about its model, apart from the weights.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::card::FrontMatter;
use super::pipeline::Pipeline;
use super::{ImportError, Request};
use crate::engine::Pooling;
use crate::tokenize::{Tokenizer, Truncate};

/// Names that sentence-transformers has given the file beside an encoder's config.json.
const SENTENCE_CONFIGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Architectures that count positions from the one after the padding token's id, so that so many rows of their position
/// table are no room for text.
const OFFSET_POSITIONS: [&str; 6] =
    ["roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "roberta-prelayernorm"];

/// A checkpoint as its JSON files and README describe it, what the request overrides already put in.
#[derive(Debug)]
pub(super) struct Checkpoint {
    /// Where config.json, the tokenizer and the weights are.
    pub(super) directory: PathBuf,
    /// config.json.
    pub(super) config: Value,
    /// `model_type` of it.
    pub(super) architecture: String,
    pub(super) pooling: Pooling,
    pub(super) normalise: bool,
    pub(super) max_tokens: usize,
    pub(super) prompts: BTreeMap<String, String>,
    pub(super) default_prompt: Option<String>,
    pub(super) licence: Option<String>,
    pub(super) training_data: Option<String>,
    /// What it does not say and import took for granted.
    pub(super) assumptions: Vec<String>,
    /// Texts are to be lowercased before the tokenizer sees them.
    lowercase: bool,
}

/// `sentence_bert_config.json`
#[derive(Default, Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
    do_lower_case: Option<bool>,
}

/// `config_sentence_transformers.json`
#[derive(Default, Deserialize)]
struct PipelineConfig {
    prompts: Option<BTreeMap<String, String>>,
    default_prompt_name: Option<String>,
}

/// `tokenizer_config.json`
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    /// 1e30 and the like where nobody set it.
    model_max_length: Option<f64>,
}

impl Checkpoint {
    /// Reads the checkpoint that `request` names.
    ///
    /// # Errors
    /// If a file is missing or damaged, or by name what is not supported.
    pub(super) fn read(request: &Request<'_>) -> Result<Self, ImportError> {
        let root = request.checkpoint;
        let pipeline = Pipeline::read(root, request.pooling)?;
        let directory = pipeline.encoder;
        let config_path = directory.join("config.json");
        let config: Value = json(&config_path)?.ok_or_else(|| {
            missing(&config_path, "a checkpoint directory has the model's config.json in it")
        })?;
        let architecture = config.get("model_type").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        let tokenizer = directory.join("tokenizer.json");
        if !tokenizer.is_file() {
            let remedy = "a fast tokenizer's file is needed; make it with \
                `transformers.AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR)`";
            return Err(missing(&tokenizer, remedy));
        }
        let mut sentence = SentenceConfig::default();
        for name in SENTENCE_CONFIGS {
            if let Some(found) = json(&directory.join(name))? {
                sentence = found;
                break;
            }
        }
        let tokenizer: TokenizerConfig = json(&directory.join("tokenizer_config.json"))?.unwrap_or_default();
        let room = positions(&config, &architecture);
        let max_tokens =
            max_tokens(request.max_tokens, sentence.max_seq_length, tokenizer.model_max_length, room)?;
        let prompts: PipelineConfig =
            json(&root.join("config_sentence_transformers.json"))?.unwrap_or_default();
        let default_prompt = prompts.default_prompt_name;
        let mut prompts = prompts.prompts.unwrap_or_default();
        prompts.extend(request.prompts.clone());
        if let Some(name) = default_prompt.as_ref().filter(|name| !prompts.contains_key(*name)) {
            let reason = format!("its default_prompt_name `{name}` is none of its prompts");
            return Err(ImportError::malformed(&root.join("config_sentence_transformers.json"), reason));
        }
        let readme = FrontMatter::read(&root.join("README.md"))?;
        Ok(Self {
            licence: readme.licence(),
            training_data: readme.training_data(),
            directory,
            config,
            architecture,
            pooling: pipeline.pooling,
            normalise: pipeline.normalise,
            max_tokens,
            prompts,
            default_prompt,
            assumptions: pipeline.assumptions,
            lowercase: sentence.do_lower_case.unwrap_or(false),
        })
    }

    /// A file of the checkpoint.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The name of the prompt for queries.
    pub(super) fn query_prompt(&self) -> Option<&str> {
        self.first_prompt(&["query"])
    }

    /// The name of the prompt for documents.
    pub(super) fn document_prompt(&self) -> Option<&str> {
        self.first_prompt(&["document", "passage", "corpus"])
    }

    fn first_prompt(&self, names: &[&'static str]) -> Option<&str> {
        names.iter().copied().find(|name| self.prompts.contains_key(*name))
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// If its file is damaged, or it does not lowercase where the checkpoint wants that.
    pub(super) fn tokenizer(&self) -> Result<Tokenizer, ImportError> {
        let tokenizer = Tokenizer::load(&self.file("tokenizer.json"), self.max_tokens)?;
        let ids = |text: &str| {
            let tokens = tokenizer.tokenize(text, Truncate::End);
            tokens
                .map(|tokens| tokens.ids)
                .map_err(|source| ImportError::Text { text: text.to_owned(), source })
        };
        if self.lowercase && ids("The QUICK Brown FOX")? != ids("the quick brown fox")? {
            return Err(ImportError::unsupported(
                "`do_lower_case` in sentence_bert_config.json with a tokenizer that keeps capitals",
                "put a Lowercase normalizer into tokenizer.json, or set do_lower_case to false if the model takes capitals",
            ));
        }
        Ok(tokenizer)
    }
}

/// Reads a JSON file; `None` if there is none.
pub(super) fn json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ImportError> {
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|error| ImportError::malformed(path, error))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ImportError::io("read", path)(error)),
    }
}

pub(super) fn missing(path: &Path, remedy: &'static str) -> ImportError {
    ImportError::Missing { path: path.to_owned(), remedy }
}

/// How many tokens the position table has room for, if there is one.
fn positions(config: &Value, architecture: &str) -> Option<usize> {
    let number = |key: &str| config.get(key).and_then(Value::as_u64).map(|value| value as usize);
    let rows = number("max_position_embeddings")?;
    if OFFSET_POSITIONS.contains(&architecture) {
        return Some(rows.saturating_sub(number("pad_token_id").unwrap_or(1).saturating_add(1)));
    }
    Some(rows)
}

/// The longest input: what was asked for, else what the checkpoint says; never more than there is room for.
fn max_tokens(
    asked: Option<usize>,
    sentence: Option<usize>,
    tokenizer: Option<f64>,
    room: Option<usize>,
) -> Result<usize, ImportError> {
    if let (Some(asked), Some(room)) = (asked, room)
        && asked > room
    {
        return Err(ImportError::Request(format!(
            "max_tokens is {asked}, and the model has positions for {room} tokens; ask for {room} or fewer"
        )));
    }
    // Written as 1e30 where nobody set it: more than any model takes is as good as nothing.
    let tokenizer = tokenizer.filter(|length| (1.0..1e9).contains(length)).map(|length| length as usize);
    let length = asked.or(sentence).or(tokenizer).or(room).ok_or_else(|| {
        ImportError::Request(
            "the checkpoint does not say how long an input may be; pass --max-tokens".to_owned(),
        )
    })?;
    Ok(room.map_or(length, |room| length.min(room)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_longest_input_comes_from_the_first_file_that_says() {
        let length = |asked, sentence, tokenizer| max_tokens(asked, sentence, tokenizer, Some(512)).unwrap();
        assert_eq!(length(Some(64), Some(256), Some(128.0)), 64);
        assert_eq!(length(None, Some(256), Some(128.0)), 256);
        assert_eq!(length(None, None, Some(128.0)), 128);
        assert_eq!(length(None, None, Some(1e30)), 512);
        assert_eq!(length(None, None, None), 512);
        assert_eq!(length(None, Some(1024), None), 512);
        let error = max_tokens(Some(513), None, None, Some(512)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "max_tokens is 513, and the model has positions for 512 tokens; ask for 512 or fewer"
        );
        let error = max_tokens(None, None, Some(1e30), None).unwrap_err();
        assert!(error.to_string().ends_with("pass --max-tokens"), "{error}");
    }

    #[test]
    fn positions_before_the_first_are_no_room() {
        let config = json!({"max_position_embeddings": 514, "pad_token_id": 1});
        assert_eq!(positions(&config, "xlm-roberta"), Some(512));
        assert_eq!(positions(&config, "bert"), Some(514));
        assert_eq!(positions(&json!({"max_position_embeddings": 514}), "roberta"), Some(512));
        assert_eq!(positions(&json!({}), "t5"), None);
    }
}
