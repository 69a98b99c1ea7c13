//! What transformers' classes build round a vocabulary (transformers 5.24, `models/*/tokenization_*.py`), written into tokenizer.json.

use std::fmt;

use serde_json::{Map, Value, json};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

use super::class::Class;

/// How Qwen's tokenizer splits a text before its merges.
const QWEN_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The tokens that a class puts round every text, by name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) before: Vec<String>,
    pub(super) after: Vec<String>,
}

/// What was done to a file.
#[derive(Debug, Default)]
pub(super) struct Rebuilt {
    /// Each setting that the file has otherwise, as it is now.
    pub(super) changes: Vec<String>,
    pub(super) frame: Option<Frame>,
}

/// Puts the class's rules into `file`, where it has others.
///
/// # Errors
/// In a sentence, if the file has a model of another kind than the class takes.
pub(super) fn apply(class: &Class, config: &Map<String, Value>, file: &mut Value) -> Result<Rebuilt, String> {
    let mut rebuilt = Rebuilt::default();
    let Some(rules) = Rules::of(class, config, file) else { return Ok(rebuilt) };
    let found = model_kind(&file["model"]);
    if found != rules.kind {
        let name = class.name();
        return Err(format!(
            "its model is {found}, and {name}, the class that the checkpoint names, takes {}",
            rules.kind
        ));
    }
    let splits_words = rules.pre_tokenizer["pretokenizers"][0]["type"] == "WhitespaceSplit";
    if essence(&file["normalizer"], splits_words)? != essence(&rules.normalizer, splits_words)? {
        rebuilt.changes.push(format!("the normalizer {}", named(&rules.normalizer)));
        file["normalizer"] = rules.normalizer;
    }
    if split(&file["pre_tokenizer"])? != split(&rules.pre_tokenizer)? {
        rebuilt.changes.push(format!("the pre-tokenizer {}", named(&rules.pre_tokenizer)));
        file["pre_tokenizer"] = rules.pre_tokenizer;
    }
    for (key, value) in rules.model {
        let there = &mut file["model"][key];
        // Left out, null and empty are one.
        let is_unset = |value: &Value| value.is_null() || *value == "" || *value == false;
        if *there != value && !(is_unset(there) && is_unset(&value)) {
            rebuilt.changes.push(format!("`{key}` {value} of the model"));
            *there = value;
        }
    }
    rebuilt.frame = rules.frame;
    Ok(rebuilt)
}

