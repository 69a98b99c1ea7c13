//! Why a repository cannot do what was asked.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the repository cannot do what was asked.
#[derive(Debug, Error)]
pub enum RepositoryError {
    /// The URL is of a kind that is not supported.
    #[error("models cannot be kept at `{0}`: give a directory, or a file:// URL")]
    UnsupportedUrl(String),
    /// The directory cannot be opened.
    #[error("the model directory `{}` cannot be opened: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A name that cannot be a model's.
    #[error(
        "`{0}` cannot be a model's name: use 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit"
    )]
    BadName(String),
    /// Every number up to the last one is taken.
    #[error(
        "`{0}` has no version number left: a directory below its `versions` is named {last}, which no import made",
        last = u32::MAX
    )]
    NoNumberLeft(String),
    /// No such version.
    #[error("the repository has no version {model}@{version}")]
    NoSuchVersion {
        /// The model.
        model: String,
        /// The version.
        version: u32,
    },
    /// The manifest cannot be read.
    #[error("the manifest of {model}@{version} is damaged: {reason}")]
    BadManifest {
        /// The model.
        model: String,
        /// The version.
        version: u32,
        /// What is wrong.
        reason: String,
    },
    /// What was to be published cannot be served.
    #[error("this is no version of `{model}` to publish: {reason}")]
    NoVersion {
        /// The model.
        model: String,
        /// What is wrong.
        reason: String,
    },
    /// A file is not the one that was published.
    #[error("the file `{file}` of {version} is not the one that was published: {reason}")]
    BadFile {
        /// The file.
        file: String,
        /// The version.
        version: String,
        /// Size or digest, expected and found.
        reason: String,
    },
    /// A local file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The store failed.
    #[error("the repository failed: {0}")]
    Store(#[from] object_store::Error),
    /// A file could not be written to the store.
    #[error("cannot write `{key}` to the repository: {source}")]
    Write {
        /// The object.
        key: String,
        /// The reason.
        source: io::Error,
    },
}
