//! A cache is this user's alone: between the check of a file and its use nobody else may change it.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::iter;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{CacheSettings, blocking, make_directory};
use crate::repository::manifest::{File, Manifest};
use crate::repository::{RepositoryError, Result};

/// The system's administrator, who can do anything anyway.
const ROOT: u32 = 0;

impl CacheSettings {
    /// The same with the directory made and its links resolved, once: a link that changes must not change what was checked. Refuses a
    /// directory that another user can write or owns; where `signed`, also one that another user could put another directory in the
    /// place of. That one would belong to this user as well, since its files are looked at, but with signatures no doubt is left.
    pub(in super::super) async fn private(&self, signed: bool) -> Result<Self> {
        let resolved = blocking(&self.directory, move |path| {
            make_directory(path)?;
            let path = path.canonicalize()?;
            let is_private = is_own(&fs::symlink_metadata(&path)?) && (!signed || is_below_own(&path)?);
            Ok(is_private.then_some(path))
        });
        let directory = resolved.await?.ok_or_else(|| self.shared())?;
        Ok(Self { directory, ..self.clone() })
    }

    /// The files of a version in `place` that another made or can change. Refuses a directory of another's: what is put into one can
    /// be replaced.
    pub(in super::super) async fn foreign<'a>(
        &self,
        place: &Path,
        manifest: &'a Manifest,
    ) -> Result<Vec<&'a File>> {
        let names: Vec<PathBuf> = manifest.files.iter().map(|file| file.name.as_str().into()).collect();
        let found = blocking(place, move |place| {
            if !own_directories(place, &names)? {
                return Ok(None);
            }
            let own = names.iter().map(|name| is_own_file(&place.join(name)));
            own.collect::<io::Result<Vec<bool>>>().map(Some)
        });
        let own = found.await?.ok_or_else(|| self.shared())?;
        Ok(manifest.files.iter().zip(own).filter(|(_, own)| !own).map(|(file, _)| file).collect())
    }

    fn shared(&self) -> RepositoryError {
        RepositoryError::SharedCache { path: self.directory.clone() }
    }
}

/// Whether all directories above `path` are root's or this user's. That others can write one of them is let pass: the volume of a pod is
/// such a directory, and every process of that pod runs as this user.
fn is_below_own(path: &Path) -> io::Result<bool> {
    for above in path.ancestors().skip(1) {
        let owner = fs::symlink_metadata(above)?.uid();
        if owner != ROOT && owner != this_user() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn own_directories(place: &Path, names: &[PathBuf]) -> io::Result<bool> {
    let below = names.iter().flat_map(|name| name.ancestors().skip(1));
    // A path that ends in a slash would follow a link.
    let below = below.filter(|below| !below.as_os_str().is_empty()).map(|below| place.join(below));
    for directory in iter::once(place.to_owned()).chain(below) {
        match fs::symlink_metadata(&directory) {
            Ok(metadata) if metadata.is_dir() && is_own(&metadata) => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Whether the file is nobody else's, by no other name either. One that is missing is nobody's.
fn is_own_file(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_file() && metadata.nlink() == 1 && is_own(&metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn is_own(metadata: &Metadata) -> bool {
    metadata.uid() == this_user() && metadata.mode() & 0o022 == 0
}

pub(super) fn this_user() -> u32 {
    rustix::process::geteuid().as_raw()
}
