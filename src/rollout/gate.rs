//! The gate: what a version must show on this very machine before it may serve.
//!
//! Its files are those that were published, it loads, it runs at the shapes that it will see, its vectors are vectors, they are
//! those that it came with, they do not depend on what runs beside them, and if it claims another version's space they lie
//! in it. The sessions that are checked are those that will serve: nothing is loaded twice.

pub mod claim;
mod inspect;
mod longest;
mod report;

use std::path::Path;
use std::time::Duration;

use thiserror::Error;

use super::room::NoRoom;
use crate::engine::topology::{self, ChooseError, Chosen, Wanted};
use crate::engine::{Backend, Device, graph_path};
use crate::import::export::Export;
use crate::repository::manifest::{Manifest, Precision};
use crate::repository::{Fetched, Found, KeyIds, Repository, RepositoryError};
use crate::tokenize::Tokenizer;
use claim::{Parent, ParentError};
use inspect::Inspection;
pub use report::{Bound, Check, GateReport, Name, Verdict};

/// What the figures of the gate must keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Least cosine of a probe's vector to the one that the version came with, in fp32 and fp16 on a processor.
    pub min_probe_cosine: f64,
    /// The same in int8 and where formats are mixed.
    pub min_probe_cosine_int8: f64,
    /// The same in fp32 on a GPU.
    pub min_probe_cosine_gpu: f64,
    /// The same in fp16 on a GPU.
    pub min_probe_cosine_gpu_fp16: f64,
    /// Largest difference of a probe's length to the one that the version came with, as a share of it.
    pub max_length_difference: f64,
    /// Largest difference of a component of a probe's unit vector between alone and in a batch.
    pub max_batch_difference: f64,
    /// Least cosine to a vector of the version whose space is claimed.
    pub min_claim_cosine: f64,
    /// Least share of the 10 nearest neighbours that queries keep among vectors of the version whose space is claimed.
    pub min_claim_overlap: f64,
}

impl Bounds {
    /// What holds where nothing else is said.
    pub const DEFAULT: Self = Self {
        min_probe_cosine: 0.9999,
        // Processors and compilers round the products of 8-bit numbers differently: .9979 was seen between two builds.
        min_probe_cosine_int8: 0.99,
        // Another order of sums alone: what rounds products, as TF32 does, falls below it.
        min_probe_cosine_gpu: 0.99999,
        // Kernels for 16 bits sum in 16 bits here and in 32 there.
        min_probe_cosine_gpu_fp16: 0.999,
        // Cosines do not see a length. Int8 changes it by some percent, what it is for changes it altogether: vectors that
        // are normalised and should not be, or the other way round.
        max_length_difference: 0.1,
        max_batch_difference: 1e-4,
        min_claim_cosine: 0.99,
        // Int8 of all-MiniLM-L6-v2 keeps .985 of fp32's, a rotated space .2 by chance.
        min_claim_overlap: 0.9,
    };

    fn min_probe_cosine(&self, precision: Precision, device: Device) -> f64 {
        match (precision, device.gpu()) {
            (Precision::Fp32, Some(_)) => self.min_probe_cosine_gpu,
            (Precision::Fp16, Some(_)) => self.min_probe_cosine_gpu_fp16,
            (Precision::Fp32 | Precision::Fp16, None) => self.min_probe_cosine,
            (Precision::Int8 | Precision::Mixed, _) => self.min_probe_cosine_int8,
        }
    }
}

/// Why a version may not serve here.
#[derive(Debug, Error)]
pub enum GateError {
    /// One of its checks failed.
    #[error("it does not pass the gate: {}", .0.failures())]
    NotPassed(GateReport),
    /// The repository failed, which says nothing about the version.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The memory does not suffice for it.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The checking thread is gone.
    #[error("the gate was interrupted")]
    Interrupted,
}

/// A version that may serve.
pub struct Passed {
    /// Its files, for as long as the sessions are in use.
    pub files: Fetched,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The sessions that were checked.
    pub chosen: Chosen,
    /// What their largest batches took.
    pub measured: Measured,
    /// What was found.
    pub report: GateReport,
}

