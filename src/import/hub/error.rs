//! Why a checkpoint could not be fetched, and what would help.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::super::ImportError;

/// Why a checkpoint could not be fetched. No message holds the token, nor a signed address that the hub redirected to.
#[derive(Debug, Error)]
pub enum HubError {
    /// Not an address, or one with a password in it, which would end up in logs.
    #[error(
        "the hub's address is not usable: write `https://host`, without a user name, password or query (a token goes into \
         HF_TOKEN)"
    )]
    Endpoint,
    /// The token has characters that no HTTP header can carry.
    #[error("HF_TOKEN is not a token: it has line breaks or other characters that no token has")]
    Token,
    /// The TLS set-up failed, most often because the machine has no CA certificates.
    #[error("cannot set up TLS: {} (are the system's CA certificates installed?)", root_cause(.0))]
    Client(#[source] reqwest::Error),
    /// Not `org/name`.
    #[error("not a hub model id: {0:?}; write `org/name`, as in `sentence-transformers/all-MiniLM-L6-v2`")]
    Id(String),
    /// Not the name of a branch, tag or commit.
    #[error("not a hub revision: {0:?}; write a branch, a tag or a commit, as in `main` or `refs/pr/1`")]
    Revision(String),
    /// 401: no token or one that the hub does not know; hubs also answer so for a model that does not exist.
    #[error(
        "the hub does not show {what} to {} (401): {}",
        if *with_token { "the owner of HF_TOKEN" } else { "anonymous callers" },
        if *with_token { "check the name, and that the token is valid and may read the model" }
        else { "check the name; if the model is private or gated, set HF_TOKEN to a token that may read it" }
    )]
    Unauthorized {
        /// What was asked for.
        what: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// 403, or 401 of a gated model: known, and not allowed.
    #[error(
        "the hub refuses {what} ({status}): {}accept the model's licence at {page}, and give the token read access to gated models",
        if *with_token { "" } else { "set HF_TOKEN, " }
    )]
    Forbidden {
        /// What was asked for.
        what: String,
        /// Where the licence is accepted.
        page: String,
        /// Whether a token was sent.
        with_token: bool,
        /// The HTTP status.
        status: u16,
    },
    /// 404, or 410.
    #[error("the hub has no {what} (404); check the name and `--revision`{}",
        if *with_token { "" } else { ", and set HF_TOKEN if the model is private" })]
    NotFound {
        /// What was asked for.
        what: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// Another status than 200, after as many attempts as make sense for it.
    #[error("the hub answered {status} for {what}{}", if *status >= 500 || *status == 429 { "; try again later" } else { "" })]
    Status {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
    },
    /// The hub asks to wait longer than this command will.
    #[error("the hub is limiting requests and asks to wait {} s before the next; try again then, or set HF_TOKEN", .0.as_secs())]
    Wait(Duration),
    /// Connection, TLS or reading failed as often as was tried.
    #[error(
        "cannot fetch {what} through {host}: {} (attempt {attempts}); what has arrived is kept, run again to go on",
        root_cause(source)
    )]
    Transfer {
        /// What was asked for.
        what: String,
        /// The hub's host; it may have redirected to another.
        host: String,
        /// Attempts made in a row without progress.
        attempts: u32,
        /// The last failure.
        source: reqwest::Error,
    },
    /// Answers ended cleanly and too early as often as was tried.
    #[error(
        "cannot fetch {what}: {attempts} answers in a row ended early; what has arrived is kept, run again to go on"
    )]
    EndedEarly {
        /// What was asked for.
        what: String,
        /// Attempts made in a row without progress.
        attempts: u32,
    },
    /// The file list is not what hubs answer.
    #[error("the file list of `{id}` is not one that a hub gives: {reason}; check HF_ENDPOINT")]
    Listing {
        /// The model.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file name that could be written outside of the cache.
    #[error("`{id}` lists a file named {name:?}, which is no safe file name; nothing was fetched")]
    FileName {
        /// The model.
        id: String,
        /// The name.
        name: String,
    },
    /// An ONNX file of another name than those that are looked for, or than the one asked for.
    #[error("model `{id}` has no `{file}`; its ONNX files are: {others}. Name one of them with --onnx-file")]
    NoSuchExport {
        /// The model.
        id: String,
        /// The file.
        file: String,
        /// Those that it has.
        others: String,
    },
    /// A file without which nothing can be imported.
    #[error("`{id}` has no `{file}`, which an import needs; {help}")]
    Missing {
        /// The model.
        id: String,
        /// The file.
        file: String,
        /// What would work.
        help: &'static str,
    },
    /// Weights in a form that is not read.
    #[error(
        "`{id}` has its weights only as {found}, which cannot be imported; a revision with `model.safetensors` or \
         `onnx/model.onnx` works (some models have one at `--revision refs/pr/1`), or an export to ONNX in a directory"
    )]
    Weights {
        /// The model.
        id: String,
        /// The form there is.
        found: &'static str,
    },
    /// Size or digest differ from the list's; the file was deleted.
    #[error(
        "`{file}` is not the file that the hub lists: expected {expected}, found {found}; it was deleted, run again to fetch it anew"
    )]
    Mismatch {
        /// The file.
        file: String,
        /// Size or digest in the list.
        expected: String,
        /// Size or digest of what came.
        found: String,
    },
    /// What was fetched so far says that the rest cannot be imported.
    #[error(transparent)]
    Checkpoint(#[from] Box<ImportError>),
    /// The cache directory cannot be used.
    #[error("cannot write the download cache at `{}`: {source}", path.display())]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The innermost reason, for a message: reqwest's own ("error sending request") says nothing.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn StdError = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
