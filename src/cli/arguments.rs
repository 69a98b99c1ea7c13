//! Arguments that several commands take.

use std::env;
use std::fmt;
use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::Failure;
use crate::config::{self, Count};
use crate::engine::{Asked, Backend};
use crate::repository::Repository;

/// Where the models are.
#[derive(Debug, Args)]
pub(super) struct Models {
    /// Directory of the models, or a bucket: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix
    #[arg(long, value_name = "URL", env = "SEXTANT_MODELS")]
    models: String,
}

impl Models {
    /// Opens the repository, which must be there.
    pub(super) fn open(&self) -> Result<Repository, Failure> {
        Ok(Repository::open(&self.models, false)?)
    }
}

/// What runs a version that a command loads itself.
#[derive(Debug, Args)]
pub(super) struct Execution {
    /// The ONNX Runtime library [default: looked for]
    #[arg(long, value_name = "FILE", env = "SEXTANT_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,
    /// What runs the model: auto (the first GPU by CUDA if it works, the CPU elsewhere), cpu, cuda or cuda:N, tensorrt or tensorrt:N
    #[arg(long, value_name = "DEVICE", env = "SEXTANT_DEVICE", default_value = "auto")]
    device: Asked,
    /// Most memory of a GPU that a session takes beside CUDA's own, in bytes [default: as much as there is]
    #[arg(long, value_name = "BYTES", env = "SEXTANT_DEVICE_MEMORY", value_parser = parse_memory)]
    device_memory: Option<Count>,
    /// Directory for what TensorRT compiles, which is code that is run: nobody else may write there [default: none]
    #[arg(long, value_name = "DIR", env = "SEXTANT_TENSORRT_CACHE")]
    tensorrt_cache: Option<PathBuf>,
}

impl Execution {
    /// Loads the library and tries the devices.
    pub(super) fn start(&self) -> Result<Backend, Failure> {
        let device_memory = match self.device_memory {
            Some(Count::Of(bytes)) => NonZeroUsize::new(bytes),
            Some(Count::Auto(_)) | None => None,
        };
        let execution = config::Execution {
            onnxruntime: self.onnxruntime.clone(),
            device: self.device.clone(),
            device_memory,
            tensorrt_cache: self.tensorrt_cache.clone(),
        };
        Ok(execution.start()?)
    }
}

fn parse_memory(text: &str) -> Result<Count, String> {
    match text.parse()? {
        Count::Of(0) => Err("expected at least 1".to_owned()),
        count => Ok(count),
    }
}

/// The key that a server asks for. Not a flag of its own: other users of the machine can read the arguments of a process.
#[derive(Debug, Args)]
pub(super) struct ApiKey {
    /// The key of the server, alone in a file [default: the variable SEXTANT_API_KEY, if the server needs one]
    #[arg(long, value_name = "FILE", env = "SEXTANT_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
}

impl ApiKey {
    /// The key, if there is one.
    pub(super) fn read(&self) -> Result<Option<String>, Failure> {
        let Some(path) = &self.api_key_file else {
            return Ok(env::var("SEXTANT_API_KEY").ok().filter(|key| !key.is_empty()));
        };
        let text = fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("cannot read the key in `{}`: {error}", path.display()))
        })?;
        Ok(Some(text.trim().to_owned()))
    }
}

/// A version by its full name, `minilm@2`.
#[derive(Debug, Clone)]
pub(super) struct VersionName {
    pub(super) model: String,
    pub(super) version: u32,
}

impl fmt::Display for VersionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.model, self.version)
    }
}

impl FromStr for VersionName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = text.split_once('@').and_then(|(model, version)| {
            let version = version.parse().ok().filter(|number: &u32| number.to_string() == version)?;
            (!model.is_empty()).then(|| Self { model: model.to_owned(), version })
        });
        named.ok_or_else(|| "expected a version, as minilm@2".to_owned())
    }
}

/// A reason for the rollout log: whoever reads the log is served by none that is empty.
pub(super) fn parse_reason(text: &str) -> Result<String, String> {
    let reason = text.trim();
    if reason.is_empty() { Err("expected a reason, in words".to_owned()) } else { Ok(reason.to_owned()) }
}

/// Who runs the command, by the environment.
pub(super) fn user() -> String {
    let mut names = ["USER", "LOGNAME", "USERNAME"].iter().filter_map(|variable| env::var(variable).ok());
    names.find(|name| !name.trim().is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_one_name() {
        let VersionName { model, version } = "minilm@2".parse().unwrap();
        assert_eq!((model.as_str(), version), ("minilm", 2));
        for wrong in ["minilm", "@2", "minilm@", "minilm@02", "minilm@+2", "minilm@stable", "a@b@1"] {
            assert!(wrong.parse::<VersionName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_reason_says_something() {
        assert_eq!(parse_reason(" a test "), Ok("a test".to_owned()));
        assert!(parse_reason(" \n").is_err());
    }
}
