//! Tokens that are found in a text before any rule is applied: those of tokenizer.json, and those that other files add.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use super::ImportError;
use super::class::Class;
use crate::import::checkpoint::json;

/// Keys that end in `_token` and are switches.
const SWITCHES: [&str; 2] = ["add_bos_token", "add_eos_token"];

/// What the files beside tokenizer.json add.
pub(super) struct Files {
    /// tokenizer_config.json lists them: then tokenizer.json's own list counts only for a class without rules.
    pub(super) in_config: bool,
    /// In the order in which they are added.
    listed: Vec<AddedToken>,
}

impl Files {
    /// Reads them. Where tokenizer_config.json has no list of its own, special_tokens_map.json goes over `config`, as in transformers.
    pub(super) fn read(
        root: &Path,
        directory: &Path,
        config: &mut Map<String, Value>,
    ) -> Result<Self, ImportError> {
        let malformed = |file: &str, reason: String| ImportError::malformed(&directory.join(file), reason);
        if let Some(list) = config.get("added_tokens_decoder") {
            let list: BTreeMap<u32, Value> = serde_json::from_value(list.clone()).map_err(|error| {
                malformed("tokenizer_config.json", format!("its `added_tokens_decoder`: {error}"))
            })?;
            let listed = list.into_values().map(|token| {
                described(&token).ok_or_else(|| {
                    malformed(
                        "tokenizer_config.json",
                        "its `added_tokens_decoder` has a token without `content`".to_owned(),
                    )
                })
            });
            return Ok(Self { in_config: true, listed: listed.collect::<Result<_, _>>()? });
        }
        config.extend(
            json::<Map<String, Value>>(root, &directory.join("special_tokens_map.json"))?.unwrap_or_default(),
        );
        let named: Vec<String> =
            config.iter().flat_map(|(key, value)| tokens_of(key, value)).map(|token| token.content).collect();
        let list: BTreeMap<String, u32> =
            json(root, &directory.join("added_tokens.json"))?.unwrap_or_default();
        let mut list: Vec<(String, u32)> = list.into_iter().collect();
        list.sort_by_key(|(_, id)| *id);
        let listed = list.into_iter().map(|(content, _)| {
            let special = named.contains(&content);
            AddedToken::from(content, special).normalized(!special)
        });
        Ok(Self { in_config: false, listed: listed.collect() })
    }

    /// The tokens to add to `tokenizer`.
    pub(super) fn tokens(
        &self,
        class: &Class,
        config: &Map<String, Value>,
        tokenizer: &Tokenizer,
    ) -> Vec<AddedToken> {
        let there = tokenizer.get_added_tokens_decoder();
        let mut tokens: Vec<AddedToken> = self
            .listed
            .iter()
            .filter(|token| !there.values().any(|there| there == *token))
            .cloned()
            .collect();
        let mut known: Vec<String> =
            there.values().chain(&tokens).map(|token| token.content.clone()).collect();
        let named = config.iter().flat_map(|(key, value)| tokens_of(key, value));
        // A default that the vocabulary does not have would only make it longer than the model's table.
        let defaults = class
            .default_tokens()
            .iter()
            .filter(|(key, token)| !config.contains_key(*key) && tokenizer.token_to_id(token).is_some())
            .map(|(_, token)| AddedToken::from(*token, true));
        for token in named.chain(defaults) {
            if !known.contains(&token.content) {
                known.push(token.content.clone());
                tokens.push(token);
            }
        }
        tokens
    }
}

/// The special tokens that a key of tokenizer_config.json or special_tokens_map.json names.
fn tokens_of(key: &str, value: &Value) -> Vec<AddedToken> {
    match key {
        "extra_special_tokens" | "additional_special_tokens" => match value {
            Value::Array(tokens) => tokens.iter().filter_map(token).collect(),
            Value::Object(tokens) => tokens.values().filter_map(token).collect(),
            _ => Vec::new(),
        },
        key if key.ends_with("_token") && !SWITCHES.contains(&key) => token(value).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn token(value: &Value) -> Option<AddedToken> {
    match value {
        Value::String(content) => Some(AddedToken::from(content.as_str(), true)),
        value => described(value).map(|token| token.special(true)),
    }
}

/// A token with its switches, as transformers writes it.
fn described(value: &Value) -> Option<AddedToken> {
    let switch = |name: &str, absent: bool| value.get(name).and_then(Value::as_bool).unwrap_or(absent);
    let special = switch("special", false);
    Some(
        AddedToken::from(value.get("content")?.as_str()?, special)
            .lstrip(switch("lstrip", false))
            .rstrip(switch("rstrip", false))
            .single_word(switch("single_word", false))
            .normalized(switch("normalized", !special)),
    )
}
