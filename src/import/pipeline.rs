//! What sentence-transformers runs after the encoder: `modules.json` and the pooling's own `config.json`.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::ImportError;
use super::checkpoint::{json, missing};
use super::facts::Facts;
use super::sentence::EMBEDDERS;
use crate::engine::Pooling;

/// The encoder and what follows it.
#[derive(Debug)]
pub(super) struct Pipeline {
    /// Where the encoder's files are.
    pub(super) encoder: PathBuf,
    /// From token vectors to one; none if no file and no flag says it.
    pub(super) pooling: Option<Pooling>,
    pub(super) normalise: bool,
    /// modules.json says that this is an embedder: what else a checkpoint holds, as the head that it was trained with, is not used.
    pub(super) is_declared: bool,
    /// What no file says.
    pub(super) assumptions: Vec<String>,
}

/// A line of `modules.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Module {
    #[serde(default)]
    path: String,
    /// A class of the sentence-transformers library, or of a module of the checkpoint's own.
    r#type: String,
    #[serde(default, rename = "idx")]
    _index: Value,
    #[serde(default, rename = "name")]
    _name: Value,
    /// Arguments of a call that the module takes.
    #[serde(default)]
    kwargs: Vec<String>,
}

/// Modules that are computed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
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
    fn kind(&self) -> Option<Kind> {
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
    fn directory(&self, root: &Path) -> Result<PathBuf, ImportError> {
        let path = Path::new(&self.path);
        if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Ok(root.join(path));
        }
        let reason = format!("its path `{}` leads out of the checkpoint", self.path);
        Err(ImportError::malformed(&root.join("modules.json"), reason))
    }
}

impl Pipeline {
    /// Reads the pipeline of the checkpoint in `root`. `asked` goes before the pooling that it describes.
    ///
    /// # Errors
    /// By name, what follows the encoder and is not supported.
    pub(super) fn read(root: &Path, asked: Asked, facts: &mut Facts) -> Result<Self, ImportError> {
        let file = root.join("modules.json");
        if asked.pooling.is_some() {
            facts.took(format!("pooling {}", named(asked.pooling)), "--pooling", "");
        }
        let Some(modules) = json::<Vec<Module>>(root, &file)? else {
            return Ok(Self::undeclared(root, asked));
        };
        let mut kinds = Vec::new();
        for module in &modules {
            if !module.kwargs.is_empty() {
                let what = format!(
                    "the argument `{}` of the module `{}` in modules.json",
                    module.kwargs.join("`, `"),
                    module.r#type
                );
                return Err(ImportError::unsupported(what, "texts come here without arguments for a module"));
            }
            kinds.push(module.kind().ok_or_else(|| unknown(module))?);
        }
        if modules.is_empty() {
            let reason = "it lists no modules; it must list Transformer, Pooling and, optional, Normalize, or not be there";
            return Err(ImportError::malformed(&file, reason));
        }
        use Kind::{Normalize, Transformer};
        let (encoder, pooling, last) = match (kinds.as_slice(), modules.as_slice()) {
            ([Transformer], [encoder]) => (encoder, None, None),
            ([Transformer, Kind::Pooling], [encoder, pooling]) => (encoder, Some(pooling), None),
            ([Transformer, Kind::Pooling, Normalize], [encoder, pooling, last]) => {
                (encoder, Some(pooling), Some(last))
            }
            ([Transformer, Normalize], [encoder, last]) => (encoder, None, Some(last)),
            _ => {
                let order: Vec<String> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
                return Err(ImportError::unsupported(
                    format!("the order {} in modules.json", order.join(", ")),
                    "it must be Transformer, Pooling, Normalize, the last of them optional",
                ));
            }
        };
        let pooling = match (asked.pooling, pooling) {
            (Some(asked), _) => asked,
            (None, Some(module)) => {
                let path = module.directory(root)?.join("config.json");
                let pooling = read_pooling(root, &path)?;
                facts.took(
                    format!("pooling {}", named(Some(pooling))),
                    &format!("{}/config.json", module.path),
                    "",
                );
                pooling
            }
            (None, None) => {
                return Err(ImportError::Request(
                    "modules.json names no Pooling, so there is no vector for a text; pass --pooling"
                        .to_owned(),
                ));
            }
        };
        if let Some(module) = last {
            check_normalize(root, &module.directory(root)?.join("config.json"))?;
        }
        let normalise = asked.normalise.unwrap_or(last.is_some());
        let from = if asked.normalise.is_some() { "--normalise" } else { "modules.json" };
        facts.took(if normalise { "vectors of unit length" } else { "vectors are not normalised" }, from, "");
        let pooling = Some(pooling);
        Ok(Self {
            encoder: encoder.directory(root)?,
            pooling,
            normalise,
            is_declared: true,
            assumptions: Vec::new(),
        })
    }

