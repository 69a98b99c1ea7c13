//! What a checkpoint directory says about its model, apart from the weights.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::card::FrontMatter;
use super::facts::Facts;
use super::pipeline::{Asked, Pipeline};
use super::prompts::Settings;
use super::sentence::Sentence;
use super::tokenizer::{self, Effective};
use super::{ImportError, Request, directory, task};
use crate::engine::Pooling;
use crate::files::read_whole;
use crate::tokenize::{Tokenizer, TokenizerError};

/// A config.json that names a hundred thousand labels has some megabytes. More is not read into memory.
pub(super) const MOST_BYTES: u64 = 32 << 20;

/// Names that sentence-transformers has given the file beside an encoder's config.json.
pub(super) const SENTENCE_CONFIGS: [&str; 7] = [
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
    /// From token vectors to one; none if no file and no flag says it.
    pub(super) pooling: Option<Pooling>,
    pub(super) normalise: bool,
    /// modules.json says that this is an embedder.
    pub(super) is_declared: bool,
    /// tokenizer.json as it goes with the version.
    pub(super) tokenizer_file: Vec<u8>,
    /// A text that is too long loses its start.
    pub(super) cuts_start: bool,
    pub(super) max_tokens: usize,
    /// What says so, for messages: a flag, or a key of a file.
    max_tokens_from: String,
    /// Longest query and document, where they are others.
    pub(super) max_query_tokens: Option<usize>,
    pub(super) max_document_tokens: Option<usize>,
    pub(super) prompts: BTreeMap<String, String>,
    pub(super) default_prompt: Option<String>,
    /// Vectors are cut to so many components, after they were normalised.
    pub(super) truncate_dim: Option<usize>,
    pub(super) licence: Option<String>,
    pub(super) training_data: Option<String>,
    /// What it does not say and import took for granted.
    pub(super) assumptions: Vec<String>,
    pub(super) facts: Facts,
}

impl Checkpoint {
    /// Reads the checkpoint that `request` names.
    ///
    /// # Errors
    /// If a file is missing or damaged, or by name what is not supported.
    pub(super) fn read(request: &Request<'_>) -> Result<Self, ImportError> {
        let root = request.checkpoint;
        directory::check(root)?;
        let mut facts = Facts::default();
        let settings = Settings::read(root, &request.prompts, &mut facts)?;
        let asked = Asked { pooling: request.pooling, normalise: request.normalise };
        let pipeline = Pipeline::read(root, asked, &mut facts)?;
        let directory = pipeline.encoder;
        let config_path = directory.join("config.json");
        let config: Value = json(root, &config_path)?.ok_or_else(|| {
            missing(&config_path, "a checkpoint directory has the model's config.json in it")
        })?;
        task::check_kind(&config)?;
        task::check_architectures(&config, pipeline.is_declared, pipeline.pooling.is_some())?;
        let architecture = config.get("model_type").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        let mut sentence = Sentence::read(root, &directory, &mut facts)?;
        let over = std::mem::take(&mut sentence.tokenizer);
        let Effective { file, cuts_start, longest, config_path: tokenizer_path } =
            tokenizer::read(root, &directory, &config, over, sentence.lowercase, &mut facts)?;
        let key = |key: &str, path: &Path| format!("`{key}` in `{}`", path.display());
        let room = positions(&config, &architecture);
        let length = Length {
            asked: request.max_tokens,
            sentence: sentence.longest,
            tokenizer: longest,
            positions: room,
        };
        let (max_tokens, from) = length.max_tokens()?;
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (max_tokens_from, file_name, key_name) = match from {
            LengthFrom::Asked => ("--max-tokens".to_owned(), "--max-tokens".to_owned(), ""),
            LengthFrom::Sentence => {
                let from = sentence.longest_from;
                (key(from, &sentence.path), name(&sentence.path), from)
            }
            LengthFrom::Tokenizer => {
                (key("model_max_length", &tokenizer_path), name(&tokenizer_path), "model_max_length")
            }
            LengthFrom::Positions => (
                format!("the room that {} leaves", key("max_position_embeddings", &config_path)),
                name(&config_path),
                "max_position_embeddings",
            ),
        };
        facts.took(format!("longest input {max_tokens} tokens"), &file_name, key_name);
        let of_kind = |length: Option<usize>, key: &str, facts: &mut Facts| {
            // As the library does: what processing_kwargs or the flag says goes before these.
            let over = from == LengthFrom::Asked || sentence.longest_from.starts_with("processing_kwargs");
            let length =
                length.filter(|_| !over).map(|length| room.map_or(length, |room| room.min(length)))?;
            facts.took(format!("{} {length} tokens", key.replace('_', " ")), &name(&sentence.path), key);
            Some(length).filter(|length| *length != max_tokens)
        };
        for (key_name, length) in
            [("query_length", sentence.longest_query), ("document_length", sentence.longest_document)]
        {
            if let Some(length) = length.filter(|length| *length > max_tokens && request.max_tokens.is_none())
            {
                let (key, longest) = (key(key_name, &sentence.path), max_tokens);
                return Err(ImportError::Request(format!(
                    "{key} is {length}, more than the {longest} tokens of a text without a kind: give the longest of them as --max-tokens"
                )));
            }
        }
        let max_query_tokens = of_kind(sentence.longest_query, "query_length", &mut facts);
        let max_document_tokens = of_kind(sentence.longest_document, "document_length", &mut facts);
        if cuts_start {
            facts.took("long texts lose their start", &name(&tokenizer_path), "truncation_side");
        }
        let mut assumptions = pipeline.assumptions;
        if let Some(name) = document_prompt(&settings.prompts).filter(|name| *name != "document") {
            assumptions.push(format!(
                "Documents get the prompt `{name}`: there is none named `document`, and sentence-transformers' encode_document then puts \
                 nothing before them."
            ));
        }
        let readme = FrontMatter::read(root)?;
        Ok(Self {
            licence: readme.licence(),
            training_data: readme.training_data(),
            directory,
            config,
            architecture,
            pooling: pipeline.pooling,
            normalise: pipeline.normalise,
            is_declared: pipeline.is_declared,
            tokenizer_file: file,
            cuts_start,
            max_tokens,
            max_tokens_from,
            max_query_tokens,
            max_document_tokens,
            prompts: settings.prompts,
            default_prompt: settings.default_prompt,
            truncate_dim: settings.truncate_dim,
            assumptions,
            facts,
        })
    }

