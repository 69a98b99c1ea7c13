//! Arguments that several commands take.

use std::env;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::Failure;
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
