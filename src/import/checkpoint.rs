//! What a checkpoint directory says about its model, apart from the weights.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::card::FrontMatter;
use super::pipeline::Pipeline;
use super::{ImportError, Request};
use crate::engine::Pooling;
use crate::files::read_whole;
use crate::tokenize::{Tokenizer, TokenizerError, Truncate};

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
    pub(super) pooling: Pooling,
    pub(super) normalise: bool,
    pub(super) max_tokens: usize,
    /// What says so, for messages: a flag, or a key of a file.
    max_tokens_from: String,
    pub(super) prompts: BTreeMap<String, String>,
    pub(super) default_prompt: Option<String>,
    pub(super) licence: Option<String>,
    pub(super) training_data: Option<String>,
    /// What it does not say and import took for granted.
    pub(super) assumptions: Vec<String>,
    /// The file that wants texts lowercased before the tokenizer sees them.
    lowercase: Option<PathBuf>,
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
        let config: Value = json(root, &config_path)?.ok_or_else(|| {
            missing(&config_path, "a checkpoint directory has the model's config.json in it")
        })?;
        let architecture = config.get("model_type").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        let tokenizer = directory.join("tokenizer.json");
        if !tokenizer.is_file() {
            let remedy = "a fast tokenizer's file is needed; make it with \
                `transformers.AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR)`";
            return Err(missing(&tokenizer, remedy));
        }
        check_inside(root, &tokenizer)?;
        let (mut sentence, mut sentence_path) = (SentenceConfig::default(), PathBuf::new());
        for path in SENTENCE_CONFIGS.map(|name| directory.join(name)) {
            if let Some(found) = json(root, &path)? {
                (sentence, sentence_path) = (found, path);
                break;
            }
        }
        let tokenizer_path = directory.join("tokenizer_config.json");
        let tokenizer: TokenizerConfig = json(root, &tokenizer_path)?.unwrap_or_default();
        let key = |key: &str, path: &Path| format!("`{key}` in `{}`", path.display());
        let length = Length {
            asked: request.max_tokens,
            sentence: sentence.max_seq_length,
            tokenizer: tokenizer.model_max_length,
            positions: positions(&config, &architecture),
        };
        let (max_tokens, from) = length.max_tokens()?;
        let max_tokens_from = match from {
            LengthFrom::Asked => "--max-tokens".to_owned(),
            LengthFrom::Sentence => key("max_seq_length", &sentence_path),
            LengthFrom::Tokenizer => key("model_max_length", &tokenizer_path),
            LengthFrom::Positions => {
                format!("the room that {} leaves", key("max_position_embeddings", &config_path))
            }
        };
        let prompts: PipelineConfig =
            json(root, &root.join("config_sentence_transformers.json"))?.unwrap_or_default();
        let default_prompt = prompts.default_prompt_name;
        let mut prompts = prompts.prompts.unwrap_or_default();
        prompts.extend(request.prompts.clone());
        if let Some(name) = default_prompt.as_ref().filter(|name| !prompts.contains_key(*name)) {
            let reason = format!("its default_prompt_name `{name}` is none of its prompts");
            return Err(ImportError::malformed(&root.join("config_sentence_transformers.json"), reason));
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
            max_tokens,
            max_tokens_from,
            prompts,
            default_prompt,
            assumptions: pipeline.assumptions,
            lowercase: sentence.do_lower_case.unwrap_or(false).then_some(sentence_path),
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
        let tokenizer =
            Tokenizer::load(&self.file("tokenizer.json"), self.max_tokens).map_err(|error| match error {
                TokenizerError::NoRoom { max_tokens, added } => ImportError::Request(format!(
                    "{} is {max_tokens}, and the tokenizer adds {added} special tokens to every input; it must be more",
                    self.max_tokens_from
                )),
                other => other.into(),
            })?;
        let ids = |text: &str| {
            let tokens = tokenizer.tokenize(text, Truncate::End);
            tokens
                .map(|tokens| tokens.ids)
                .map_err(|source| ImportError::Text { text: text.to_owned(), source })
        };
        if let Some(path) = &self.lowercase
            && ids("The QUICK Brown FOX")? != ids("the quick brown fox")?
        {
            return Err(ImportError::unsupported(
                format!("`do_lower_case` in `{}` with a tokenizer that keeps capitals", path.display()),
                "put a Lowercase normalizer into tokenizer.json, or set do_lower_case to false if the model takes capitals",
            ));
        }
        Ok(tokenizer)
    }
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
    /// 1e30 and the like where nobody set it.
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