    /// A file of the checkpoint.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The name of the prompt for queries.
    pub(super) fn query_prompt(&self) -> Option<&str> {
        self.prompts.get_key_value("query").map(|(name, _)| name.as_str())
    }

    /// The name of the prompt for documents.
    pub(super) fn document_prompt(&self) -> Option<&str> {
        document_prompt(&self.prompts)
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// If its file is damaged, or the special tokens alone are as long as a text may be.
    pub(super) fn tokenizer(&self) -> Result<Tokenizer, ImportError> {
        let path = self.file("tokenizer.json");
        let shortest = [self.max_query_tokens, self.max_document_tokens]
            .into_iter()
            .flatten()
            .fold(self.max_tokens, usize::min);
        let read = |most| {
            Tokenizer::read(&self.tokenizer_file, most, |reason| TokenizerError::Unreadable {
                path: path.display().to_string(),
                reason: reason.to_string(),
            })
        };
        if shortest < self.max_tokens {
            read(shortest)?;
        }
        read(self.max_tokens).map_err(|error| match error {
            TokenizerError::NoRoom { max_tokens, added } => ImportError::Request(format!(
                "{} is {max_tokens}, and the tokenizer adds {added} special tokens to every input; it must be more",
                self.max_tokens_from
            )),
            other => other.into(),
        })
    }

    /// How token vectors become one.
    ///
    /// # Errors
    /// If no file and no flag says it.
    pub(super) fn pooling(&self) -> Result<Pooling, ImportError> {
        self.pooling.ok_or_else(|| {
            ImportError::Request(
                "the checkpoint has no modules.json, which would say how token vectors become one for the text, and another way gives \
                 other vectors: pass --pooling mean, cls or last_token, as its model card or its original says"
                    .to_owned(),
            )
        })
    }
}

/// The name of the prompt for documents, of those that checkpoints give it.
fn document_prompt(prompts: &BTreeMap<String, String>) -> Option<&'static str> {
    ["document", "passage", "corpus"].into_iter().find(|name| prompts.contains_key(*name))
}

/// Reads a JSON file of the checkpoint in `root`; `None` if there is none.
pub(super) fn json<T: DeserializeOwned>(root: &Path, path: &Path) -> Result<Option<T>, ImportError> {
    let Some(bytes) = read(root, path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| ImportError::malformed(path, error))
}

/// Reads a small file of the checkpoint in `root`, which no link may lead out of it; `None` if there is none.
pub(super) fn read(root: &Path, path: &Path) -> Result<Option<Vec<u8>>, ImportError> {
    match read_whole(path, MOST_BYTES) {
        Ok(bytes) => check_inside(root, path).map(|()| Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ImportError::io("read", path)(error)),
    }
}

