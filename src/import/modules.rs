//! `modules.json`: which of sentence-transformers' classes a checkpoint is made of.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::ImportError;
use super::sentence::EMBEDDERS;

/// A line of `modules.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Module {
    #[serde(default)]
    pub(super) path: String,
    /// A class of the sentence-transformers library, or of a module of the checkpoint's own.
    pub(super) r#type: String,
    #[serde(default, rename = "idx")]
    _index: Value,
    #[serde(default, rename = "name")]
    _name: Value,
    /// Arguments of a call that the module takes.
    #[serde(default)]
    pub(super) kwargs: Vec<String>,
}

/// Modules that are computed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Transformer,
    Pooling,
    Normalize,
}

impl Kind {
    const ALL: [(&str, Self); 3] =
        [("Transformer", Self::Transformer), ("Pooling", Self::Pooling), ("Normalize", Self::Normalize)];
}

/// Packages of sentence-transformers that these classes have lain in, from its first release to 6.2. A module of the same name anywhere else
/// is the repository's own code.
const PACKAGES: [&str; 4] = [
    "sentence_transformers.models",
    "sentence_transformers.base.modules",
    "sentence_transformers.sentence_transformer.modules",
    "sentence_transformers.sentence_transformer.models",
];

impl Module {
    /// Which of those that are computed it is. The class may be named by its package, or by its own file in there.
    pub(super) fn kind(&self) -> Option<Kind> {
        let (package, class) = self.r#type.rsplit_once('.')?;
        let (_, kind) = Kind::ALL.into_iter().find(|(name, _)| *name == class)?;
        let in_package = |known: &str| match package.strip_prefix(known) {
            Some("") => true,
            Some(file) => file.strip_prefix('.').is_some_and(|file| file.eq_ignore_ascii_case(class)),
            None => false,
        };
        PACKAGES.into_iter().any(in_package).then_some(kind)
    }

    /// The module's directory.
    pub(super) fn directory(&self, root: &Path) -> Result<PathBuf, ImportError> {
        let path = Path::new(&self.path);
        if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Ok(root.join(path));
        }
        let reason = format!("its path `{}` leads out of the checkpoint", self.path);
        Err(ImportError::malformed(&root.join("modules.json"), reason))
    }

    /// Why it is not computed, and what works.
    pub(super) fn unsupported(&self) -> ImportError {
        let class = self.r#type.rsplit('.').next().unwrap_or_default();
        let own = !self.r#type.starts_with("sentence_transformers.");
        let (what, remedy) = match class {
            _ if own => (
                "a module of the repository's own",
                "its code would have to be run; export the whole pipeline to ONNX with an output `sentence_embedding`, and import that without \
                 modules.json",
            ),
            "StaticEmbedding" => {
                ("a static embedding (a table of words, without an encoder)", "only encoders are imported")
            }
            "SpladePooling" | "MLMTransformer" | "SparseAutoEncoder" | "SparseStaticEmbedding" => {
                ("a sparse model (SPLADE)", EMBEDDERS)
            }
            "MultiVectorMask" => ("a multi-vector model (ColBERT)", EMBEDDERS),
            "LogitScore" | "CausalLogits" => ("a reranker", EMBEDDERS),
            "CLIPModel" => ("a model of images and texts (CLIP)", "only texts are embedded"),
            _ => (
                "not computed here",
                "a model must be made of Transformer, Pooling and Normalize; \
                 export the whole pipeline to ONNX with an output `sentence_embedding`, and import that without modules.json",
            ),
        };
        ImportError::unsupported(format!("the module `{}` in modules.json, {what},", self.r#type), remedy)
    }
}
