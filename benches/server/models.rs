//! The models to measure, each in a repository of its own: a server loads all it finds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sextant::repository::manifest::Manifest;
use sextant::tokenize::Tokenizer;

use crate::Result;

const WEIGHTS: &str = ".sextant/weights";

/// An imported model, named as its precision.
pub(crate) struct Model {
    pub(crate) precision: String,
    /// The repository's directory.
    pub(crate) repository: PathBuf,
    /// The directory of its version.
    pub(crate) version: PathBuf,
    pub(crate) manifest: Manifest,
}

/// The command, without the settings of whoever runs the benchmark.
pub(crate) fn sextant() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sextant"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SEXTANT_")) {
        command.env_remove(name);
    }
    command
}

impl Model {
    /// Copies the model `precision` from `models`, or imports it, into a repository below `directory`.
    pub(crate) fn prepare(precision: &str, models: Option<&Path>, directory: &Path) -> Result<Self> {
        let repository = directory.join(precision);
        match models {
            Some(models) => copy(&models.join(precision), &repository.join(precision))?,
            None => import(precision, &["--precision", precision], &repository)?,
        }
        Self::read(precision, repository)
    }

    fn read(name: &str, repository: PathBuf) -> Result<Self> {
        let version = repository.join(name).join("versions/1");
        let manifest = Manifest::from_toml(&fs::read_to_string(version.join("manifest.toml"))?)?;
        Ok(Self { precision: name.to_owned(), repository, version, manifest })
    }

    /// Imports a model with two versions of one space below `directory`: fp32, which serves, and int8.
    pub(crate) fn two_versions(directory: &Path) -> Result<Self> {
        let (name, repository) = ("minilm", directory.join("minilm"));
        import(name, &["--precision", "fp32"], &repository)?;
        import(name, &["--precision", "int8", "--claim-space-of", "1"], &repository)?;
        Self::read(name, repository)
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        Ok(Tokenizer::load(&self.version.join("tokenizer.json"), self.manifest.max_tokens)?)
    }
}

fn import(name: &str, how: &[&str], repository: &Path) -> Result<()> {
    if !Path::new(WEIGHTS).is_dir() {
        return Err(format!("there are no weights in {WEIGHTS}: run `make fetch` first").into());
    }
    eprintln!("importing {WEIGHTS}: {}", how.join(" "));
    let status = sextant()
        .args(["import", WEIGHTS, "--name", name])
        .args(how)
        .arg("--models")
        .arg(repository)
        .stdout(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err("the import failed".into()) }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let entries = fs::read_dir(from).map_err(|error| format!("{}: {error}", from.display()))?;
    for entry in entries {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if entry.is_dir() {
            copy(&entry, &to.join(name))?;
        } else {
            fs::copy(&entry, to.join(name))?;
        }
    }
    Ok(())
}
