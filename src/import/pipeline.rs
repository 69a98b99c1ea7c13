//! What sentence-transformers runs after the encoder: `modules.json` and the pooling's own `config.json`.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::ImportError;
use super::checkpoint::{json, missing};
use crate::engine::Pooling;

/// The encoder and what follows it.
#[derive(Debug)]
pub(super) struct Pipeline {
    /// Where the encoder's files are.
    pub(super) encoder: PathBuf,
    pub(super) pooling: Pooling,
    pub(super) normalise: bool,
    /// What no file says.
    pub(super) assumptions: Vec<String>,
}

/// A line of `modules.json`.
#[derive(Debug, Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    /// A class of the sentence-transformers library, or of a module of the checkpoint's own.
    r#type: String,
}

impl Module {
    /// The class without the packages it lies in, which have changed between releases.
    fn class(&self) -> &str {
        self.r#type.rsplit('.').next().unwrap_or_default()
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
    pub(super) fn read(root: &Path, asked: Option<Pooling>) -> Result<Self, ImportError> {
        let file = root.join("modules.json");
        let Some(modules) = json::<Vec<Module>>(root, &file)? else {
            let (pooling, name) = match asked {
                Some(pooling) => (pooling, "normalisation was"),
                None => (Pooling::Mean, "mean pooling and normalisation were"),
            };
            let assumptions = vec![format!("The checkpoint has no modules.json; {name} assumed.")];
            return Ok(Self { encoder: root.to_owned(), pooling, normalise: true, assumptions });
        };
        if let Some(other) =
            modules.iter().find(|module| !["Transformer", "Pooling", "Normalize"].contains(&module.class()))
        {
            return Err(ImportError::unsupported(
                format!("the module `{}` in modules.json", other.r#type),
                "a model must be made of Transformer, Pooling and Normalize; \
                 export the whole pipeline to ONNX with an output `sentence_embedding`, and import that without modules.json",
            ));
        }
        if modules.is_empty() {
            let reason = "it lists no modules; it must list Transformer, Pooling and, optional, Normalize, or not be there";
            return Err(ImportError::malformed(&file, reason));
        }
        let classes: Vec<&str> = modules.iter().map(Module::class).collect();
        let (encoder, pooling, normalise) = match (classes.as_slice(), modules.as_slice()) {
            (["Transformer"], [encoder]) => (encoder, None, false),
            (["Transformer", "Pooling"], [encoder, pooling]) => (encoder, Some(pooling), false),
            (["Transformer", "Pooling", "Normalize"], [encoder, pooling, _]) => {
                (encoder, Some(pooling), true)
            }
            (["Transformer", "Normalize"], [encoder, _]) => (encoder, None, true),
            _ => {
                return Err(ImportError::unsupported(
                    format!("the order {} in modules.json", classes.join(", ")),
                    "it must be Transformer, Pooling, Normalize, the last of them optional",
                ));
            }
        };
        let pooling = match (asked, pooling) {
            (Some(asked), _) => asked,
            (None, Some(module)) => read_pooling(root, &module.directory(root)?.join("config.json"))?,
            (None, None) => {
                return Err(ImportError::Request(
                    "modules.json names no Pooling, so there is no vector for a text; pass --pooling"
                        .to_owned(),
                ));
            }
        };
        Ok(Self { encoder: encoder.directory(root)?, pooling, normalise, assumptions: Vec::new() })
    }
}

/// Reads `1_Pooling/config.json`: one truth value a mode, or from version 5 of the library one key that names the mode.
fn read_pooling(root: &Path, path: &Path) -> Result<Pooling, ImportError> {
    let config: Map<String, Value> = json(root, path)?
        .ok_or_else(|| missing(path, "modules.json names it; fetch the checkpoint again"))?;
    if config.get("include_prompt") == Some(&Value::Bool(false)) {
        return Err(ImportError::unsupported(
            format!("`include_prompt` false in `{}`", path.display()),
            "prompts take part in the pooling here; use a model whose prompts do",
        ));
    }
    let modes: Vec<&str> = match config.get("pooling_mode") {
        Some(Value::String(mode)) => vec![mode],
        Some(Value::Array(modes)) => modes.iter().filter_map(Value::as_str).collect(),
        _ => config
            .iter()
            .filter(|(_, value)| **value == Value::Bool(true))
            .filter_map(|(key, _)| key.strip_prefix("pooling_mode_"))
            .collect(),
    };
    match modes.as_slice() {
        ["mean" | "mean_tokens"] => Ok(Pooling::Mean),
        ["cls" | "cls_token"] => Ok(Pooling::Cls),
        ["lasttoken"] => Ok(Pooling::LastToken),
        [] => Err(ImportError::malformed(path, "it names no pooling mode; pass --pooling")),
        modes => Err(ImportError::unsupported(
            format!("the pooling {} of `{}`", modes.join(" with "), path.display()),
            "one of mean, cls and lasttoken is; another model must be chosen, since another pooling gives other vectors",
        )),
    }
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
        Pipeline::read(directory.path(), None)
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
        ] {
            let pipeline = pipeline(&modules(&["Transformer", "Pooling", "Normalize"]), config).unwrap();
            assert_eq!((pipeline.pooling, pipeline.normalise), (expected, true), "{config}");
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
            (r#"{"pooling_mode_mean_tokens": false}"#, "it names no pooling mode; pass --pooling"),
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
        let escaping =
            r#"[{"path": "../x", "type": "Transformer"}, {"path": "1_Pooling", "type": "Pooling"}]"#;
        let error = pipeline(escaping, mean).unwrap_err().to_string();
        assert!(error.ends_with("its path `../x` leads out of the checkpoint"), "{error}");
    }

    #[test]
    fn without_modules_the_assumption_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let assumed = Pipeline::read(directory.path(), None).unwrap();
        assert_eq!((assumed.pooling, assumed.normalise), (Pooling::Mean, true));
        assert_eq!(
            assumed.assumptions,
            ["The checkpoint has no modules.json; mean pooling and normalisation were assumed."]
        );
        let asked = Pipeline::read(directory.path(), Some(Pooling::Cls)).unwrap();
        assert_eq!(asked.pooling, Pooling::Cls);
        assert_eq!(asked.assumptions, ["The checkpoint has no modules.json; normalisation was assumed."]);
    }
}
