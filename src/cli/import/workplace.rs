//! Where an import writes its files before they are published: a directory that goes with its process, however that ends.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::process::geteuid;
use tempfile::TempDir;

const PREFIX: &str = "sextant-import-";

/// A directory of one import in the temporary directory. It is removed when this is dropped, and by the next import if the process was
/// killed before.
pub(super) struct Workplace {
    directory: TempDir,
    /// Of the directory itself. The system drops it with the process, which tells the dead from the living. None on a file system that
    /// cannot lock directories: there a later import cannot take the lock of a dead process either, and its directory stays.
    _lock: Option<File>,
}

impl Workplace {
    /// Makes one, and removes those of processes that were killed.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn new() -> io::Result<Self> {
        let temporary = std::env::temp_dir();
        remove_abandoned(&temporary);
        loop {
            let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&temporary)?;
            // Another import may take it for abandoned before it is locked, and remove it; then this needs another one.
            let Ok(lock) = File::open(directory.path()) else { continue };
            let is_locked = lock.lock().is_ok();
            if is_in_place(&lock, directory.path()) {
                return Ok(Self { directory, _lock: is_locked.then_some(lock) });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes the directories of imports whose processes are gone: this user's, on which no process holds the lock.
fn remove_abandoned(temporary: &Path) {
    let entries = fs::read_dir(temporary).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path()).filter(|path| path.file_name().is_some_and(is_ours));
    for path in paths {
        // What cannot be removed stays. It does not hinder the import.
        let _stays = remove_if_abandoned(&path);
    }
}

fn is_ours(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

fn remove_if_abandoned(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() {
        return Ok(());
    }
    let lock = File::open(path)?;
    if lock.try_lock().is_err() || !is_in_place(&lock, path) {
        return Ok(());
    }
    // Under the lock: an import that has just made this directory waits for it, and then finds that it is gone.
    fs::remove_dir_all(path)
}

/// Whether `path` is still the directory that was opened.
fn is_in_place(opened: &File, path: &Path) -> bool {
    let (Ok(opened), Ok(there)) = (opened.metadata(), fs::symlink_metadata(path)) else { return false };
    (opened.dev(), opened.ino()) == (there.dev(), there.ino())
}