/// What a class builds.
struct Rules {
    kind: &'static str,
    normalizer: Value,
    pre_tokenizer: Value,
    /// Settings of the model that decide ids.
    model: Vec<(&'static str, Value)>,
    frame: Option<Frame>,
}

impl Rules {
    fn of(class: &Class, config: &Map<String, Value>, file: &Value) -> Option<Self> {
        let token = |key: &str| {
            let default =
                class.default_tokens().iter().find(|(name, _)| *name == key).map(|(_, token)| *token);
            let named =
                config.get(key).and_then(|token| token.as_str().or_else(|| token["content"].as_str()));
            named.or(default).unwrap_or_default().to_owned()
        };
        let switch = |key: &str, absent: bool| config.get(key).and_then(Value::as_bool).unwrap_or(absent);
        let frame = |before: &str, after: &str| {
            let named = |key: &str| (!key.is_empty()).then(|| token(key)).into_iter().collect();
            Some(Frame { before: named(before), after: named(after) })
        };
        let byte_level = |space: bool| json!({"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": true});
        let merges = || {
            vec![
                ("dropout", Value::Null),
                ("byte_fallback", false.into()),
                ("ignore_merges", false.into()),
                ("continuing_subword_prefix", "".into()),
                ("end_of_word_suffix", "".into()),
            ]
        };
        let unigram = |unknown: usize| vec![("unk_id", unknown.into()), ("byte_fallback", false.into())];
        let words = |space: bool| {
            let scheme = if space { "always" } else { "never" };
            json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace(scheme)]})
        };
        let unknown_place = |absent: usize| {
            let name = token("unk_token");
            file["model"]["vocab"]
                .as_array()
                .and_then(|vocab| vocab.iter().position(|piece| piece[0] == name))
                .unwrap_or(absent)
        };
        Some(match class {
            Class::Plain | Class::Other(_) => return None,
            Class::Bert | Class::MpNet => Self {
                kind: "WordPiece",
                normalizer: json!({
                    "type": "BertNormalizer", "clean_text": true,
                    "handle_chinese_chars": switch("tokenize_chinese_chars", true),
                    "strip_accents": config.get("strip_accents").cloned().unwrap_or_default(),
                    "lowercase": switch("do_lower_case", true),
                }),
                pre_tokenizer: json!({"type": "BertPreTokenizer"}),
                model: vec![
                    ("unk_token", token("unk_token").into()),
                    ("continuing_subword_prefix", "##".into()),
                    ("max_input_chars_per_word", 100.into()),
                ],
                frame: frame("cls_token", "sep_token"),
            },
            Class::Roberta | Class::Gpt2 => Self {
                kind: "BPE",
                normalizer: Value::Null,
                pre_tokenizer: byte_level(switch("add_prefix_space", false)),
                model: merges(),
                frame: if *class == Class::Roberta { frame("cls_token", "sep_token") } else { None },
            },
            Class::XlmRoberta | Class::Camembert | Class::T5 => Self {
                kind: "Unigram",
                normalizer: precompiled(&file["normalizer"]),
                pre_tokenizer: words(*class == Class::T5 || switch("add_prefix_space", true)),
                model: unigram(match class {
                    Class::XlmRoberta => 3,
                    Class::T5 => 2,
                    _ => unknown_place(0),
                }),
                frame: if *class == Class::T5 {
                    Some(Frame { before: Vec::new(), after: vec!["</s>".to_owned()] })
                } else {
                    frame("bos_token", "eos_token")
                },
            },
            Class::Albert => Self {
                kind: "Unigram",
                normalizer: albert(
                    switch("keep_accents", false),
                    switch("do_lower_case", true),
                    &file["normalizer"],
                ),
                pre_tokenizer: words(switch("add_prefix_space", true)),
                model: unigram(1),
                frame: None,
            },
            Class::DebertaV2 => Self {
                kind: "Unigram",
                normalizer: deberta(switch("do_lower_case", false)),
                pre_tokenizer: {
                    let scheme = if switch("add_prefix_space", true) { "always" } else { "first" };
                    let punctuation = switch("split_by_punct", false)
                        .then(|| json!({"type": "Punctuation", "behavior": "Isolated"}));
                    let parts: Vec<Value> = punctuation.into_iter().chain([metaspace(scheme)]).collect();
                    json!({"type": "Sequence", "pretokenizers": parts})
                },
                model: unigram(unknown_place(
                    config.get("unk_id").and_then(Value::as_u64).unwrap_or(1) as usize
                )),
                frame: frame("cls_token", "sep_token"),
            },
            Class::Qwen2 => Self {
                kind: "BPE",
                normalizer: json!({"type": "NFC"}),
                pre_tokenizer: json!({"type": "Sequence", "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": QWEN_SPLIT}, "behavior": "Isolated", "invert": false},
                    {"type": "ByteLevel", "add_prefix_space": switch("add_prefix_space", false), "trim_offsets": true, "use_regex": false},
                ]}),
                model: merges(),
                frame: None,
            },
            Class::Gemma => Self {
                kind: "BPE",
                normalizer: replace(json!({"String": " "}), "▁"),
                pre_tokenizer: json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false}),
                model: vec![
                    ("dropout", Value::Null),
                    ("byte_fallback", true.into()),
                    ("fuse_unk", true.into()),
                    ("unk_token", token("unk_token").into()),
                ],
                frame: None,
            },
        })
    }
}

fn metaspace(scheme: &str) -> Value {
    json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true})
}

fn replace(pattern: Value, content: &str) -> Value {
    json!({"type": "Replace", "pattern": pattern, "content": content})
}

fn albert(keep_accents: bool, lowercase: bool, there: &Value) -> Value {
    let mut steps = vec![replace(json!({"String": "``"}), "\""), replace(json!({"String": "''"}), "\"")];
    if !keep_accents {
        steps.extend([json!({"type": "NFKD"}), json!({"type": "StripAccents"})]);
    }
    if lowercase {
        steps.push(json!({"type": "Lowercase"}));
    }
    steps.extend(Some(precompiled(there)).filter(|step| !step.is_null()));
    json!({"type": "Sequence", "normalizers": steps})
}