/// What the largest batches of a version took, as far as it was measured.
#[derive(Debug, Clone, Copy, Default)]
pub struct Measured {
    /// How long a batch may run.
    pub longest_run: Duration,
    /// Bytes of memory, where the system tells them.
    pub activations: u64,
}

/// Loads a version and checks it.
///
/// # Errors
/// If a check fails, or the repository does.
pub async fn pass(
    repository: &Repository,
    manifest: &Manifest,
    backend: &Backend,
    wanted: Wanted,
    bounds: Bounds,
) -> Result<Passed, GateError> {
    let mut report = GateReport::new(format!("{}@{}", manifest.model, manifest.version));
    let fetched = match repository.fetch(manifest).await {
        Ok(fetched) => fetched,
        Err(error) if is_about_the_version(&error) => {
            return Err(GateError::NotPassed(report.failed(Name::Digests, error)));
        }
        Err(error) => return Err(error.into()),
    };
    let megabytes = manifest.files.iter().map(|file| file.bytes).sum::<u64>() as f64 / 1e6;
    let published = format!("{} files as published, {megabytes:.1} MB", manifest.files.len());
    report.add(Check::stated(Name::Digests, Verdict::Passed, published));
    let parent = match manifest.space_parent {
        None => None,
        Some(parent) => match Parent::read(repository, &manifest.model, parent).await {
            Ok(parent) => Some(parent),
            Err(ParentError::Repository(error)) if !is_about_the_version(&error) => return Err(error.into()),
            Err(error) => return Err(GateError::NotPassed(report.failed(Name::Claim, error))),
        },
    };
    let (manifest, backend) = (manifest.clone(), backend.clone());
    let check = move || {
        let directory: &Path = &fetched;
        let path = directory.join("tokenizer.json");
        let tokenizer = match Tokenizer::load(&path, manifest.max_tokens) {
            Ok(tokenizer) => tokenizer,
            Err(error) => return Err(report.failed(Name::Loads, error)),
        };
        let (graph, pooling, vocabulary) = (graph_path(directory), manifest.pooling, tokenizer.vocabulary());
        if let Err(reason) = check_weights(&graph, &manifest) {
            return Err(report.failed(Name::Loads, reason));
        }
        let chosen = topology::choose(&backend, &graph, pooling, vocabulary, manifest.max_tokens, wanted);
        let mut chosen = match chosen {
            Ok(chosen) => chosen,
            Err(error @ ChooseError::Session(_)) => return Err(report.failed(Name::Loads, error)),
            Err(error @ ChooseError::Run(_)) => return Err(report.failed(Name::Runs, error)),
        };
        let parent = parent.as_ref();
        let measured = Inspection { manifest: &manifest, directory, tokenizer: &tokenizer, bounds, parent }
            .run(&mut chosen, &mut report);
        if !report.passed {
            return Err(report);
        }
        Ok(Passed { files: fetched, tokenizer, chosen, measured, report })
    };
    let checked = tokio::task::spawn_blocking(check).await.map_err(|_| GateError::Interrupted)?;
    checked.map_err(GateError::NotPassed)
}

/// Checks the version `model@version` and says what was found, a version that cannot even be read included.
///
/// # Errors
/// If there is no such version, or the repository fails.
pub async fn verify(
    repository: &Repository,
    model: &str,
    version: u32,
    backend: &Backend,
    wanted: Wanted,
    bounds: Bounds,
) -> Result<GateReport, GateError> {
    let Found { manifest, sha256, signer } = match repository.find(model, version).await {
        Ok(found) => found,
        Err(error) if is_about_the_manifest(&error) => return Ok(unreadable(model, version, &error)),
        Err(error) => return Err(error.into()),
    };
    let signed = match signer {
        Some(key) => Some((Verdict::Passed, format!("the manifest is signed by {key}"))),
        None => match repository.signatures(model, version).await? {
            KeyIds(ids) if ids.is_empty() => None,
            ids => {
                let sentence = format!("not checked, no key is trusted here: there are signatures by {ids}");
                Some((Verdict::Warning, sentence))
            }
        },
    };
    let passed = match as_published(repository, &manifest).await {
        Ok(()) => pass(repository, &manifest, backend, wanted, bounds).await,
        Err(error) => Err(error),
    };
    let mut report = match passed {
        Ok(passed) => passed.report,
        Err(GateError::NotPassed(report)) => report,
        Err(error) => return Err(error),
    };
    let digests = |check: &&mut Check| check.name == Name::Digests && check.verdict == Verdict::Passed;
    if let Some(check) = report.checks.iter_mut().find(digests) {
        check.sentence += &format!("; the SHA-256 of the manifest is {sha256}");
    }
    let signature = signed.map(|(verdict, sentence)| Check::stated(Name::Signature, verdict, sentence));
    report.checks.splice(0..0, signature);
    Ok(report)
}

