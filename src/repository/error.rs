//! Why a repository cannot do what was asked.

use std::error::Error as _;
use std::path::PathBuf;
use std::{io, iter};

use thiserror::Error;

use super::signed::Distrust;

/// Why the repository cannot do what was asked.
#[derive(Debug, Error)]
pub enum RepositoryError {
    /// The URL is of a kind that is not supported.
    #[error(
        "models cannot be kept at `{0}`: give a directory, a file:// URL, or a bucket as s3://bucket/prefix, \
         gs://bucket/prefix or az://container/prefix"
    )]
    UnsupportedUrl(String),
    /// The URL of a bucket that has more in it than the bucket and a prefix, or less. It may hold a secret: only its
    /// kind is told.
    #[error(
        "the address of the models is no bucket's: expected {scheme}://bucket/prefix and no more; credentials and \
         endpoint are taken from the environment"
    )]
    BadBucketUrl {
        /// Before `://`.
        scheme: String,
    },
    /// The endpoint is one that everybody on the way can read and write.
    #[error(
        "the endpoint of `{url}` is no https address: AWS_ALLOW_HTTP=true allows it, for a network that you trust"
    )]
    PlainHttp {
        /// The repository.
        url: String,
    },
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
    /// No key signed the version of those of which one must have.
    #[error(
        "{model}@{version} is not signed as this place requires: {reason}; `sextant sign` signs a version"
    )]
    NotTrusted {
        /// The model.
        model: String,
        /// The version.
        version: u32,
        /// None, unknown, or not over this manifest.
        reason: Distrust,
    },
    /// It is not the manifest that somebody has looked at.
    #[error(
        "the manifest of {model}@{version} has the SHA-256 {found}, and not {expected}: it is not signed; look at what it is \
         (`sextant verify`) before you sign it"
    )]
    OtherManifest {
        /// The model.
        model: String,
        /// The version.
        version: u32,
        /// Of what lies there.
        found: String,
        /// Of what was to be signed.
        expected: String,
    },
    /// Another object has the name of a signature.
    #[error("the signature `{key}` cannot be written: something that is none has its name; remove it")]
    SignatureBlocked {
        /// The object.
        key: String,
    },
    /// An object that is larger than any of its kind.
    #[error("`{key}` has {bytes} bytes and is not read: there is none of more than {most}")]
    TooLarge {
        /// The object.
        key: String,
        /// Its size.
        bytes: u64,
        /// What is read of its kind.
        most: u64,
    },
    /// Something else than a file is in the place of one.
    #[error("`{key}` is no regular file")]
    NotAFile {
        /// The object.
        key: String,
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
    /// A file could not be written to the store.
    #[error("cannot write `{key}` to the repository: {source}")]
    Write {
        /// The object.
        key: String,
        /// The reason.
        source: io::Error,
    },
    /// Versions cannot be kept on this machine.
    #[error("cannot keep a version in the cache at `{}`: {source}; `--cache-dir` names another place", path.display())]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Others than this user could change a version in the cache after it was checked.
    #[error(
        "versions are loaded from the cache at `{}`, and others than this user can change it: empty it and make it this user's own \
         (chmod 700; where signatures are required, below directories of root or this user), or name another place with `--cache-dir`",
        path.display()
    )]
    SharedCache {
        /// The directory.
        path: PathBuf,
    },
    /// There is no such bucket.
    #[error("there is no bucket at `{url}`: {}", reason(source))]
    NoBucket {
        /// The repository.
        url: String,
        /// What the store said.
        source: object_store::Error,
    },
    /// Nobody on this machine may say who asks.
    #[error(
        "there are no credentials for `{url}`: the environment names none ({variables}), and the machine's own cannot \
         be had: {}",
        reason(source)
    )]
    NoCredentials {
        /// The repository.
        url: String,
        /// Where they are looked for first.
        variables: &'static str,
        /// What the machine's metadata service said, or that there is none.
        source: object_store::Error,
    },
    /// The credentials are not enough.
    #[error("`{url}` refuses the credentials of the environment: {}", reason(source))]
    Refused {
        /// The repository.
        url: String,
        /// What the store said.
        source: object_store::Error,
    },
    /// Two could create the same object, so that two imports could write one version.
    #[error(
        "the store at `{url}` cannot keep a repository: it does not create an object only if it is absent (S3: \
         `If-None-Match` on PUT)"
    )]
    NoCreate {
        /// The repository.
        url: String,
    },
    /// The store failed.
    #[error("the repository at `{url}` failed: {}", reason(source))]
    Store {
        /// The repository.
        url: String,
        /// What it said.
        source: object_store::Error,
    },
}

impl RepositoryError {
    /// What a failure of the store at `url` means. Listings and tokens come back as failures without a kind, so their
    /// text has to tell.
    pub(super) fn of_store(url: &str, source: object_store::Error) -> Self {
        let is_bucket = url.split_once("://").is_some_and(|(scheme, _)| scheme != "file");
        let (url, text) = (url.to_owned(), source.to_string());
        let says = |signs: &[&str]| is_bucket && signs.iter().any(|sign| text.contains(sign));
        if says(&["NoSuchBucket", "ContainerNotFound"]) {
            return Self::NoBucket { url, source };
        }
        // Paths of the metadata services of AWS, Azure and Google.
        if says(&["/latest/api/token", "/latest/meta-data", "/metadata/identity", "/computeMetadata/"]) {
            let variables = match url.split(':').next() {
                Some("s3") => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                Some("gs") => "GOOGLE_APPLICATION_CREDENTIALS",
                _ => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
            };
            return Self::NoCredentials { url, variables, source };
        }
        if says(&["403 Forbidden", "401 Unauthorized", "AccessDenied"]) {
            return Self::Refused { url, source };
        }
        Self::Store { url, source }
    }
}

/// What the store said, on one line. Buckets answer with a document whose code and message are all that people want; of
/// a connection that cannot be made only the last cause says why.
fn reason(error: &object_store::Error) -> String {
    let text = error.to_string();
    let last = iter::successors(error.source(), |&error| error.source()).last().map(ToString::to_string);
    let between = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        Some(rest.split_once(&format!("</{tag}>"))?.0)
    };
    let short = match (between("Code"), between("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => match last.filter(|last| !text.contains(last)) {
            Some(last) => format!("{text}: {last}"),
            None => text,
        },
    };
    short.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn what_a_bucket_says_is_one_sentence_with_its_url() {
        let cases = [
            (
                "404 Not Found: <?xml version=\"1.0\"?>\n<Error>\n <Code>NoSuchBucket</Code>\n <Message>The specified bucket \
                 does not exist</Message></Error>",
                "there is no bucket at `s3://b/p`: NoSuchBucket: The specified bucket does not exist",
            ),
            (
                "403 Forbidden: <Error><Code>InvalidAccessKeyId</Code><Message>Unknown\nkey</Message></Error>",
                "`s3://b/p` refuses the credentials of the environment: InvalidAccessKeyId: Unknown key",
            ),
            (
                "Error performing PUT http://169.254.169.254/latest/api/token",
                "there are no credentials for `s3://b/p`: the environment names none (AWS_ACCESS_KEY_ID and",
            ),
            (
                "connection\n refused",
                "the repository at `s3://b/p` failed: Generic S3 error: connection refused",
            ),
        ];
        for (said, expected) in cases {
            let error = RepositoryError::of_store("s3://b/p", generic(said)).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
