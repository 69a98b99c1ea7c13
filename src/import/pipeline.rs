//! What sentence-transformers runs after the encoder: `modules.json` and the pooling's own `config.json`.

use std::path::{Path, PathBuf};

use super::ImportError;
use super::checkpoint::json;
use super::facts::Facts;
use super::modules::{Kind, Module};
use super::pooling::{check_normalize, read_pooling};
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
            kinds.push(module.kind().ok_or_else(|| module.unsupported())?);
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
