//! What importers that were killed left in a directory: files of numbers that never became versions.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Repository;
use super::layout::{CLAIM, MANIFEST, version_number};
use super::publish::PROBE;

/// An importer that lives writes all the time. One that wrote nothing for so long is gone, whichever machine it ran on. Refused: locks,
/// which some network file systems keep on each machine by itself.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

impl Repository {
    /// Removes files of `model` that no importer writes any more and no version has. Their claims stay, so that no number is given twice. Does
    /// nothing in a bucket, whose own rules remove what is old.
    pub(super) async fn remove_abandoned(&self, model: &str) {
        let Some(root) = &self.root else { return };
        let versions = root.join(model).join("versions");
        // What cannot be removed stays, and keeps nothing from being published.
        let _is_left = tokio::task::spawn_blocking(move || remove(&versions, SystemTime::now())).await;
    }
}

fn remove(versions: &Path, now: SystemTime) {
    for (path, metadata) in entries(versions) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if metadata.is_file() && name.starts_with(PROBE) && is_old(&metadata, now) {
            let _is_left = fs::remove_file(&path);
        }
        if metadata.is_dir() && version_number(name).is_some() && is_abandoned(&path, now).unwrap_or(false) {
            remove_all_but_the_claim(&path);
        }
    }
}

/// Entries of a directory, links not followed; none if it cannot be read.
fn entries(directory: &Path) -> impl Iterator<Item = (PathBuf, Metadata)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let path = entry.path();
        let metadata = fs::symlink_metadata(&path).ok()?;
        Some((path, metadata))
    })
}

fn is_old(metadata: &Metadata, now: SystemTime) -> bool {
    let age = metadata.modified().ok().and_then(|written| now.duration_since(written).ok());
    age.is_some_and(|age| age > LONG)
}

/// Whether the number has no manifest, and nothing of it was written for long.
fn is_abandoned(number: &Path, now: SystemTime) -> io::Result<bool> {
    let mut directories = vec![number.to_owned()];
    while let Some(directory) = directories.pop() {
        if !is_old(&fs::symlink_metadata(&directory)?, now) {
            return Ok(false);
        }
        for (path, metadata) in entries(&directory) {
            match metadata.is_dir() {
                true => directories.push(path),
                false if !is_old(&metadata, now) => return Ok(false),
                false => {}
            }
        }
    }
    Ok(!number.join(MANIFEST).try_exists()?)
}

fn remove_all_but_the_claim(number: &Path) {
    for (path, metadata) in entries(number).filter(|(path, _)| !path.ends_with(CLAIM)) {
        let _is_left = if metadata.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_without_a_manifest_to_which_nothing_is_written_are_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let versions = directory.path();
        for file in [
            "1/claim.json",
            "1/manifest.toml",
            "1/model.onnx",
            "2/claim.json",
            "2/model.onnx.data#1",
            "2/onnx/weights.bin",
            "notes/model.onnx",
            ".sextant-probe-1-0",
            "other",
        ] {
            let path = versions.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "four").unwrap();
        }
        let left = |now| {
            remove(versions, now);
            let names = |path: &Path| {
                let mut names: Vec<_> = entries(path)
                    .map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned())
                    .collect();
                names.sort();
                names
            };
            [names(versions), names(&versions.join("1")), names(&versions.join("2"))]
        };
        let all = [
            vec![".sextant-probe-1-0", "1", "2", "notes", "other"],
            vec!["claim.json", "manifest.toml", "model.onnx"],
            vec!["claim.json", "model.onnx.data#1", "onnx"],
        ];
        assert_eq!(left(SystemTime::now()), all, "an importer may be at work");
        let later = SystemTime::now() + 2 * LONG;
        let young = fs::File::options().write(true).open(versions.join("2/onnx/weights.bin")).unwrap();
        young.set_modified(later).unwrap();
        assert_eq!(left(later)[2], all[2], "one of its files is being written");
        young.set_modified(SystemTime::now()).unwrap();
        assert_eq!(left(later), [vec!["1", "2", "notes", "other"], all[1].clone(), vec!["claim.json"]]);
        assert!(versions.join("notes/model.onnx").exists());
    }
}
