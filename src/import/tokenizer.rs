//! The tokenizer that the checkpoint's own library makes of its files.
//!
//! transformers 5 does not take tokenizer.json as it is. A class with rules of its own (BERT's, RoBERTa's, XLM-R's, ...) takes the vocabulary
//! and the merges from it and builds the rest from tokenizer_config.json and its defaults; tokens of tokenizer_config.json are added to both.
//! So a version gets the tokenizer that results. Where that is the same as the file, the file is kept byte for byte, and so is the space.

mod added;
mod class;
mod keys;
mod rules;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::Tokenizer;

use super::ImportError;
use super::checkpoint::{check_inside, json, missing};
use super::facts::Facts;
use crate::files::read_whole;
use crate::tokenize::{MOST_BYTES, check_growth, frame_of};
use class::Class;

/// What a checkpoint's files make of a text.
#[derive(Debug)]
pub(super) struct Effective {
    /// tokenizer.json as it goes with the version.
    pub(super) file: Vec<u8>,
    /// A text that is too long loses its start, not its end.
    pub(super) cuts_start: bool,
    /// `model_max_length`: 1e30 and the like where it was not set.
    pub(super) longest: Option<f64>,
    /// tokenizer_config.json, for messages.
    pub(super) config_path: PathBuf,
}

/// The files that a tokenizer is made of.
struct Source<'a> {
    path: &'a Path,
    /// tokenizer.json.
    file: Value,
    /// tokenizer_config.json, with what sentence-transformers puts over it.
    config: Map<String, Value>,
    class: Class,
    added: added::Files,
}

/// Reads the tokenizer in `directory` of the checkpoint in `root`. `model` is its config.json; `over` goes over tokenizer_config.json, and
/// `lowercase` is what sentence-transformers wants besides.
///
/// # Errors
/// If a file is missing or damaged, or by name what of it is not supported.
pub(super) fn read(
    root: &Path,
    directory: &Path,
    model: &Value,
    over: Map<String, Value>,
    lowercase: bool,
    facts: &mut Facts,
) -> Result<Effective, ImportError> {
    let path = directory.join("tokenizer.json");
    if !path.is_file() {
        let remedy = "a fast tokenizer's file is needed; make it with \
            `transformers.AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR)`";
        return Err(missing(&path, remedy));
    }
    check_inside(root, &path)?;
    let bytes = read_whole(&path, MOST_BYTES).map_err(ImportError::io("read", &path))?;
    let file: Value = serde_json::from_slice(&bytes).map_err(|error| ImportError::malformed(&path, error))?;
    let config_path = directory.join("tokenizer_config.json");
    let mut config: Map<String, Value> = json(root, &config_path)?.unwrap_or_default();
    config.extend(over);
    keys::check(&config, &config_path, facts)?;
    let class = Class::of(&config, model, &config_path)?;
    if let Class::Other(name) = &class {
        facts.not_understood(format!(
            "the tokenizer class `{name}`: tokenizer.json is taken as it is, which that class may not do"
        ));
    }
    let added = added::Files::read(root, directory, &mut config)?;
    let cuts_start = keys::cuts_start(&config, &file, &config_path)?;
    let longest = ["model_max_length", "max_len"].iter().find_map(|key| config.get(*key)?.as_f64());
    let source = Source { path: &path, file, config, class, added };
    let original = source.parsed(source.file.clone())?;
    let effective = source.effective(lowercase, facts)?;
    let file = if same(&original, &effective)? { bytes } else { serialised(&effective)?.into_bytes() };
    Ok(Effective { file, cuts_start, longest, config_path })
}

