//! The keys of tokenizer_config.json: which shape ids, which shape nothing, and which are not known here.

use std::path::Path;

use serde_json::{Map, Value};

use super::ImportError;
use crate::import::facts::Facts;

/// Keys that a class here obeys, or that are read elsewhere in this module.
const OBEYED: [&str; 18] = [
    "tokenizer_class",
    "auto_map",
    "model_max_length",
    "max_len",
    "truncation_side",
    "do_lower_case",
    "strip_accents",
    "tokenize_chinese_chars",
    "add_prefix_space",
    "keep_accents",
    "split_by_punct",
    "unk_id",
    "added_tokens_decoder",
    "extra_special_tokens",
    "additional_special_tokens",
    "model_specific_special_tokens",
    "split_special_tokens",
    "fix_mistral_regex",
];

/// Keys that change no id of a text: of how rows are padded, of decoding, of chats, of where files lay, and those that transformers 5 drops
/// where there is a tokenizer.json.
const WITHOUT_EFFECT: [&str; 54] = [
    "padding_side",
    "padding",
    "pad_to_multiple_of",
    "pad_token_type_id",
    "pad_token_id",
    "max_length",
    "stride",
    "truncation",
    "truncation_strategy",
    "clean_up_tokenization_spaces",
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
    "errors",
    "spaces_between_special_tokens",
    "trim_offsets",
    "chat_template",
    "response_template",
    "response_schema",
    "chat_control_tokens",
    "name_or_path",
    "is_local",
    "local_files_only",
    "backend",
    "special_tokens_map_file",
    "tokenizer_file",
    "vocab_file",
    "merges_file",
    "vocab_size",
    "tokenizer_type",
    "use_fast",
    "from_slow",
    "legacy",
    "do_basic_tokenize",
    "never_split",
    "wordpieces_prefix",
    "init_inputs",
    "processor_class",
    "model_input_names",
    "add_bos_token",
    "add_eos_token",
    "sp_model_kwargs",
    "use_default_system_prompt",
    "extra_ids",
    "vocab_type",
    "split_by_punct_sentencepiece",
    "return_token_type_ids",
    "unk_token_id",
    "bos_token_id",
    "eos_token_id",
    "transformers_version",
    "cache_dir",
    "revision",
    "tokenizer_config_file",
    "additional_special_tokens_ids",
    "torch_dtype",
];

/// Refuses what cannot be obeyed, and notes what is not known.
pub(super) fn check(config: &Map<String, Value>, path: &Path, facts: &mut Facts) -> Result<(), ImportError> {
    if config.get("split_special_tokens") == Some(&Value::Bool(true)) {
        return Err(ImportError::unsupported(
            format!("`split_special_tokens` true in `{}`", path.display()),
            "special tokens that stand in a text are always taken as such here; use a model that was trained so",
        ));
    }
    for (key, expected) in [
        ("do_lower_case", "true or false"),
        ("strip_accents", "true, false or null"),
        ("tokenize_chinese_chars", "true or false"),
        ("add_prefix_space", "true or false"),
        ("keep_accents", "true or false"),
        ("split_by_punct", "true or false"),
    ] {
        // Null is a switch that is not set, but of the one of which it is a value.
        if let Some(value) = config.get(key).filter(|value| !value.is_boolean() && !value.is_null()) {
            return Err(ImportError::malformed(
                path,
                format!("its `{key}` is {value}, and must be {expected}"),
            ));
        }
    }
    for key in config.keys() {
        let known = OBEYED.contains(&key.as_str())
            || WITHOUT_EFFECT.contains(&key.as_str())
            || key.ends_with("_token");
        if !known {
            facts.not_understood(format!("`{key}` in tokenizer_config.json"));
        }
    }
    Ok(())
}

/// Whether a text that is too long loses its start: `truncation_side`, or else what tokenizer.json was saved with.
pub(super) fn cuts_start(
    config: &Map<String, Value>,
    file: &Value,
    path: &Path,
) -> Result<bool, ImportError> {
    match config.get("truncation_side") {
        None => Ok(file["truncation"]["direction"] == "Left"),
        Some(side) if side == "right" => Ok(false),
        Some(side) if side == "left" => Ok(true),
        Some(other) => {
            let reason = format!("its `truncation_side` is {other}, and must be \"left\" or \"right\"");
            Err(ImportError::malformed(path, reason))
        }
    }
}
