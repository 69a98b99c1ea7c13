//! Checkpoint directories become versions with the vectors that they must have, or are refused by name.

mod compiled;
mod endless;
mod exports;
mod hostile;
mod models;
mod references;
mod refused;
mod spaces;
mod taken_over;

use std::path::Path;
use std::sync::Arc;

use sextant::engine::{Batch, Output, Pooling, Session, SessionOptions, Vector, pooling};
use sextant::import::{Facts, ImportError, Request, Staged, stage};
use sextant::repository::Repository;
use sextant::repository::manifest::{Manifest, Precision, Source};
use sextant::tokenize::{Tokenizer, Truncate};
use tempfile::TempDir;

use crate::rollout::begin;
use crate::support::checkpoint::TinyCheckpoint;
use crate::support::{backend, runtime};

/// Short and long, known and unknown words; the last is cut off.
const TEXTS: [&str; 6] = [
    "a",
    "The red cat runs over the small house.",
    "",
    "what? 42 rivers (and 7 dogs) in the house of a cat",
    "ψ is unknown",
    "the dog sleeps on the river and the cat sleeps in the house and the dog runs over the red river and the small cat runs \
     over the house and what of the small red dog in the river of the small red house on the small red river and \
     in the house of the dog the cat and the red dog of what",
];

/// What an import made.
pub struct Imported {
    directory: TempDir,
    pub manifest: Manifest,
    /// What the import told.
    pub facts: Facts,
}

/// Asks for nothing special.
fn request(checkpoint: &Path) -> Request<'_> {
    let source = Source::Directory { name: "tiny".to_owned() };
    Request::new(checkpoint, "tiny", source, "2026-11-23T12:00:00Z".to_owned())
}

/// Imports `checkpoint`, what is asked for changed by `ask`.
pub fn import<'a>(checkpoint: &'a Path, ask: impl FnOnce(&mut Request<'a>)) -> Result<Imported, ImportError> {
    let mut request = request(checkpoint);
    ask(&mut request);
    let directory = tempfile::tempdir().unwrap();
    let Staged { manifest, facts } = stage(&request, directory.path(), runtime(), &|_| {})?;
    Ok(Imported { directory, manifest, facts })
}

/// Imports `checkpoint` as a version of `model` in the repository, which serves if it is the model's first.
pub async fn publish(
    repository: &Repository,
    model: &str,
    checkpoint: &Path,
) -> Result<Manifest, ImportError> {
    let directory = tempfile::tempdir().unwrap();
    let request = Request { model, ..request(checkpoint) };
    let Staged { manifest, .. } = stage(&request, directory.path(), runtime(), &|_| {})?;
    let manifest = repository.publish(directory.path(), manifest).await.unwrap();
    if manifest.version == 1 {
        begin(repository, model, 1).await;
    }
    Ok(manifest)
}

/// Imports a tiny checkpoint with nothing special asked for.
pub fn import_tiny(checkpoint: &TinyCheckpoint, precision: Precision) -> Imported {
    let directory = tempfile::tempdir().unwrap();
    checkpoint.write(directory.path());
    import(directory.path(), |request| request.precision = precision).unwrap()
}

impl Imported {
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Its graph with any pooling, on so many threads.
    pub fn session(&self, pooling: Pooling, threads: usize) -> Session {
        let options = SessionOptions::cpu(threads, false);
        Session::load(&backend(), &self.path().join("model.onnx"), pooling, options).unwrap()
    }

    /// The token ids of a text.
    pub fn ids(&self, text: &str) -> Arc<[u32]> {
        let tokenizer =
            Tokenizer::load(&self.path().join("tokenizer.json"), self.manifest.max_tokens).unwrap();
        tokenizer.tokenize(text, Truncate::End).unwrap().ids
    }

    /// The texts' vectors as served, run in batches of `rows`.
    pub fn embed(&self, texts: &[&str], rows: usize) -> Vec<Vector> {
        let mut session = self.session(self.manifest.pooling, 1);
        let ids: Vec<_> = texts.iter().map(|text| self.ids(text)).collect();
        let run = |rows: &[Arc<[u32]>]| {
            session.run(&Batch { rows: rows.to_vec(), output: Output::Pooled, ..Batch::default() }).unwrap()
        };
        let mut vectors: Vec<Vector> = ids.chunks(rows).flat_map(run).collect();
        if self.manifest.normalise {
            vectors.iter_mut().for_each(|vector| pooling::normalise(vector));
        }
        vectors
    }
}
