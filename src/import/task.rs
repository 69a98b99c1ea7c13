//! What a checkpoint is for, by its config.json and the tensors of its weights: only what gives a text one vector is imported.

use std::path::Path;

use serde_json::{Map, Value};

use super::ImportError;
use super::facts::Facts;
use super::sentence::EMBEDDERS;

/// Endings of the classes in `architectures`, and what a checkpoint of that class is.
const HEADS: [(&str, &str); 11] = [
    ("ForSequenceClassification", "a reranker or classifier"),
    ("ForTokenClassification", "a classifier of tokens"),
    ("ForQuestionAnswering", "a model that finds answers in a text"),
    ("ForMultipleChoice", "a classifier of choices"),
    ("ForNextSentencePrediction", "a classifier of pairs"),
    ("ForRetrieval", "a multi-vector model (ColBERT, ColPali)"),
    ("ColBERT", "a multi-vector model (ColBERT)"),
    ("ForImageClassification", "a model of images"),
    ("ForMaskedLM", "a bare language model or a sparse one (SPLADE)"),
    ("ForPreTraining", "a bare language model or a sparse one (SPLADE)"),
    ("ForCausalLM", "a bare language model"),
];

/// Those of the above that a model keeps from its training when it becomes an embedder: exports of embedders still have them.
const LANGUAGE_MODELS: [&str; 3] = ["ForMaskedLM", "ForPreTraining", "ForCausalLM"];

/// `model_type` of what is no encoder of texts.
const OTHER_KINDS: [(&str, &str); 25] = [
    ("clip", "a model of images and texts (CLIP)"),
    ("chinese_clip", "a model of images and texts (CLIP)"),
    ("clip_text_model", "the text half of a model of images and texts (CLIP)"),
    ("siglip", "a model of images and texts (SigLIP)"),
    ("siglip2", "a model of images and texts (SigLIP 2)"),
    ("siglip_text_model", "the text half of a model of images and texts (SigLIP)"),
    ("blip", "a model of images and texts (BLIP)"),
    ("blip-2", "a model of images and texts (BLIP-2)"),
    ("jina_clip", "a model of images and texts (CLIP)"),
    ("qwen2_vl", "a model of images and texts"),
    ("vit", "a model of images (ViT)"),
    ("beit", "a model of images (BEiT)"),
    ("swin", "a model of images (Swin)"),
    ("resnet", "a model of images (ResNet)"),
    ("convnext", "a model of images (ConvNeXt)"),
    ("dinov2", "a model of images (DINOv2)"),
    ("dinov2_with_registers", "a model of images (DINOv2)"),
    ("dinov3_vit", "a model of images (DINOv3)"),
    ("dinov3_convnext", "a model of images (DINOv3)"),
    ("whisper", "a model of speech (Whisper)"),
    ("wav2vec2", "a model of speech (wav2vec 2.0)"),
    ("hubert", "a model of speech (HuBERT)"),
    ("clap", "a model of sounds and texts (CLAP)"),
    ("model2vec", "a static embedding (model2vec: a table of words, without an encoder)"),
    ("vision-text-dual-encoder", "a model of images and texts"),
];

/// Tensors of a head that a model was trained with, by how their names begin.
const HEAD_TENSORS: [&str; 13] = [
    "cls.",
    "lm_head.",
    "classifier.",
    "pooler.",
    "qa_outputs.",
    "vocab_transform.",
    "vocab_layer_norm.",
    "vocab_projector.",
    "generator_predictions.",
    "discriminator_predictions.",
    "predictions.",
    "pre_classifier.",
    "head.",
];

/// Refuses a model that is no encoder of texts. `config` is its config.json.
pub(super) fn check_kind(config: &Value) -> Result<(), ImportError> {
    let kind = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    match OTHER_KINDS.iter().find(|(known, _)| *known == kind) {
        Some((_, what)) => Err(ImportError::unsupported(
            format!("{what} (`model_type` `{kind}` in config.json)"),
            "only encoders of texts are imported",
        )),
        None => Ok(()),
    }
}

