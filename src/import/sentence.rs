//! `sentence_bert_config.json`: what sentence-transformers does between a text and its encoder, in the form of all its releases.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::ImportError;
use super::checkpoint::{SENTENCE_CONFIGS, json};
use super::facts::Facts;

/// What shapes a vector there.
#[derive(Debug, Default)]
pub(super) struct Sentence {
    /// The file; empty if there is none.
    pub(super) path: PathBuf,
    /// Longest text in tokens, special tokens included.
    pub(super) longest: Option<usize>,
    /// The key that says so.
    pub(super) longest_from: &'static str,
    /// The same of a query and of a document.
    pub(super) longest_query: Option<usize>,
    pub(super) longest_document: Option<usize>,
    /// Texts are lowercased before the tokenizer's own steps.
    pub(super) lowercase: bool,
    /// Goes over tokenizer_config.json.
    pub(super) tokenizer: Map<String, Value>,
}

/// Keys of the file that say how the encoder runs and shape no vector.
const WITHOUT_EFFECT: [&str; 1] = ["unpad_inputs"];

/// Arguments of the model that say where and how it runs. Weights are computed in the precision that `import` is asked for.
const RUNS: [&str; 7] = [
    "attn_implementation",
    "torch_dtype",
    "dtype",
    "device_map",
    "low_cpu_mem_usage",
    "use_safetensors",
    "trust_remote_code",
];

impl Sentence {
    /// Reads the file beside the encoder in `directory`.
    ///
    /// # Errors
    /// By name, what of it cannot be obeyed.
    pub(super) fn read(root: &Path, directory: &Path, facts: &mut Facts) -> Result<Self, ImportError> {
        for path in SENTENCE_CONFIGS.map(|name| directory.join(name)) {
            // As the library does: an empty one is none.
            if let Some(keys) = json::<Map<String, Value>>(root, &path)?.filter(|keys| !keys.is_empty()) {
                let mut read = Self { path, ..Self::default() };
                for (key, value) in keys {
                    read.take(&key, value)?;
                }
                if read.lowercase {
                    facts.took("texts are lowercased", &read.name(), "do_lower_case");
                }
                return Ok(read);
            }
        }
        Ok(Self::default())
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn take(&mut self, key: &str, value: Value) -> Result<(), ImportError> {
        if WITHOUT_EFFECT.contains(&key) || value.is_null() {
            return Ok(());
        }
        match key {
            "max_seq_length" => {
                // Inside of processing_kwargs it goes before this one.
                if self.longest.is_none() {
                    (self.longest, self.longest_from) = (Some(self.number(key, &value)?), "max_seq_length");
                }
            }
            "query_length" => self.longest_query = Some(self.number(key, &value)?),
            "document_length" => self.longest_document = Some(self.number(key, &value)?),
            "do_lower_case" => self.lowercase = self.switch(key, &value)?,
            "transformer_task" if value == "feature-extraction" => {}
            "transformer_task" => {
                let task = match value.as_str().unwrap_or_default() {
                    "sequence-classification" | "text-generation" | "any-to-any" => {
                        "a reranker or classifier"
                    }
                    "fill-mask" => "a sparse model (SPLADE)",
                    "retrieval" => "a multi-vector model (ColBERT, ColPali)",
                    _ => "something else than an embedder",
                };
                return Err(self.unsupported(
                    key,
                    &value,
                    &format!("it says that the checkpoint is {task}; {EMBEDDERS}"),
                ));
            }
            "module_output_name" if value == "token_embeddings" => {}
            "modality_config" => self.modality(&value)?,
            "processing_kwargs" => self.processing(&value)?,
            "query_expansion" => {
                return Err(self.unsupported(
                    key,
                    &value,
                    "it says that the checkpoint is a multi-vector model (ColBERT)",
                ));
            }
            "tokenizer_args" | "processor_kwargs" => self.tokenizer.extend(self.object(key, &value)?.clone()),
            "model_args" | "model_kwargs" => {
                let arguments = self.object(key, &value)?;
                if let Some(other) = arguments.keys().find(|name| !RUNS.contains(&name.as_str())) {
                    return Err(self.unsupported(&format!("{key}.{other}"), &arguments[other], REMOVE));
                }
            }
            "config_args" | "config_kwargs" => {
                let arguments = self.object(key, &value)?;
                let harmless = |name: &&String| {
                    !["trust_remote_code", "use_cache", "output_attentions"].contains(&name.as_str())
                };
                if let Some(other) = arguments.keys().find(harmless) {
                    return Err(self.unsupported(
                        &format!("{key}.{other}"),
                        &arguments[other],
                        "put the setting into config.json itself, where it is read",
                    ));
                }
            }
            other => return Err(self.unsupported(other, &value, REMOVE)),
        }
        Ok(())
    }

    /// Which of the encoder's outputs is pooled: the last hidden states, or else nothing that is computed here.
    fn modality(&self, value: &Value) -> Result<(), ImportError> {
        for (modality, ways) in self.object("modality_config", value)? {
            let key = format!("modality_config.{modality}");
            if modality != "text" {
                return Err(self.unsupported(&key, ways, "only plain texts are embedded here"));
            }
            if ways["method"] != "forward" || ways["method_output_name"] != "last_hidden_state" {
                return Err(self.unsupported(
                    &key,
                    ways,
                    "the last hidden states of `forward` are pooled here",
                ));
            }
        }
        Ok(())
    }

    /// Arguments of each call of the tokenizer.
    fn processing(&mut self, value: &Value) -> Result<(), ImportError> {
        for (part, arguments) in self.object("processing_kwargs", value)? {
            let path = format!("processing_kwargs.{part}");
            let arguments = self.object(&path, arguments)?;
            for (name, value) in arguments {
                let key = format!("{path}.{name}");
                match (part.as_str(), name.as_str()) {
                    (_, "return_tensors")
                    | ("text" | "common", "padding" | "padding_side" | "pad_to_multiple_of") => {}
                    ("text" | "common", "truncation") if *value == true || value == "longest_first" => {}
                    ("text" | "common", "add_special_tokens") if *value == true => {}
                    ("text" | "common", "max_length") if value.is_null() => {}
                    ("text" | "common", "max_length") => {
                        (self.longest, self.longest_from) =
                            (Some(self.number(&key, value)?), "processing_kwargs.text.max_length");
                    }
                    ("audio" | "image" | "video" | "chat_template", _) => {
                        return Err(self.unsupported(&key, value, "only plain texts are embedded here"));
                    }
                    _ => return Err(self.unsupported(&key, value, REMOVE)),
                }
            }
        }
        Ok(())
    }

    fn number(&self, key: &str, value: &Value) -> Result<usize, ImportError> {
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| self.wrong(key, value, "a number of tokens"))
    }

    fn switch(&self, key: &str, value: &Value) -> Result<bool, ImportError> {
        value.as_bool().ok_or_else(|| self.wrong(key, value, "true or false"))
    }

    fn object<'a>(&self, key: &str, value: &'a Value) -> Result<&'a Map<String, Value>, ImportError> {
        value.as_object().ok_or_else(|| self.wrong(key, value, "an object"))
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> ImportError {
        ImportError::malformed(&self.path, format!("its `{key}` is {value}, and must be {expected}"))
    }

    fn unsupported(&self, key: &str, value: &Value, remedy: &str) -> ImportError {
        ImportError::unsupported(format!("`{key}` {value} in `{}`", self.path.display()), remedy)
    }
}

pub(super) const EMBEDDERS: &str = "only models that give a text one vector are imported";
const REMOVE: &str = "its effect on the vectors is not known here; if it has none, take it out of the file";
