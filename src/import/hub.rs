//! Fetches a checkpoint from a hub that speaks Hugging Face's routes: the files an import needs, checked, resumed.

mod checkpoint;
mod checksum;
mod download;
mod error;
mod listing;
mod request;

use std::fs::{self, File, TryLockError};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Client, Url};

use self::checkpoint::Checkpoint;
use self::download::{blocking, cache_error};
pub use self::error::HubError;
use self::listing::Listing;
use self::request::{Attempts, Failure, Subject};
use crate::repository::manifest::Graph;
use crate::tls;

/// Where the models of the world are.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Bytes of a file list. The longest real ones have some thousand files of 300 bytes.
const MAX_LISTING: usize = 16 << 20;

/// How long another process's lock is left alone before it is tried again.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// How long a fetch bears with a hub. Settable for tests.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection to be made, TLS included.
    pub connect: Duration,
    /// Without a byte, whether of the answer's head or of its body.
    pub stall: Duration,
    /// Failures in a row before giving up; one that brought a megabyte is not counted.
    pub attempts: u32,
    /// Before the second attempt; doubled for each after it.
    pub backoff: Duration,
    /// The longest `Retry-After` that is waited for.
    pub retry_after: Duration,
}

/// Which of a model's graphs and weights are fetched.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Compile or take over; if not said, compiled where that is possible.
    pub graph: Option<Graph>,
    /// The ONNX file to take over, by its path within the model.
    pub onnx_file: Option<&'a str>,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            attempts: 5,
            backoff: Duration::from_millis(500),
            retry_after: Duration::from_secs(60),
        }
    }
}

/// A hub and who asks it.
#[derive(Debug)]
pub struct Hub {
    endpoint: Url,
    /// `Bearer` and the token, marked as sensitive: its `Debug` does not show it.
    authorization: Option<HeaderValue>,
    client: Client,
    patience: Patience,
}

/// A checkpoint on disk, all of it checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Where its files are, under the names they have on the hub.
    pub directory: PathBuf,
    /// `org/name`.
    pub id: String,
    /// The commit that the asked revision was at.
    pub revision: String,
}