/// Refuses a checkpoint that its config.json says to be for something else. Where modules.json says that it is an embedder (`is_declared`), the
/// class is of its training only. A language model may be an embedder if `--pooling` or modules.json says how it pools (`is_pooled`).
pub(super) fn check_architectures(
    config: &Value,
    is_declared: bool,
    is_pooled: bool,
) -> Result<(), ImportError> {
    let classes =
        config.get("architectures").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for class in classes.iter().filter_map(Value::as_str) {
        let Some((head, what)) = HEADS.iter().find(|(head, _)| class.ends_with(head)) else { continue };
        let may_be = LANGUAGE_MODELS.contains(head);
        if is_declared || (may_be && is_pooled) {
            continue;
        }
        let remedy = if may_be {
            format!(
                "{EMBEDDERS}; if this is one, its modules.json is missing: say how it pools with --pooling"
            )
        } else {
            EMBEDDERS.to_owned()
        };
        return Err(ImportError::unsupported(
            format!("{what} (`architectures` `{class}` in config.json)"),
            remedy,
        ));
    }
    Ok(())
}

/// Decides on tensors that the encoder has no place for: a head that training left behind is left out if modules.json says that this is an
/// embedder, and BERT's pooler always. Everything else is refused: its weights would be missing in the vectors.
///
/// # Errors
/// With the first that is refused.
pub(super) fn check_unread<'a>(
    unread: impl Iterator<Item = &'a str>,
    path: &Path,
    architecture: &str,
    is_declared: bool,
    facts: &mut Facts,
) -> Result<(), ImportError> {
    let mut left_out: Vec<&str> = Vec::new();
    for tensor in unread {
        let own = tensor
            .split_once('.')
            .map_or(tensor, |(first, rest)| if is_prefix(first) { rest } else { tensor });
        let Some(head) = HEAD_TENSORS.iter().find(|head| own.starts_with(**head)) else {
            let (path, tensor) = (path.to_owned(), tensor.to_owned());
            return Err(ImportError::ExtraTensor { path, tensor, architecture: architecture.to_owned() });
        };
        if *head == "pooler." {
            continue;
        }
        if !is_declared {
            return Err(ImportError::unsupported(
                format!(
                    "the head `{tensor}` of `{}`, of a reranker, a classifier, a sparse or a bare language model,",
                    path.display()
                ),
                EMBEDDERS,
            ));
        }
        if !left_out.contains(head) {
            left_out.push(head);
        }
    }
    for head in left_out {
        facts.not_understood(format!(
            "the tensors `{head}*`: a head that the encoder was trained with, and that gives no vectors"
        ));
    }
    Ok(())
}

fn is_prefix(name: &str) -> bool {
    ["bert", "roberta", "model"].contains(&name)
}

/// Keys of config.json that shape no vector of an encoder: of training, of heads, of generating text, of other frameworks.
const WITHOUT_EFFECT: [&str; 62] = [
    "_name_or_path",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "add_cross_attention",
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "attention_probs_dropout_prob",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "directionality",
    "dtype",
    "eos_token_id",
    "eos_token_ids",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "id2label",
    "initializer_cutoff_factor",
    "initializer_factor",
    "initializer_range",
    "is_encoder_decoder",
    "label2id",
    "language",
    "layerdrop",
    "max_length",
    "model_type",
    "name",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "pad_token_id",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "prefix",
    "problem_type",
    "pruned_heads",
    "return_dict",
    "sentence_transformers",
    "sep_token_id",
    "task_specific_params",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "use_bfloat16",
    "use_cache",
    "summary_type",
    "cls_token_id",
    "mask_token_id",
];

/// Keys that a compiled encoder obeys or refuses.
const OBEYED: [&str; 14] = [
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "hidden_act",
    "position_embedding_type",
    "is_decoder",
    "auto_map",
    "embedding_size",
    "output_hidden_size",
];

/// Notes the keys of config.json that no rule here knows, of an encoder that is compiled: an export has its settings inside.
pub(super) fn note_keys(config: &Map<String, Value>, facts: &mut Facts) {
    for key in config.keys() {
        if !OBEYED.contains(&key.as_str()) && !WITHOUT_EFFECT.contains(&key.as_str()) {
            facts.not_understood(format!("`{key}` in config.json"));
        }
    }
}
