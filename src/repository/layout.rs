//! How a repository is laid out, and what the names in it mean.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, Instant};

use object_store::path::Path as Key;
use sha2::{Digest, Sha256};

use super::manifest::{self, Manifest};
use super::{RepositoryError, Result};
use crate::files::open_regular;

/// Makes a number a version: written last.
pub(super) const MANIFEST: &str = "manifest.toml";
/// Marks a number as taken while its files are written.
pub(super) const CLAIM: &str = "claim.json";
/// Read and hashed, or sent, at a time: large enough that the system's calls do not count.
pub(super) const PIECE: usize = 1 << 20;

/// Whether `name` can be a model's.
///
/// # Errors
/// [`RepositoryError::BadName`] if not.
pub fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let good =
        name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fits);
    if good { Ok(()) } else { Err(RepositoryError::BadName(name.to_owned())) }
}

/// Where a file of a version lies, relative to the repository; the version's directory if `file` is empty.
pub(super) fn key(model: &str, version: u32, file: &str) -> Key {
    Key::from(format!("{model}/versions/{version}/{file}"))
}

/// The version whose directory `name` is. Only what [`key`] writes is one: `+1`, `01` and `1` would be the same version.
pub(super) fn version_number(name: &str) -> Option<u32> {
    name.parse().ok().filter(|number: &u32| *number > 0 && number.to_string() == name)
}

/// Names of the files in a directory and those below it, relative to it and sorted.
pub(super) fn file_names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(current) = directories.pop() {
        let failed = |source| RepositoryError::Read { path: current.clone(), source };
        for entry in std::fs::read_dir(&current).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            match path.strip_prefix(directory) {
                Ok(name) if path.is_file() => names.push(name.to_string_lossy().into_owned()),
                _ => directories.push(path),
            }
        }
    }
    names.sort();
    Ok(names)
}

pub(super) async fn open(path: &Path) -> Result<tokio::fs::File> {
    let file = blocking(path, open_regular).await?;
    Ok(tokio::fs::File::from_std(file))
}

/// How much of a core's time a digest may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// All of it: something waits for the result.
    Full,
    /// A tenth: nothing waits, and the sessions need the cores.
    Slow,
}

impl Pace {
    /// How long to rest after a piece that took `busy`.
    fn rest(self, busy: Duration) -> Duration {
        match self {
            Self::Full => Duration::ZERO,
            Self::Slow => busy * 9,
        }
    }
}

/// A file's size and its SHA-256, hexadecimal. Read and hashed on threads that may block, piece by piece, so that it ends soon after its
/// caller has left.
pub(super) async fn digest(path: &Path, pace: Pace) -> Result<(u64, String)> {
    let mut reading = Reading {
        file: blocking(path, open_regular).await?,
        buffer: vec![0; PIECE],
        hasher: Sha256::new(),
        bytes: 0,
    };
    loop {
        let begun = Instant::now();
        let is_end;
        (reading, is_end) = blocking(path, move |_| reading.piece()).await?;
        if is_end {
            return Ok((reading.bytes, hex::encode(reading.hasher.finalize())));
        }
        let rest = pace.rest(begun.elapsed());
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }
}

/// A file whose digest is being made.
struct Reading {
    file: File,
    buffer: Vec<u8>,
    hasher: Sha256,
    /// Read so far.
    bytes: u64,
}

impl Reading {
    /// Takes the next piece in. Whether there was none.
    fn piece(mut self) -> io::Result<(Self, bool)> {
        let read = self.file.read(&mut self.buffer)?;
        self.hasher.update(&self.buffer[..read]);
        self.bytes += read as u64;
        Ok((self, read == 0))
    }
}

/// Reads on a thread that may block.
async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let owned = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&owned)).await;
    let failed = |source| RepositoryError::Read { path: path.to_owned(), source };
    done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed)
}

/// Whether the file of that size and digest is the one that was published.
///
/// # Errors
/// [`RepositoryError::BadFile`] if not.
pub(super) fn check_digest(
    manifest: &Manifest,
    file: &manifest::File,
    bytes: u64,
    sha256: &str,
) -> Result<()> {
    if (bytes, sha256) == (file.bytes, &file.sha256) {
        return Ok(());
    }
    let reason =
        format!("expected {} bytes with SHA-256 {}, found {bytes} with {sha256}", file.bytes, file.sha256);
    Err(RepositoryError::BadFile { file: file.name.clone(), version: manifest.id(), reason })
}
