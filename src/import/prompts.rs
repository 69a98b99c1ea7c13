//! `config_sentence_transformers.json`: prompts, and what sentence-transformers does with a finished vector.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::ImportError;
use super::checkpoint::json;
use super::facts::Facts;
use super::sentence::EMBEDDERS;

const FILE: &str = "config_sentence_transformers.json";

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) prompts: BTreeMap<String, String>,
    pub(super) default_prompt: Option<String>,
    /// Vectors are cut to so many components, after they were normalised.
    pub(super) truncate_dim: Option<usize>,
}

/// Prompts that the library has without being told, both empty.
const EMPTY_UNLESS_SAID: [&str; 2] = ["query", "document"];

impl Settings {
    /// Reads the file of the checkpoint in `root`; `asked` goes over its prompts.
    ///
    /// # Errors
    /// By name, what of it cannot be obeyed.
    pub(super) fn read(
        root: &Path,
        asked: &BTreeMap<String, String>,
        facts: &mut Facts,
    ) -> Result<Self, ImportError> {
        let path = root.join(FILE);
        let file: Option<Map<String, Value>> = json(root, &path)?;
        if file.is_none() && asked.is_empty() {
            let told = "no prompts: a query is embedded as a document is (--prompt NAME=TEXT gives them)";
            facts.took(told, &format!("no {FILE}"), "");
        }
        let keys = file.unwrap_or_default();
        let malformed = |reason: String| ImportError::malformed(&path, reason);
        let mut read = Self::default();
        for (key, value) in keys {
            let unsupported = |remedy: &str| {
                ImportError::unsupported(format!("`{key}` {value} in `{}`", path.display()), remedy)
            };
            match key.as_str() {
                "__version__" | "requirements" => {}
                _ if value.is_null() => {}
                "model_type" if value == "SentenceTransformer" => {}
                "model_type" => {
                    let what = match value.as_str().unwrap_or_default() {
                        "CrossEncoder" => "a reranker",
                        "SparseEncoder" => "a sparse model (SPLADE)",
                        "MultiVectorEncoder" => "a multi-vector model (ColBERT)",
                        _ => "something else than an embedder",
                    };
                    return Err(unsupported(&format!("it says that the checkpoint is {what}; {EMBEDDERS}")));
                }
                "prompts" => read.prompts = prompts(&value).map_err(malformed)?,
                "default_prompt_name" => match value.as_str() {
                    Some(name) => read.default_prompt = Some(name.to_owned()),
                    None => {
                        return Err(malformed(format!(
                            "its `{key}` is {value}, and must be the name of a prompt"
                        )));
                    }
                },
                // How vectors are compared is told, and changes none.
                "similarity_fn_name" => match value.as_str() {
                    Some("maxsim" | "MaxSim" | "meanmax") => return Err(unsupported(EMBEDDERS)),
                    Some(name) => facts.took(format!("similarity {name}"), FILE, "similarity_fn_name"),
                    None => return Err(malformed(format!("its `{key}` is {value}, and must be a name"))),
                },
                "truncate_dim" => {
                    let width = value
                        .as_u64()
                        .and_then(|width| usize::try_from(width).ok())
                        .filter(|width| *width > 0);
                    let width = width.ok_or_else(|| {
                        malformed(format!("its `{key}` is {value}, and must be a number of dimensions"))
                    })?;
                    facts.took(format!("vectors are cut to {width} dimensions"), FILE, "truncate_dim");
                    read.truncate_dim = Some(width);
                }
                _ => {
                    return Err(unsupported(
                        "its effect on the vectors is not known here; if it has none, take it out of the file",
                    ));
                }
            }
        }
        for name in read.prompts.keys().filter(|name| !asked.contains_key(*name)) {
            facts.took(format!("prompt `{name}`"), FILE, "prompts");
        }
        for name in asked.keys() {
            facts.took(format!("prompt `{name}`"), "--prompt", "");
        }
        read.prompts.extend(asked.clone());
        if let Some(name) = read.default_prompt.clone().filter(|name| !read.prompts.contains_key(name)) {
            if !EMPTY_UNLESS_SAID.contains(&name.as_str()) {
                return Err(malformed(format!("its default_prompt_name `{name}` is none of its prompts")));
            }
            read.default_prompt = None;
        }
        Ok(read)
    }
}

/// Bytes of a prompt, which is tokenized anew with every text. Published ones have some hundred.
const MOST_PROMPT_BYTES: usize = 16 << 10;

/// Prompts by name. One that is null is empty, as in the library.
fn prompts(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let object =
        value.as_object().ok_or_else(|| format!("its `prompts` is {value}, and must be an object"))?;
    let prompt = |(name, text): (&String, &Value)| match text {
        Value::Null => Ok((name.clone(), String::new())),
        Value::String(text) if text.len() > MOST_PROMPT_BYTES => Err(format!(
            "its prompt `{name}` has {} bytes, and at most {MOST_PROMPT_BYTES} are taken: it goes before every text",
            text.len()
        )),
        Value::String(text) => Ok((name.clone(), text.clone())),
        other => Err(format!("its prompt `{name}` is {other}, and must be a text")),
    };
    object.iter().map(prompt).collect()
}
