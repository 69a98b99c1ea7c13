//! Makes room in the cache: what dead processes left goes, then the versions that were not used for longest.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::{CacheSettings, FETCH_LOCK, INCOMING, LOCK, REMOVED, ROOM_LOCK, open_lock};

/// A version in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    /// Of its directory.
    name: String,
    bytes: u64,
    used: SystemTime,
}

/// Removes what nobody uses until `coming` more bytes fit. Waits for no user of a version, only for others who make room,
/// who wait for nobody.
pub(super) fn make(settings: &CacheSettings, coming: u64) -> io::Result<()> {
    let CacheSettings { directory, bytes: bound } = settings;
    // One at a time: two would count the same excess, and each remove that much.
    let lock = open_lock(&directory.join(ROOM_LOCK))?;
    lock.lock()?;
    let (mut versions, mut taken) = (Vec::new(), coming);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with(REMOVED) {
            remove(&entry.path())?;
        } else if let Some(version) = name.strip_prefix(INCOMING) {
            match unused(directory, version, FETCH_LOCK)? {
                Some(_lock) => remove(&entry.path())?,
                None => taken += size(&entry.path()),
            }
        } else if entry.file_type()?.is_dir() && name.contains('@') {
            let used = fs::metadata(directory.join(format!("{name}{LOCK}"))).and_then(|lock| lock.modified());
            let version =
                Kept { bytes: size(&entry.path()), used: used.unwrap_or(SystemTime::UNIX_EPOCH), name };
            taken += version.bytes;
            versions.push(version);
        }
    }
    let left = shed(versions, taken.saturating_sub(*bound), |version| evict(directory, version));
    if left > 0 {
        tracing::warn!(
            directory = %directory.display(), bound, over = left,
            "the versions in use take more than the cache may hold"
        );
    }
    Ok(())
}

/// Offers versions to `remove`, those that were not used for longest first, until `excess` bytes are gone. Returns what is
/// left of them.
fn shed(mut versions: Vec<Kept>, mut excess: u64, mut remove: impl FnMut(&Kept) -> bool) -> u64 {
    versions.sort_by(|left, right| left.used.cmp(&right.used).then_with(|| left.name.cmp(&right.name)));
    for version in versions {
        if excess == 0 {
            break;
        }
        if remove(&version) {
            excess = excess.saturating_sub(version.bytes);
        }
    }
    excess
}

/// Removes a version if nobody uses it. Whether it is gone; one that cannot be removed must keep nobody from serving.
fn evict(directory: &Path, version: &Kept) -> bool {
    let evicted = || {
        let Some(_lock) = unused(directory, &version.name, LOCK)? else { return Ok(false) };
        let removed = directory.join(format!("{REMOVED}{}", version.name));
        // First out of sight at once: half a version must never have its name.
        fs::rename(directory.join(&version.name), &removed)?;
        remove(&removed)?;
        Ok(true)
    };
    match evicted() {
        Ok(true) => {
            tracing::info!(version = version.name, bytes = version.bytes, "removed from the cache");
            true
        }
        Ok(false) => false,
        Err(error) => {
            let error: io::Error = error;
            tracing::warn!(version = version.name, %error, "cannot be removed from the cache");
            false
        }
    }
}

/// The lock of that kind, if nobody else has it.
fn unused(directory: &Path, version: &str, kind: &str) -> io::Result<Option<File>> {
    let lock = open_lock(&directory.join(format!("{version}{kind}")))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Removes a directory and all below it, if it is there.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Bytes of all files below `directory`. What another process removes meanwhile counts for nothing.
fn size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => size(&entry.path()),
        _ => entry.metadata().map_or(0, |metadata| metadata.len()),
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn kept(name: &str, bytes: u64, used: u64) -> Kept {
        Kept { name: name.to_owned(), bytes, used: SystemTime::UNIX_EPOCH + Duration::from_secs(used) }
    }

    #[test]
    fn the_least_recently_used_go_and_those_in_use_are_passed_over() {
        let versions =
            vec![kept("new", 10, 3), kept("in use", 10, 0), kept("old", 10, 1), kept("older", 10, 0)];
        let mut gone = Vec::new();
        let left = shed(versions, 15, |version| {
            let free = version.name != "in use";
            free.then(|| gone.push(version.name.clone()));
            free
        });
        assert_eq!((left, gone), (0, vec!["older".to_owned(), "old".to_owned()]));
        assert_eq!(shed(vec![kept("a", 10, 0)], 15, |_| true), 5);
        assert_eq!(shed(vec![kept("a", 10, 0)], 0, |_| panic!("nothing has to go")), 0);
    }

    proptest! {
        #[test]
        fn no_more_goes_than_must_and_enough_if_it_can(
            versions in prop::collection::vec((0u64..100, 0u64..10, any::<bool>()), 0..12),
            excess in 0u64..500,
        ) {
            let all: Vec<Kept> =
                versions.iter().enumerate().map(|(n, (bytes, used, _))| kept(&n.to_string(), *bytes, *used)).collect();
            let free = |version: &Kept| versions[version.name.parse::<usize>().unwrap()].2;
            let mut gone: Vec<Kept> = Vec::new();
            let left = shed(all.clone(), excess, |version| {
                free(version).then(|| gone.push(version.clone()));
                free(version)
            });
            let removed: u64 = gone.iter().map(|version| version.bytes).sum();
            prop_assert_eq!(left, excess.saturating_sub(removed));
            if let Some(last) = gone.last() {
                prop_assert!(removed - last.bytes < excess, "the last one need not have gone");
                let stayed = all.iter().filter(|version| free(version) && !gone.contains(version));
                prop_assert!(stayed.clone().all(|version| version.used >= last.used));
            }
            if left > 0 {
                prop_assert!(all.iter().all(|version| !free(version) || gone.contains(version)));
            }
        }
    }
}
