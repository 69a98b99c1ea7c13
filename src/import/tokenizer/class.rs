//! Which of transformers' classes a checkpoint's tokenizer is of: its own word, and the one that is registered for its architecture.

use std::path::Path;

use serde_json::{Map, Value};

use super::ImportError;

/// A class of transformers 5, as far as it decides what becomes of tokenizer.json.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Class {
    /// Takes the file as it is.
    Plain,
    Bert,
    MpNet,
    Roberta,
    Gpt2,
    XlmRoberta,
    Camembert,
    T5,
    Albert,
    Qwen2,
    Gemma,
    DebertaV2,
    /// Has rules that are not written down here.
    Other(String),
}

/// Architectures whose files on hubs name a wrong class: transformers goes by its own table.
const WRONG_ON_HUBS: [&str; 5] = ["modernbert", "modernbert-decoder", "qwen2", "siglip2", "phi3"];

impl Class {
    /// The class that transformers would use, given tokenizer_config.json and config.json.
    ///
    /// # Errors
    /// If the tokenizer is code of the repository's own.
    pub(super) fn of(config: &Map<String, Value>, model: &Value, path: &Path) -> Result<Self, ImportError> {
        if config.get("auto_map").is_some_and(|map| map.is_array() || map.get("AutoTokenizer").is_some()) {
            return Err(ImportError::unsupported(
                format!(
                    "a tokenizer that is code of the repository's own (`auto_map` in `{}`)",
                    path.display()
                ),
                "save it as a plain one with `PreTrainedTokenizerFast` of transformers, or use another model",
            ));
        }
        let named = config.get("tokenizer_class").or_else(|| model.get("tokenizer_class"));
        let named = named.and_then(Value::as_str).map(Self::named);
        let architecture = model.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let registered = Self::registered(architecture);
        Ok(match (named, registered) {
            (Some(named), Some(registered)) if named != registered => {
                let trusted = registered != Self::Plain && !WRONG_ON_HUBS.contains(&architecture);
                if trusted { named } else { registered }
            }
            (Some(named), _) => named,
            (None, registered) => registered.unwrap_or(Self::Plain),
        })
    }

    /// The class of that name. Those with `Fast` at the end are the same since transformers 5.
    fn named(name: &str) -> Self {
        match name.strip_suffix("Fast").unwrap_or(name) {
            "PreTrainedTokenizer" | "TokenizersBackend" | "PythonBackend" | "Bloom" => Self::Plain,
            "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer" => Self::Bert,
            "MPNetTokenizer" => Self::MpNet,
            "RobertaTokenizer" => Self::Roberta,
            "GPT2Tokenizer" => Self::Gpt2,
            "XLMRobertaTokenizer" => Self::XlmRoberta,
            "CamembertTokenizer" => Self::Camembert,
            "T5Tokenizer" => Self::T5,
            "AlbertTokenizer" => Self::Albert,
            "Qwen2Tokenizer" => Self::Qwen2,
            "GemmaTokenizer" => Self::Gemma,
            "DebertaV2Tokenizer" => Self::DebertaV2,
            other => Self::Other(other.to_owned()),
        }
    }

    /// The class in transformers' table for the architectures that are compiled or taken over.
    fn registered(architecture: &str) -> Option<Self> {
        Some(match architecture {
            "bert" | "distilbert" | "electra" | "nomic_bert" | "megatron-bert" | "nezha" | "ernie"
            | "convbert" | "squeezebert" | "visual_bert" => Self::Bert,
            "mpnet" => Self::MpNet,
            "roberta" | "roberta-prelayernorm" | "longformer" | "data2vec-text" | "ibert" => Self::Roberta,
            "gpt2" | "gpt_neo" | "gptj" | "opt" => Self::Gpt2,
            "xlm-roberta" | "xmod" | "gte" | "jina_embeddings_v3" => Self::XlmRoberta,
            "camembert" => Self::Camembert,
            "t5" | "mt5" | "switch_transformers" => Self::T5,
            "albert" | "yoso" => Self::Albert,
            "qwen2" | "qwen3" | "qwen2_vl" | "qwen3_moe" => Self::Qwen2,
            "gemma" | "gemma2" | "gemma3" | "gemma3_text" => Self::Gemma,
            "deberta-v2" => Self::DebertaV2,
            "modernbert" | "modernbert-decoder" | "xlm-roberta-xl" | "umt5" | "granite" | "nystromformer" => {
                Self::Plain
            }
            _ => return None,
        })
    }

    /// Its name, for messages.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Plain => "PreTrainedTokenizerFast",
            Self::Bert => "BertTokenizer",
            Self::MpNet => "MPNetTokenizer",
            Self::Roberta => "RobertaTokenizer",
            Self::Gpt2 => "GPT2Tokenizer",
            Self::XlmRoberta => "XLMRobertaTokenizer",
            Self::Camembert => "CamembertTokenizer",
            Self::T5 => "T5Tokenizer",
            Self::Albert => "AlbertTokenizer",
            Self::Qwen2 => "Qwen2Tokenizer",
            Self::Gemma => "GemmaTokenizer",
            Self::DebertaV2 => "DebertaV2Tokenizer",
            Self::Other(name) => name,
        }
    }

    /// Whether it builds the tokenizer anew from the vocabulary.
    pub(super) fn has_rules(&self) -> bool {
        !matches!(self, Self::Plain | Self::Other(_))
    }

    /// Its special tokens where no file names them.
    pub(super) fn default_tokens(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Plain | Self::Other(_) => &[],
            Self::Bert => &[
                ("unk_token", "[UNK]"),
                ("sep_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
            Self::MpNet => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("sep_token", "</s>"),
                ("cls_token", "<s>"),
                ("unk_token", "[UNK]"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
            Self::Roberta | Self::XlmRoberta | Self::Camembert => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("sep_token", "</s>"),
                ("cls_token", "<s>"),
                ("unk_token", "<unk>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
            Self::Gpt2 | Self::Qwen2 => &[("unk_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>")],
            Self::T5 => &[("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")],
            Self::Albert => &[
                ("bos_token", "[CLS]"),
                ("eos_token", "[SEP]"),
                ("unk_token", "<unk>"),
                ("sep_token", "[SEP]"),
                ("pad_token", "<pad>"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
            Self::Gemma => &[
                ("unk_token", "<unk>"),
                ("bos_token", "<bos>"),
                ("eos_token", "<eos>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
            Self::DebertaV2 => &[
                ("bos_token", "[CLS]"),
                ("eos_token", "[SEP]"),
                ("unk_token", "[UNK]"),
                ("sep_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
        }
    }
}