impl Source<'_> {
    fn parsed(&self, file: Value) -> Result<Tokenizer, ImportError> {
        parse(&file).map_err(|reason| ImportError::malformed(self.path, reason))
    }

    /// The tokenizer that results.
    fn effective(&self, lowercase: bool, facts: &mut Facts) -> Result<Tokenizer, ImportError> {
        let mut file = self.file.clone();
        let rebuilt = rules::apply(&self.class, &self.config, &mut file)
            .map_err(|what| ImportError::malformed(self.path, what))?;
        for change in rebuilt.changes {
            facts.took(change, "tokenizer_config.json", self.class.name());
        }
        if self.class.has_rules() && self.added.in_config {
            file["added_tokens"] = Value::Array(Vec::new());
        }
        let mut tokenizer = self.parsed(file)?;
        let tokens = self.added.tokens(&self.class, &self.config, &tokenizer);
        tokenizer.add_tokens(tokens).map_err(|error| {
            ImportError::malformed(self.path, format!("a token cannot be added: {error}"))
        })?;
        if let Some(frame) = rebuilt.frame {
            self.frame(&mut tokenizer, &frame, facts)?;
        }
        if lowercase && !lowercases(&tokenizer, self.path)? {
            tokenizer = self.lowercased(&tokenizer)?;
            facts.took("texts are lowercased".to_owned(), "sentence_bert_config.json", "do_lower_case");
        }
        Ok(tokenizer)
    }

    /// Puts the tokens `frame` round every text, if the file puts others.
    fn frame(
        &self,
        tokenizer: &mut Tokenizer,
        frame: &rules::Frame,
        facts: &mut Facts,
    ) -> Result<(), ImportError> {
        let id = |token: &String| {
            tokenizer.token_to_id(token).ok_or_else(|| {
                let reason =
                    format!("it has no token `{token}`, which {} puts round a text", self.class.name());
                ImportError::malformed(self.path, reason)
            })
        };
        let before = frame.before.iter().map(id).collect::<Result<Vec<_>, _>>()?;
        let after = frame.after.iter().map(id).collect::<Result<Vec<_>, _>>()?;
        let there = frame_of(tokenizer).map_err(|error| ImportError::malformed(self.path, error))?;
        if there != (before, after) {
            let mut file = reread(&*tokenizer)?;
            file["post_processor"] = frame.template(|token| tokenizer.token_to_id(token).unwrap_or_default());
            *tokenizer = self.parsed(file)?;
            facts.took(format!("{frame} round every text"), "tokenizer_config.json", self.class.name());
        }
        Ok(())
    }

    /// With a step before all others that lowercases.
    fn lowercased(&self, tokenizer: &Tokenizer) -> Result<Tokenizer, ImportError> {
        let mut file = reread(tokenizer)?;
        let steps = match file["normalizer"].take() {
            Value::Null => Vec::new(),
            Value::Object(mut normalizer) if normalizer.get("type") == Some(&"Sequence".into()) => {
                match normalizer.remove("normalizers") {
                    Some(Value::Array(steps)) => steps,
                    _ => Vec::new(),
                }
            }
            other => vec![other],
        };
        let steps: Vec<Value> =
            std::iter::once(serde_json::json!({"type": "Lowercase"})).chain(steps).collect();
        file["normalizer"] = serde_json::json!({"type": "Sequence", "normalizers": steps});
        self.parsed(file)
    }
}

fn parse(file: &Value) -> Result<Tokenizer, String> {
    let text = file.to_string();
    // On some files that are none the library panics.
    let parsed = std::panic::catch_unwind(|| {
        let tokenizer = Tokenizer::from_bytes(text.as_bytes()).map_err(|error| error.to_string())?;
        check_growth(&tokenizer).map(|()| tokenizer)
    });
    let mut tokenizer = parsed.map_err(|_| "the tokenizers library panics on it".to_owned())??;
    // The server pads and cuts by itself; a file's own padding would look like special tokens behind a text.
    tokenizer.with_padding(None).with_truncation(None).map_err(|error| error.to_string())?;
    Ok(tokenizer)
}

fn serialised(tokenizer: &Tokenizer) -> Result<String, ImportError> {
    tokenizer
        .to_string(false)
        .map_err(|error| ImportError::Request(format!("the tokenizer cannot be written: {error}")))
}

/// The library's own form of a tokenizer: older files say the same in other words.
fn reread(tokenizer: &Tokenizer) -> Result<Value, ImportError> {
    serde_json::from_str(&serialised(tokenizer)?)
        .map_err(|error| ImportError::Request(format!("the tokenizer cannot be read again: {error}")))
}

/// Whether both give every text the same ids. What only decodes, pads or cuts is left out: the server does that itself.
fn same(left: &Tokenizer, right: &Tokenizer) -> Result<bool, ImportError> {
    let essence = |tokenizer: &Tokenizer| {
        reread(tokenizer).map(|mut file| {
            for key in ["decoder", "truncation", "padding"] {
                file[key] = Value::Null;
            }
            file
        })
    };
    Ok(essence(left)? == essence(right)?)
}

/// Whether capitals make no difference to it.
fn lowercases(tokenizer: &Tokenizer, path: &Path) -> Result<bool, ImportError> {
    let ids = |text: &str| {
        let encoding = tokenizer.encode_fast(text, false);
        encoding
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|error| ImportError::malformed(path, error))
    };
    Ok(ids("The QUICK Brown FOX")? == ids("the quick brown fox")?)
}