/// Refuses a file that a link leads out of the checkpoint: what it leads to would be published as if it were the checkpoint's. The
/// hub's own cache keeps files so, as links from `snapshots/<revision>` into the `blobs` beside `snapshots`.
pub(super) fn check_inside(root: &Path, file: &Path) -> Result<(), ImportError> {
    let resolved = |path: &Path| path.canonicalize().map_err(ImportError::io("read", path));
    let (root, target) = (resolved(root)?, resolved(file)?);
    let snapshots = root.parent().filter(|parent| parent.ends_with("snapshots"));
    let blobs = snapshots.and_then(Path::parent).map(|cache| cache.join("blobs"));
    if target.starts_with(&root) || blobs.is_some_and(|blobs| target.starts_with(blobs)) {
        return Ok(());
    }
    let reason =
        format!("it is a link out of the checkpoint, to `{}`; put the file itself there", target.display());
    Err(ImportError::malformed(file, reason))
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

/// What there is to say how long an input may be, in tokens.
#[derive(Debug, Clone, Copy, Default)]
struct Length {
    asked: Option<usize>,
    sentence: Option<usize>,
    /// 1e30 and the like where it was not set.
    tokenizer: Option<f64>,
    positions: Option<usize>,
}

/// Which of them said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LengthFrom {
    Asked,
    Sentence,
    Tokenizer,
    Positions,
}

impl Length {
    /// The longest input: what was asked for, else what the checkpoint says; never more than there is room for.
    fn max_tokens(self) -> Result<(usize, LengthFrom), ImportError> {
        let room = self.positions.unwrap_or(usize::MAX);
        if let Some(asked) = self.asked.filter(|asked| *asked > room) {
            return Err(ImportError::Request(format!(
                "--max-tokens is {asked}, and the model has positions for {room} tokens; ask for {room} or fewer"
            )));
        }
        // More than any model takes is as good as nothing.
        let tokenizer = self.tokenizer.filter(|length| (1.0..1e9).contains(length));
        let said = [
            (self.asked, LengthFrom::Asked),
            (self.sentence, LengthFrom::Sentence),
            (tokenizer.map(|length| length as usize), LengthFrom::Tokenizer),
        ];
        let said = said.into_iter().find_map(|(length, from)| Some((length?, from)));
        match (said, self.positions) {
            (Some((length, from)), _) if length <= room => Ok((length, from)),
            (_, Some(positions)) => Ok((positions, LengthFrom::Positions)),
            _ => Err(ImportError::Request(
                "the checkpoint does not say how long an input may be; pass --max-tokens".to_owned(),
            )),
        }
    }
}

/// The key of config.json that says so, and the type, where the library computes in half precision.
pub(super) fn half(config: &Value) -> Option<(&'static str, &str)> {
    let said = |key: &'static str| Some((key, config.get(key)?.as_str()?));
    said("dtype")
        .or_else(|| said("torch_dtype"))
        .filter(|(_, dtype)| matches!(*dtype, "bfloat16" | "float16"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_longest_input_comes_from_the_first_file_that_says() {
        let length = |asked, sentence, tokenizer| {
            Length { asked, sentence, tokenizer, positions: Some(512) }.max_tokens().unwrap()
        };
        assert_eq!(length(Some(64), Some(256), Some(128.0)), (64, LengthFrom::Asked));
        assert_eq!(length(None, Some(256), Some(128.0)), (256, LengthFrom::Sentence));
        assert_eq!(length(None, None, Some(128.0)), (128, LengthFrom::Tokenizer));
        assert_eq!(length(None, None, Some(1e30)), (512, LengthFrom::Positions));
        assert_eq!(length(None, None, None), (512, LengthFrom::Positions));
        assert_eq!(length(None, Some(1024), None), (512, LengthFrom::Positions));
        let endless = Length { sentence: Some(8192), ..Length::default() };
        assert_eq!(endless.max_tokens().unwrap(), (8192, LengthFrom::Sentence));
        let long = Length { asked: Some(513), positions: Some(512), ..Length::default() };
        assert_eq!(
            long.max_tokens().unwrap_err().to_string(),
            "--max-tokens is 513, and the model has positions for 512 tokens; ask for 512 or fewer"
        );
        let silent = Length { tokenizer: Some(1e30), ..Length::default() };
        let error = silent.max_tokens().unwrap_err();
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