/// Reads the repository's own files of a version: a good copy in the cache says nothing of what other servers will read.
///
/// # Errors
/// [`GateError::NotPassed`] if one is not as it was published.
pub async fn as_published(repository: &Repository, manifest: &Manifest) -> Result<(), GateError> {
    let checked = repository.check_own_files(manifest).await;
    checked.map_err(|error| GateError::NotPassed(GateReport::new(manifest.id()).failed(Name::Digests, error)))
}

/// What the version `model@version` is, for whoever is to load it.
///
/// # Errors
/// If no key signed it that must have, which is a failed check as any other; if there is no such version, its manifest is damaged, or
/// the repository fails.
pub async fn manifest(repository: &Repository, model: &str, version: u32) -> Result<Manifest, GateError> {
    repository.manifest(model, version).await.map_err(|error| match error {
        RepositoryError::NotTrusted { .. } => GateError::NotPassed(unreadable(model, version, &error)),
        error => error.into(),
    })
}

/// A report on a version whose manifest is damaged or not trusted.
fn unreadable(model: &str, version: u32, error: &RepositoryError) -> GateReport {
    let name = match error {
        RepositoryError::NotTrusted { .. } => Name::Signature,
        _ => Name::Digests,
    };
    GateReport::new(format!("{model}@{version}")).failed(name, error)
}

/// Refuses a graph that would read from a file which is none of the version's: nobody published it, and nothing says what is in it.
pub(crate) fn check_weights(graph: &Path, manifest: &Manifest) -> Result<(), String> {
    let export = Export::read(graph).map_err(|error| error.to_string())?;
    let is_listed = |file: &&Path| manifest.files.iter().any(|listed| Path::new(&listed.name) == *file);
    match export.weights().find(|file| !is_listed(file)) {
        Some(other) => {
            Err(format!("its graph reads from `{}`, which the manifest does not list", other.display()))
        }
        None => export.check_weights().map_err(|error| error.to_string()),
    }
}

/// Whether the repository works, and what it says of the version cannot be used.
fn is_about_the_manifest(error: &RepositoryError) -> bool {
    matches!(error, RepositoryError::BadManifest { .. } | RepositoryError::NotTrusted { .. })
}

/// Whether the repository works, and what it holds of the version does not.
fn is_about_the_version(error: &RepositoryError) -> bool {
    is_about_the_manifest(error)
        || matches!(
            error,
            RepositoryError::BadFile { .. }
                | RepositoryError::NoSuchVersion { .. }
                | RepositoryError::NotAFile { .. }
                | RepositoryError::Read { .. }
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_gpu_fp32_must_be_closer_and_fp16_need_not_be_as_close() {
        let least = |precision, device| Bounds::DEFAULT.min_probe_cosine(precision, device);
        for (precision, cpu, gpu) in [
            (Precision::Fp32, 0.9999, 0.99999),
            (Precision::Fp16, 0.9999, 0.999),
            (Precision::Int8, 0.99, 0.99),
        ] {
            assert_eq!(least(precision, Device::Cpu), cpu);
            assert_eq!(least(precision, Device::Cuda(1)), gpu);
            assert_eq!(least(precision, Device::TensorRt(0)), gpu);
        }
    }
}
