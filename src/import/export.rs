//! Takes over a graph that somebody else exported: copies it as it is, after a look at what it is made of.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{ImportError, Phase, Precision, Progress, parts};
use crate::engine::graph_path;
use crate::files::read_whole;

/// Where an export lies in a checkpoint, the first that is there.
pub(super) const PLACES: [&str; 2] = ["model.onnx", "onnx/model.onnx"];

/// Whether a name of `--onnx-file` stays in the checkpoint.
pub(super) fn is_inside(name: &str) -> bool {
    let parts = || Path::new(name).components();
    parts().next().is_some() && parts().all(|part| matches!(part, Component::Normal(_)))
}

/// No protobuf message has more bytes, so no reader takes a larger graph.
const MOST_BYTES: u64 = i32::MAX as u64;

/// An exported graph and the files that belong to it.
#[derive(Debug)]
pub(crate) struct Export {
    /// The graph.
    pub(super) path: PathBuf,
    /// Files with weights, relative to the graph's directory, and the bytes that each has at least.
    weights: BTreeMap<PathBuf, u64>,
    /// The number format of the weights.
    pub(super) precision: Precision,
}

impl Export {
    /// The export in `checkpoint`, if it has one: the one that is `named`, or else one in the usual places.
    ///
    /// # Errors
    /// If the one that is named is not there, or not inside of the checkpoint.
    pub(super) fn find(checkpoint: &Path, named: Option<&str>) -> Result<Option<PathBuf>, ImportError> {
        let Some(named) = named else {
            return Ok(PLACES.iter().map(|place| checkpoint.join(place)).find(|path| path.is_file()));
        };
        let path = checkpoint.join(named);
        if !is_inside(named) {
            return Err(ImportError::Request(format!("--onnx-file `{named}` leads out of the checkpoint")));
        }
        if !path.is_file() {
            let others = Self::listed(checkpoint);
            let others = if others.is_empty() { "no ONNX file at all".to_owned() } else { others.join(", ") };
            return Err(ImportError::Request(format!(
                "--onnx-file `{named}` is not in the checkpoint; it has {others}"
            )));
        }
        Ok(Some(path))
    }

    /// The ONNX files of the checkpoint, in it and in its folder `onnx`, as `--onnx-file` takes them.
    pub(super) fn listed(checkpoint: &Path) -> Vec<String> {
        let in_folder = |folder: &str| {
            let entries = fs::read_dir(checkpoint.join(folder)).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            let folder = folder.to_owned();
            names.filter(|name| name.ends_with(".onnx")).map(move |name| format!("{folder}{name}"))
        };
        let mut names: Vec<String> = ["", "onnx/"].into_iter().flat_map(in_folder).collect();
        names.sort();
        names
    }

    /// Reads the graph in `path`.
    ///
    /// # Errors
    /// If it is no ONNX graph, or its weights lie outside its directory.
    pub(crate) fn read(path: &Path) -> Result<Self, ImportError> {
        let bytes = Bytes::from(read_whole(path, MOST_BYTES).map_err(ImportError::io("read", path))?);
        let (weights, precision) =
            parts::parse(bytes).map_err(|reason| ImportError::malformed(path, reason))?;
        Ok(Self { path: path.to_owned(), weights, precision })
    }

    /// The files with weights, relative to the graph's directory and below it.
    pub(crate) fn weights(&self) -> impl Iterator<Item = &Path> {
        self.weights.keys().map(PathBuf::as_path)
    }

    /// The graph, and the files with weights.
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        std::iter::once(self.path.clone()).chain(self.weights().map(|file| self.beside(file)))
    }

    /// Finds that each file with weights is there and as long as the graph says.
    ///
    /// # Errors
    /// If one is not.
    pub(crate) fn check_weights(&self) -> Result<(), ImportError> {
        for (file, end) in &self.weights {
            let at = self.beside(file);
            let there = fs::metadata(&at).map_err(ImportError::io("read", &at))?.len();
            if *end > there {
                let reason =
                    format!("its weights end at byte {end} of `{}`, which has {there}", file.display());
                return Err(ImportError::malformed(&self.path, reason));
            }
        }
        Ok(())
    }

    fn beside(&self, file: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }

    /// Copies graph and weights into `stage` and returns the SHA-256 of them all.
    pub(super) fn copy(&self, stage: &Path, progress: &dyn Fn(Progress)) -> Result<String, ImportError> {
        let files = self.weights().map(|file| (self.beside(file), stage.join(file)));
        let files: Vec<_> = std::iter::once((self.path.clone(), graph_path(stage))).chain(files).collect();
        let mut total = 0;
        for (from, _) in &files {
            total += fs::metadata(from).map_err(ImportError::io("read", from))?.len();
        }
        let (mut hasher, mut done) = (Sha256::new(), 0);
        for (from, to) in &files {
            if let Some(directory) = to.parent() {
                fs::create_dir_all(directory).map_err(ImportError::io("write", directory))?;
            }
            let mut target = File::create(to).map_err(ImportError::io("write", to))?;
            read_in_chunks(from, |chunk| {
                hasher.update(chunk);
                done += chunk.len() as u64;
                progress(Progress { phase: Phase::Copy, done, total });
                target.write_all(chunk).map_err(ImportError::io("write", to))
            })?;
        }
        Ok(hex::encode(hasher.finalize()))
    }
}

/// Calls `take` with the file's bytes, a part at a time.
pub(super) fn read_in_chunks(
    path: &Path,
    mut take: impl FnMut(&[u8]) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let mut file = File::open(path).map_err(ImportError::io("read", path))?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk).map_err(ImportError::io("read", path))? {
            0 => return Ok(()),
            length => take(&chunk[..length])?,
        }
    }
}
