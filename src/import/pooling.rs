//! What sentence-transformers makes of token vectors: the config.json of its modules Pooling and Normalize.

use std::path::Path;

use serde_json::{Map, Value};

use super::ImportError;
use super::checkpoint::{json, missing};
use crate::engine::Pooling;

/// Keys of a pooling's config.json that name its width, and none of its modes.
const POOLING_WIDTHS: [&str; 2] = ["word_embedding_dimension", "embedding_dimension"];

/// Its modes in the form of before version 5, in the order in which the library concatenates them.
const POOLING_MODES: [&str; 6] =
    ["cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"];

/// Reads `1_Pooling/config.json`: one truth value a mode, or from version 5 of the library one key that names the mode. The key goes before
/// the truth values, and where none of them is true the mean is meant.
pub(super) fn read_pooling(root: &Path, path: &Path) -> Result<Pooling, ImportError> {
    let config: Map<String, Value> = json(root, path)?
        .ok_or_else(|| missing(path, "modules.json names it; fetch the checkpoint again"))?;
    let mut legacy = Vec::new();
    for (key, value) in &config {
        let wrong = |expected: &str| {
            ImportError::malformed(path, format!("its `{key}` is {value}, and must be {expected}"))
        };
        match (key.as_str(), key.strip_prefix("pooling_mode_")) {
            ("pooling_mode" | "include_prompt", _) => {}
            (key, _) if POOLING_WIDTHS.contains(&key) => {}
            (_, Some(mode)) if POOLING_MODES.contains(&mode) => {
                if value.as_bool().ok_or_else(|| wrong("true or false"))? {
                    legacy.push(mode);
                }
            }
            _ => {
                let remedy =
                    "its effect on the vectors is not known here; if it has none, take it out of the file";
                return Err(ImportError::unsupported(
                    format!("`{key}` {value} in `{}`", path.display()),
                    remedy,
                ));
            }
        }
    }
    if config.get("include_prompt") == Some(&Value::Bool(false)) {
        return Err(ImportError::unsupported(
            format!("`include_prompt` false in `{}`", path.display()),
            "prompts take part in the pooling here; use a model whose prompts do",
        ));
    }
    let modes: Vec<&str> = match config.get("pooling_mode") {
        Some(Value::String(mode)) => vec![mode],
        Some(Value::Array(modes)) if modes.iter().all(Value::is_string) => {
            modes.iter().filter_map(Value::as_str).collect()
        }
        Some(other) if !other.is_null() => {
            let reason =
                format!("its `pooling_mode` is {other}, and must be the name of a mode, or a list of them");
            return Err(ImportError::malformed(path, reason));
        }
        _ if legacy.is_empty() => vec!["mean"],
        _ => legacy,
    };
    match modes.as_slice() {
        ["mean" | "mean_tokens"] => Ok(Pooling::Mean),
        ["cls" | "cls_token"] => Ok(Pooling::Cls),
        ["lasttoken"] => Ok(Pooling::LastToken),
        modes => Err(ImportError::unsupported(
            format!("the pooling {} of `{}`", modes.join(" with "), path.display()),
            "one of mean, cls and lasttoken is; another model must be chosen, since another pooling gives other vectors",
        )),
    }
}

/// Refuses a Normalize that works on something else than the vector of a text.
pub(super) fn check_normalize(root: &Path, path: &Path) -> Result<(), ImportError> {
    for (key, value) in json::<Map<String, Value>>(root, path)?.unwrap_or_default() {
        let known = ["module_input_name", "module_output_name"].contains(&key.as_str());
        if !(known && (value == "sentence_embedding" || value.is_null())) {
            return Err(ImportError::unsupported(
                format!("`{key}` {value} in `{}`", path.display()),
                "the vector of a text, `sentence_embedding`, is normalised here, and nothing else",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_normalize_of_anything_but_the_vector_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        let check = |text: &str| {
            fs::write(&file, text).unwrap();
            check_normalize(directory.path(), &file)
        };
        assert!(check_normalize(directory.path(), &directory.path().join("none.json")).is_ok());
        assert!(check("{}").is_ok());
        assert!(check(r#"{"module_input_name": "sentence_embedding", "module_output_name": null}"#).is_ok());
        let error = check(r#"{"module_input_name": "token_embeddings"}"#).unwrap_err().to_string();
        assert!(error.starts_with("`module_input_name` \"token_embeddings\" in"), "{error}");
        assert!(check(r#"{"eps": 1}"#).is_err());
    }
}
