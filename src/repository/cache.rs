//! Private copies of versions on this machine: each whole or not there, bounded together, never removed while a process uses them.
//!
//! Any number of processes share one directory. The system drops a lock when its holder ends, however it ends, so what a
//! dead process left is told from what a living one works on.
//!
//! ```text
//! <directory>/minilm@2-<digest>/             a whole version
//!             minilm@2-<digest>.lock         shared by who uses it; its time is that of the last use
//!             minilm@2-<digest>.fetch.lock   held by who fetches or mends it
//!             .incoming-minilm@2-<digest>/   on its way in
//!             .removed-minilm@2-<digest>/    on its way out
//!             .room.lock                     held by who makes room
//! ```
//!
//! Lock files are empty and stay: whoever waits for one has opened it already.

mod private;
mod room;

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::manifest::Manifest;
use super::{RepositoryError, Result};

/// What all versions of a cache may take together, if nothing else is said: 20 GiB.
const DEFAULT_BYTES: u64 = 20 << 30;

/// How long another's lock is left alone before it is tried again.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

const INCOMING: &str = ".incoming-";
const REMOVED: &str = ".removed-";
const LOCK: &str = ".lock";
const FETCH_LOCK: &str = ".fetch.lock";
const ROOM_LOCK: &str = ".room.lock";

/// Where versions are kept on this machine while they are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// The cache's own directory, made when something is put there.
    pub directory: PathBuf,
    /// What all versions may take together. Those in use may take more: serving goes first.
    pub bytes: u64,
}

impl CacheSettings {
    /// What was given, and the defaults of this machine and user for the rest.
    pub fn new(directory: Option<PathBuf>, bytes: Option<u64>) -> Self {
        let directory = directory.unwrap_or_else(|| default_directory(|name| env::var_os(name)));
        Self { directory, bytes: bytes.unwrap_or(DEFAULT_BYTES) }
    }

    /// The place of a version. Its digest is in the name: another bucket may have another `minilm@2`.
    pub(super) fn slot(&self, manifest: &Manifest) -> Slot<'_> {
        let mut digest = Sha256::new();
        for file in &manifest.files {
            digest.update(format!("{}\0{}\0{}\n", file.name, file.bytes, file.sha256));
        }
        let digest = hex::encode(digest.finalize());
        Slot { cache: self, name: format!("{}-{}", manifest.id(), &digest[..32]) }
    }

    /// Removes what dead processes left, and versions that nobody uses until `coming` more bytes fit: those that were not
    /// used for longest first.
    pub(super) async fn make_room(&self, coming: u64) -> Result<()> {
        let settings = self.clone();
        blocking(&self.directory, move |_| room::make(&settings, coming)).await
    }
}

/// A folder `sextant` in the user's cache. Where there is none, one in the system's temporary directory with the user's number in its
/// name: that directory is shared, and a folder there that another user made is refused when it is used.
fn default_directory(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // Containers often have the home `/`, or one that is not there.
    let home = || absolute("HOME").filter(|home| home.parent().is_some() && home.is_dir());
    let user = absolute("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache")));
    match user {
        Some(user) => user.join("sextant"),
        None => env::temp_dir().join(format!("sextant-{}", private::this_user())),
    }
}

/// The place of one version in the cache.
pub(super) struct Slot<'a> {
    cache: &'a CacheSettings,
    name: String,
}

/// The right to fetch or mend a version, which one at a time has.
pub(super) struct FetchLock {
    _file: File,
}

impl Slot<'_> {
    /// Where the version is once it is there.
    pub(super) fn directory(&self) -> PathBuf {
        self.cache.directory.join(&self.name)
    }

    /// Where its files are until then.
    pub(super) fn incoming(&self) -> PathBuf {
        self.cache.directory.join(format!("{INCOMING}{}", self.name))
    }

    /// A lock that keeps the version where it is, or will be, while it lives.
    pub(super) async fn hold(&self) -> Result<File> {
        self.lock(LOCK, File::try_lock_shared).await
    }

    /// Waits until nobody else fetches or mends this version.
    pub(super) async fn fetch_alone(&self) -> Result<FetchLock> {
        Ok(FetchLock { _file: self.lock(FETCH_LOCK, File::try_lock).await? })
    }

    /// An empty directory for the files on their way: what is there, a dead process left.
    pub(super) async fn clear_incoming(&self, lock: FetchLock) -> Result<FetchLock> {
        let incoming = self.incoming();
        blocking(&incoming, move |incoming| {
            room::remove(incoming)?;
            make_directory(incoming)?;
            Ok(lock)
        })
        .await
    }

    /// Gives `from`, a file or directory, the name `to`. The lock goes with the work, which goes on if the caller leaves:
    /// nobody else may write to `from` before.
    pub(super) async fn rename(&self, from: PathBuf, to: &Path, lock: FetchLock) -> Result<FetchLock> {
        blocking(to, move |to| {
            to.parent().map_or(Ok(()), make_directory)?;
            fs::rename(from, to).map(|()| lock)
        })
        .await
    }

    /// Tried at intervals: a thread that waits inside of the system could not be cancelled.
    async fn lock(
        &self,
        kind: &str,
        try_lock: fn(&File) -> std::result::Result<(), TryLockError>,
    ) -> Result<File> {
        let path = self.cache.directory.join(format!("{}{kind}", self.name));
        let file = blocking(&path, |path| {
            if let Some(directory) = path.parent() {
                make_directory(directory)?;
            }
            open_lock(path)
        })
        .await?;
        let mut told = false;
        loop {
            match try_lock(&file) {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(source)) => return Err(RepositoryError::Cache { path, source }),
                Err(TryLockError::WouldBlock) if told => {}
                Err(TryLockError::WouldBlock) => {
                    tracing::info!(lock = %path.display(), "another process has this version in hand, waiting for it");
                    told = true;
                }
            }
            tokio::time::sleep(LOCK_INTERVAL).await;
        }
    }
}

/// For this user only: who can write here decides what is loaded.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// For this user only, as the directories.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn open_lock(path: &Path) -> io::Result<File> {
    // Some network filesystems lock only what is opened for writing.
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

/// Runs file work on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let owned = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&owned)).await;
    let failed = |source| RepositoryError::Cache { path: path.to_owned(), source };
    done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_users_cache_or_a_folder_of_the_user_in_the_temporary_directory() {
        let home = tempfile::tempdir().unwrap();
        let directory = |xdg: Option<&str>, home: Option<&Path>| {
            default_directory(|name| match name {
                "XDG_CACHE_HOME" => xdg.map(OsString::from),
                _ => home.map(|home| home.as_os_str().to_owned()),
            })
        };
        assert_eq!(directory(Some("/x"), Some(home.path())), Path::new("/x/sextant"));
        assert_eq!(directory(Some("relative"), Some(home.path())), home.path().join(".cache/sextant"));
        let temporary = env::temp_dir().join(format!("sextant-{}", private::this_user()));
        for nowhere in [None, Some(Path::new("/")), Some(Path::new("/no/such/home")), Some(Path::new("home"))]
        {
            assert_eq!(directory(None, nowhere), temporary);
        }
    }
}
