//! Objects of a repository that is a directory: read past the store, which would wait for ever at a FIFO put in the place of a file.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use object_store::path::Path as Key;

use super::{RepositoryError, Result};
use crate::files::open_regular;

/// The file of an object.
pub(super) fn file(root: &Path, key: &Key) -> PathBuf {
    root.join(key.as_ref())
}

/// Whether there is something with the object's name that is no directory.
pub(super) async fn is_there(root: &Path, key: &Key) -> Result<bool> {
    let path = file(root, key);
    match tokio::fs::metadata(&path).await {
        Ok(metadata) => Ok(!metadata.is_dir()),
        Err(error) if is_missing(&error) => Ok(false),
        Err(source) => Err(RepositoryError::Read { path, source }),
    }
}

/// The object's bytes, as [`Repository::read`](super::Repository::read) gives them.
pub(super) async fn read(root: &Path, key: &Key, most: u64) -> Result<Option<Bytes>> {
    let path = file(root, key);
    let owned = path.clone();
    let read = tokio::task::spawn_blocking(move || read_at_most(&owned, most)).await;
    match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(Read::Whole(bytes)) => Ok(Some(bytes.into())),
        Ok(Read::Missing) => Ok(None),
        Ok(Read::TooLarge(bytes)) => Err(RepositoryError::TooLarge { key: key.to_string(), bytes, most }),
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            Err(RepositoryError::NotAFile { key: key.to_string() })
        }
        Err(source) => Err(RepositoryError::Read { path, source }),
    }
}

/// What is at the place of a small file.
enum Read {
    Whole(Vec<u8>),
    /// Nothing, or a directory: a store has no object of that name then.
    Missing,
    /// A file of so many bytes.
    TooLarge(u64),
}

fn read_at_most(path: &Path, most: u64) -> io::Result<Read> {
    let file = match open_regular(path) {
        Ok(file) => file,
        Err(error) if is_missing(&error) || path.is_dir() => return Ok(Read::Missing),
        Err(error) => return Err(error),
    };
    let size = file.metadata()?.len();
    if size > most {
        return Ok(Read::TooLarge(size));
    }
    let mut bytes = Vec::new();
    // A file may grow while it is read.
    let read = file.take(most + 1).read_to_end(&mut bytes)? as u64;
    Ok(if read > most { Read::TooLarge(read) } else { Read::Whole(bytes) })
}

/// Copies a file to `target`, a new file of its own, `most` bytes at most. Returns how many there were.
///
/// The system copies from file to file where it can, and then shares the blocks on file systems that have such copies (btrfs, XFS).
/// A hard link would cost nothing on any of them, but it is the same file: what is written to one is read by the other.
pub(super) fn copy(from: &Path, target: &File, most: u64) -> io::Result<u64> {
    io::copy(&mut open_regular(from)?.take(most), &mut &*target)
}

/// The system's reason that there is no such file.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