impl Hub {
    /// A hub at `endpoint`, usually [`DEFAULT_ENDPOINT`] or HF_ENDPOINT; `token` is HF_TOKEN. An empty token is none.
    ///
    /// # Errors
    /// If the endpoint is not an http or https address, the token is none, or TLS cannot be set up.
    pub fn new(endpoint: &str, token: Option<&str>, patience: Patience) -> Result<Self, HubError> {
        let endpoint = Url::parse(endpoint.trim()).map_err(|_| HubError::Endpoint)?;
        let plain = endpoint.username().is_empty()
            && endpoint.password().is_none()
            && endpoint.query().is_none()
            && endpoint.fragment().is_none();
        if !matches!(endpoint.scheme(), "http" | "https") || !plain {
            return Err(HubError::Endpoint);
        }
        let authorization = match token.map(str::trim).filter(|token| !token.is_empty()) {
            Some(token) => Some(bearer(token).ok_or(HubError::Token)?),
            None => None,
        };
        tls::install_provider();
        let mut client = Client::builder()
            .user_agent(concat!("sextant/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(patience.connect)
            .read_timeout(patience.stall)
            .referer(false)
            // Sizes and digests are only as good as the connection that the list came over.
            .https_only(endpoint.scheme() == "https");
        if is_loopback(&endpoint) {
            // A proxy has another loopback than this machine.
            client = client.no_proxy();
        }
        let client = client.build().map_err(HubError::Client)?;
        Ok(Self { endpoint, authorization, client, patience })
    }

    /// Downloads what an import needs of `id` (`org/name`) at `revision` (a branch, tag or commit) into
    /// `cache/<org>--<name>/<commit>`, resuming what an earlier run left. Which weights that are depends on config.json
    /// and on the `graph` asked for, by the rule that decides what the import makes of them.
    ///
    /// `progress` hears of a file's name, its bytes so far and its size: at its start, after each piece, and once if
    /// it was there already. Two fetches at once, also of two processes, take turns.
    ///
    /// # Errors
    /// If the hub does not have the model or does not show it, has it in no form that can be imported, breaks off too
    /// often, or sends something else than it listed; if the cache cannot be written.
    pub async fn fetch(
        &self,
        id: &str,
        revision: &str,
        cache: &Path,
        wanted: Wanted<'_>,
        progress: impl Fn(&str, u64, u64),
    ) -> Result<Snapshot, HubError> {
        let (organisation, name) = split_id(id).ok_or_else(|| HubError::Id(id.to_owned()))?;
        if !is_revision(revision) {
            return Err(HubError::Revision(revision.to_owned()));
        }
        let listing = self.list(id, revision).await?;
        let descriptions = listing.descriptions(id, wanted.onnx_file)?;
        let commit = listing.commit();
        let model = cache.join(format!("{organisation}--{name}"));
        let directory = model.join(&commit);
        // Beside the directory, not in it: whoever reads the checkpoint sees its files only.
        let _lock = lock(&model.join(format!("{commit}.lock"))).await?;
        let checkpoint =
            Checkpoint { hub: self, id, listing: &listing, commit: &commit, directory: &directory };
        checkpoint.fetch(descriptions, wanted, &progress).await?;
        Ok(Snapshot { directory, id: id.to_owned(), revision: commit })
    }

    async fn list(&self, id: &str, revision: &str) -> Result<Listing, HubError> {
        let path = ["api", "models"].into_iter().chain(id.split('/')).chain(["revision", revision]);
        let mut url = self.url(path);
        // Without it the list has neither sizes nor digests.
        url.set_query(Some("blobs=true"));
        let what = format!("model `{id}` at revision `{revision}`");
        let mut attempts = Attempts::new(&self.patience);
        loop {
            match self.read_list(&url, Subject { id, what: &what }).await {
                Ok(body) => return Listing::parse(id, &body),
                Err(failure) => attempts.next(failure).await?,
            }
        }
    }

    async fn read_list(&self, url: &Url, subject: Subject<'_>) -> Result<Vec<u8>, Failure> {
        let mut response = self.get(url, 0, subject).await?;
        let mut body = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(|error| self.interrupted(error, subject))? {
            if body.len() + bytes.len() > MAX_LISTING {
                let reason = format!("it is longer than {MAX_LISTING} bytes");
                return Err(HubError::Listing { id: subject.id.to_owned(), reason }.into());
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    }

    /// The address of a path below the endpoint; a `/` within a segment (`refs/pr/1`) is percent-encoded.
    fn url<'a>(&self, segments: impl Iterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        // Only addresses like `mailto:` have no path, and `new` takes none of those.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    // Spaces and control characters show that something else than a token was pasted; the header would carry some.
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// `org/name`, each of letters, digits, `.`, `_` and `-`, with none of the marks at either end.
fn split_id(id: &str) -> Option<(&str, &str)> {
    let part = |part: &str| {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        part.len() <= 96
            && part.bytes().all(|byte| is_word(&byte) || matches!(byte, b'.' | b'-'))
            && part.as_bytes().first().is_some_and(is_word)
            && part.as_bytes().last().is_some_and(is_word)
            && !part.contains("..")
    };
    id.split_once('/').filter(|(organisation, name)| part(organisation) && part(name))
}

/// The name of a branch, tag or commit, of those characters and `/`.
fn is_revision(revision: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
    revision.len() <= 255
        && revision.bytes().all(allowed)
        && revision.split('/').all(|part| !part.is_empty() && !part.starts_with(['.', '-']))
        && !revision.contains("..")
}

/// Waits until this process alone may write what `path` stands for, and makes the directory it is in.
///
/// The system drops the lock when its holder ends, however it ends. Tried at intervals: a thread that waits inside of
/// the system could not be cancelled.
async fn lock(path: &Path) -> Result<File, HubError> {
    let file = blocking(path, |path| {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        File::options().write(true).create(true).truncate(false).open(path)
    })
    .await?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(cache_error(path, source)),
            Err(TryLockError::WouldBlock) if told => {}
            Err(TryLockError::WouldBlock) => {
                tracing::info!(lock = %path.display(), "another import is fetching this model, waiting for it");
                told = true;
            }
        }
        tokio::time::sleep(LOCK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_revisions_are_checked() {
        for id in ["sentence-transformers/all-MiniLM-L6-v2", "a/b", "BAAI/bge-m3", "o_/_n.v1"] {
            assert!(split_id(id).is_some(), "{id}");
        }
        for id in [
            "", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a/b..c", "a b/c", "a/b?x", "a/.b", "a\\b/c",
            "a/b-",
        ] {
            assert!(split_id(id).is_none(), "{id}");
        }
        for revision in ["main", "refs/pr/1", "v1.0-rc_2", "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"] {
            assert!(is_revision(revision), "{revision}");
        }
        for revision in ["", "/", "a/", "..", ".", "a/../b", "a b", "a?b", "a%2e", "refs//1", "-x", "a/./b"] {
            assert!(!is_revision(revision), "{revision}");
        }
    }

    #[test]
    fn addresses_keep_the_endpoints_path_and_encode_slashes() {
        let hub = Hub::new("https://mirror.example/hf/", None, Patience::default()).unwrap();
        let url = hub.url(["api", "models", "o", "n", "revision", "refs/pr/1"].into_iter());
        assert_eq!(url.as_str(), "https://mirror.example/hf/api/models/o/n/revision/refs%2Fpr%2F1");
    }

    #[test]
    fn endpoints_and_tokens_are_checked_and_never_shown() {
        for endpoint in
            ["", "huggingface.co", "ftp://x", "file:///etc", "https://me:secret@x", "https://x?t=secret"]
        {
            let error = Hub::new(endpoint, None, Patience::default()).unwrap_err();
            assert!(matches!(error, HubError::Endpoint) && !format!("{error:?} {error}").contains("secret"));
        }
        let error = Hub::new(DEFAULT_ENDPOINT, Some("hf_secret\nx"), Patience::default()).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("secret"));
        let hub = Hub::new(DEFAULT_ENDPOINT, Some(" hf_secret\n"), Patience::default()).unwrap();
        assert!(hub.authorization.is_some() && !format!("{hub:?}").contains("secret"));
        assert!(Hub::new(DEFAULT_ENDPOINT, Some(""), Patience::default()).unwrap().authorization.is_none());
    }
}