    /// Of a checkpoint without modules.json. How token vectors become one is not guessed: a model that pools otherwise would serve, and be
    /// wrong.
    fn undeclared(root: &Path, asked: Asked) -> Self {
        let mut assumptions = Vec::new();
        let normalise = asked.normalise.unwrap_or_else(|| {
            assumptions.push(
                "The checkpoint has no modules.json; normalisation was assumed (--normalise false for none)."
                    .to_owned(),
            );
            true
        });
        if let Some(pooling) = asked.pooling {
            let pooling = named(Some(pooling));
            assumptions.push(format!(
                "The checkpoint has no modules.json; {pooling} pooling was asked for (--pooling)."
            ));
        }
        Self { encoder: root.to_owned(), pooling: asked.pooling, normalise, is_declared: false, assumptions }
    }
}

/// What goes before the files.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    pub(super) pooling: Option<Pooling>,
    pub(super) normalise: Option<bool>,
}

fn named(pooling: Option<Pooling>) -> String {
    pooling.map(|pooling| format!("{pooling:?}").to_lowercase()).unwrap_or_default()
}

/// Why a module is not computed, and what works.
fn unknown(module: &Module) -> ImportError {
    let class = module.r#type.rsplit('.').next().unwrap_or_default();
    let own = !module.r#type.starts_with("sentence_transformers.");
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
    ImportError::unsupported(format!("the module `{}` in modules.json, {what},", module.r#type), remedy)
}

/// Keys of a pooling's config.json that name its width, and none of its modes.
const POOLING_WIDTHS: [&str; 2] = ["word_embedding_dimension", "embedding_dimension"];

/// Its modes in the form of before version 5, in the order in which the library concatenates them.
const POOLING_MODES: [&str; 6] =
    ["cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"];

/// Reads `1_Pooling/config.json`: one truth value a mode, or from version 5 of the library one key that names the mode. The key goes before
/// the truth values, and where none of them is true the mean is meant.
fn read_pooling(root: &Path, path: &Path) -> Result<Pooling, ImportError> {
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
fn check_normalize(root: &Path, path: &Path) -> Result<(), ImportError> {
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

    fn pipeline(modules: &str, pooling: &str) -> Result<Pipeline, ImportError> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("modules.json"), modules).unwrap();
        fs::create_dir(directory.path().join("1_Pooling")).unwrap();
        fs::write(directory.path().join("1_Pooling/config.json"), pooling).unwrap();
        Pipeline::read(directory.path(), Asked::default(), &mut Facts::default())
    }

    /// `modules.json` of modules with these classes.
    fn modules(classes: &[&str]) -> String {
        let modules = classes.iter().enumerate().map(|(index, class)| {
            let path = if *class == "Transformer" { String::new() } else { format!("{index}_{class}") };
            serde_json::json!({"idx": index, "name": index.to_string(), "path": path, "type": format!("sentence_transformers.models.{class}")})
        });
        serde_json::to_string(&modules.collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_way_of_writing_the_supported_poolings_is_read() {
        for (config, expected) in [
            (r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}"#, Pooling::Mean),
            (r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#, Pooling::Cls),
            (r#"{"pooling_mode_lasttoken": true, "include_prompt": true}"#, Pooling::LastToken),
            (r#"{"pooling_mode": "mean", "embedding_dimension": 384}"#, Pooling::Mean),
            (r#"{"pooling_mode": "cls"}"#, Pooling::Cls),
            (r#"{"pooling_mode": ["lasttoken"]}"#, Pooling::LastToken),
            (r#"{"pooling_mode_mean_tokens": false, "pooling_mode_cls_token": false}"#, Pooling::Mean),
            (r#"{"pooling_mode": "cls", "pooling_mode_mean_tokens": true}"#, Pooling::Cls),
        ] {
            let pipeline = pipeline(&modules(&["Transformer", "Pooling", "Normalize"]), config).unwrap();
            assert_eq!((pipeline.pooling, pipeline.normalise), (Some(expected), true), "{config}");
            assert!(pipeline.assumptions.is_empty());
        }
        assert!(
            !pipeline(&modules(&["Transformer", "Pooling"]), r#"{"pooling_mode": "cls"}"#).unwrap().normalise
        );
    }

    #[test]
    fn other_poolings_are_refused_by_name() {
        for (config, named) in [
            (r#"{"pooling_mode_max_tokens": true}"#, "the pooling max_tokens of"),
            (r#"{"pooling_mode_weightedmean_tokens": true}"#, "the pooling weightedmean_tokens of"),
            (r#"{"pooling_mode_mean_sqrt_len_tokens": true}"#, "the pooling mean_sqrt_len_tokens of"),
            (
                r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}"#,
                "cls_token with mean_tokens",
            ),
            (r#"{"pooling_mode": "max"}"#, "the pooling max of"),
            (r#"{"pooling_mode": "mean", "include_prompt": false}"#, "`include_prompt` false"),
            (r#"{"pooling_mode": "mean", "pooling_scale": 2}"#, "`pooling_scale` 2 in"),
            (r#"{"pooling_mode": 3}"#, "its `pooling_mode` is 3"),
            (r#"{"pooling_mode_mean_tokens": "yes"}"#, "its `pooling_mode_mean_tokens` is \"yes\""),
        ] {
            let error = pipeline(&modules(&["Transformer", "Pooling"]), config).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn other_modules_are_refused_by_name() {
        let mean = r#"{"pooling_mode": "mean"}"#;
        for (classes, named) in [
            (&["Transformer", "Pooling", "Dense"][..], "the module `sentence_transformers.models.Dense`"),
            (&["StaticEmbedding"], "the module `sentence_transformers.models.StaticEmbedding`"),
            (&["Transformer", "Normalize", "Pooling"], "the order Transformer, Normalize, Pooling"),
            (&["Transformer"], "names no Pooling"),
            (&[], "modules.json` is not usable: it lists no modules"),
        ] {
            let error = pipeline(&modules(classes), mean).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        let escaping = r#"[{"path": "../x", "type": "sentence_transformers.models.Transformer"}, {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#;
        let error = pipeline(escaping, mean).unwrap_err().to_string();
        assert!(error.ends_with("its path `../x` leads out of the checkpoint"), "{error}");
    }

    #[test]
    fn a_module_of_the_repositorys_own_is_told_from_the_librarys() {
        let kind = |name: &str| {
            let module: Module = serde_json::from_value(serde_json::json!({"type": name})).unwrap();
            module.kind()
        };
        for name in [
            "sentence_transformers.models.Transformer",
            "sentence_transformers.models.Transformer.Transformer",
            "sentence_transformers.base.modules.transformer.Transformer",
            "sentence_transformers.sentence_transformer.modules.Transformer",
        ] {
            assert_eq!(kind(name), Some(Kind::Transformer), "{name}");
        }
        for name in [
            "Transformer",
            "custom_st.Transformer",
            "models.Transformer",
            "sentence_transformers.own.Transformer",
            "sentence_transformers.models.pooling.Transformer",
            "sentence_transformers.modelsx.Transformer",
            "sentence_transformers.models.MLMTransformer",
        ] {
            assert_eq!(kind(name), None, "{name}");
        }
        let mean = r#"{"pooling_mode": "mean"}"#;
        let own = r#"[{"path": "", "type": "custom_st.Transformer"}, {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#;
        let error = pipeline(own, mean).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "the module `custom_st.Transformer` in modules.json, a module of the repository's own"
            ),
            "{error}"
        );
        let called =
            r#"[{"path": "", "type": "sentence_transformers.models.Transformer", "kwargs": ["task"]}]"#;
        assert!(
            pipeline(called, mean).unwrap_err().to_string().starts_with("the argument `task` of the module")
        );
        let more = r#"[{"path": "", "type": "sentence_transformers.models.Transformer", "device": "cpu"}]"#;
        assert!(pipeline(more, mean).unwrap_err().to_string().contains("unknown field `device`"));
    }

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

    #[test]
    fn without_modules_nothing_is_pooled_unasked() {
        let directory = tempfile::tempdir().unwrap();
        let read = |asked| Pipeline::read(directory.path(), asked, &mut Facts::default()).unwrap();
        let silent = read(Asked::default());
        assert_eq!((silent.pooling, silent.normalise, silent.is_declared), (None, true, false));
        assert_eq!(
            silent.assumptions,
            ["The checkpoint has no modules.json; normalisation was assumed (--normalise false for none)."]
        );
        let asked = read(Asked { pooling: Some(Pooling::Cls), normalise: Some(false) });
        assert_eq!((asked.pooling, asked.normalise), (Some(Pooling::Cls), false));
        assert_eq!(
            asked.assumptions,
            ["The checkpoint has no modules.json; cls pooling was asked for (--pooling)."]
        );
    }
}