fn deberta(lowercase: bool) -> Value {
    let mut steps = Vec::new();
    if lowercase {
        steps.push(json!({"type": "Lowercase"}));
    }
    steps.push(replace(json!({"Regex": r"\s{2,}|[\n\r\t]"}), " "));
    steps.push(json!({"type": "NFC"}));
    steps.push(json!({"type": "Strip", "strip_left": false, "strip_right": true}));
    json!({"type": "Sequence", "normalizers": steps})
}

/// The table of a sentencepiece model in a normalizer, the first that it has.
fn precompiled(normalizer: &Value) -> Value {
    steps(normalizer).into_iter().find(|step| step["type"] == "Precompiled").unwrap_or_default()
}

fn steps(normalizer: &Value) -> Vec<Value> {
    match normalizer {
        Value::Null => Vec::new(),
        normalizer if normalizer["type"] == "Sequence" => {
            normalizer["normalizers"].as_array().into_iter().flatten().flat_map(steps).collect()
        }
        one => vec![one.clone()],
    }
}

/// The steps of a normalizer in the library's own words. Where the pre-tokenizer takes all white space out, steps that change nothing but
/// white space between words are no difference.
fn essence(normalizer: &Value, splits_words: bool) -> Result<Vec<Value>, String> {
    let essential = steps(normalizer).into_iter().filter(|step| {
        let spaces = step["type"] == "Strip"
            || (step["type"] == "Replace" && step["pattern"] == json!({"Regex": " {2,}"}));
        !(splits_words && spaces)
    });
    essential
        .map(|step| {
            let parsed: NormalizerWrapper =
                serde_json::from_value(step).map_err(|error| format!("its normalizer: {error}"))?;
            serde_json::to_value(&parsed).map_err(|error| error.to_string())
        })
        .collect()
}

/// A pre-tokenizer in the library's own words, without what only moves offsets.
fn split(pre_tokenizer: &Value) -> Result<Value, String> {
    if pre_tokenizer.is_null() {
        return Ok(Value::Null);
    }
    let parsed: PreTokenizerWrapper = serde_json::from_value(pre_tokenizer.clone())
        .map_err(|error| format!("its pre-tokenizer: {error}"))?;
    let mut value = serde_json::to_value(&parsed).map_err(|error| error.to_string())?;
    if let Some([only]) = value["pretokenizers"].as_array().map(Vec::as_slice) {
        value = only.clone();
    }
    let parts = match value["pretokenizers"].as_array_mut() {
        Some(parts) => parts.iter_mut().collect(),
        None => vec![&mut value],
    };
    for part in parts {
        if part["type"] == "ByteLevel" {
            part["trim_offsets"] = Value::Null;
        }
    }
    Ok(value)
}

/// The kind of a model. Files of before there was a `type` are told by their keys.
fn model_kind(model: &Value) -> &str {
    match model["type"].as_str() {
        Some(kind) => kind,
        None if model["merges"].is_array() => "BPE",
        None if model["vocab"].is_array() => "Unigram",
        None if model["continuing_subword_prefix"].is_string() => "WordPiece",
        None => "WordLevel",
    }
}

/// A part in few words: a table of characters would be a page.
fn named(part: &Value) -> String {
    match part {
        Value::Null => "none".to_owned(),
        part if part["type"] == "Precompiled" => "Precompiled".to_owned(),
        part => {
            let inner = part["normalizers"].as_array().or(part["pretokenizers"].as_array());
            match inner {
                Some(inner) => inner.iter().map(named).collect::<Vec<_>>().join(", "),
                None => part.to_string(),
            }
        }
    }
}

impl Frame {
    /// A post-processor that puts the tokens round a text, of which `id` knows the ids.
    pub(super) fn template(&self, id: impl Fn(&str) -> u32) -> Value {
        let special = |token: &String| json!({"SpecialToken": {"id": token, "type_id": 0}});
        let text = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
        let before = || self.before.iter().map(special);
        let after = || self.after.iter().map(special);
        let single: Vec<Value> = before().chain([text("A")]).chain(after()).collect();
        let pair: Vec<Value> = single.iter().cloned().chain([text("B")]).chain(after()).collect();
        let tokens: Map<String, Value> = self
            .before
            .iter()
            .chain(&self.after)
            .map(|token| (token.clone(), json!({"id": token, "ids": [id(token)], "tokens": [token]})))
            .collect();
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens})
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<&str> = self
            .before
            .iter()
            .map(String::as_str)
            .chain(["..."])
            .chain(self.after.iter().map(String::as_str))
            .collect();
        formatter.write_str(&all.join(" "))
    }
}
