//! The claim of a version to write into another one's vector space, measured against that version's own vectors.

use thiserror::Error;

use super::{Bound, Bounds, Check, Name, Verdict};
use crate::compare::{cosine, cross_overlap, least};
use crate::engine::Vector;
use crate::import::probe::{self, Probe};
use crate::repository::manifest::{Manifest, Space};
use crate::repository::{Repository, RepositoryError};

/// Nearest neighbours that are compared.
const NEIGHBOURS: usize = 10;

/// Why a version cannot be measured against.
#[derive(Debug, Error)]
pub enum ParentError {
    /// It is not there, or not as it was published; or the repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// It has no vectors to measure against.
    #[error("{version} cannot be measured against: {reason}")]
    NoProbes {
        /// The version.
        version: String,
        /// What is wrong with its probe set.
        reason: String,
    },
}

/// A version whose space is claimed, with the vectors that it came with.
#[derive(Debug)]
pub struct Parent {
    manifest: Manifest,
    probes: Vec<Probe>,
}

impl Parent {
    /// Reads manifest and probe set of a version; not its weights.
    ///
    /// # Errors
    /// If they are not there or damaged, or the repository fails.
    pub async fn read(repository: &Repository, model: &str, version: u32) -> Result<Self, ParentError> {
        let manifest = repository.manifest(model, version).await?;
        let text = repository.read(&manifest, probe::FILE).await?;
        let probes = probe::read(&text, manifest.dimensions)
            .map_err(|reason| ParentError::NoProbes { version: format!("{model}@{version}"), reason })?;
        Ok(Self { manifest, probes })
    }

    /// Its number.
    pub fn version(&self) -> u32 {
        self.manifest.version
    }

    /// Its space.
    pub fn space(&self) -> &Space {
        &self.manifest.space
    }

    /// Measures the claim of the version that `child` describes. `embed` gives its vectors of the texts, each run alone.
    ///
    /// # Errors
    /// If `embed` fails.
    pub(crate) fn measure<E>(
        &self,
        child: &Manifest,
        bounds: &Bounds,
        embed: impl FnOnce(&[&str]) -> Result<Vec<Vector>, E>,
    ) -> Result<Vec<Check>, E> {
        let id = format!("{}@{}", self.manifest.model, self.manifest.version);
        if let Some(reason) = contradiction(&self.manifest, child) {
            return Ok(vec![Check::stated(Name::Claim, Verdict::Failed, format!("{id} {reason}"))]);
        }
        let texts: Vec<&str> = self.probes.iter().map(|probe| probe.text.as_str()).collect();
        let stored: Vec<&Vector> = self.probes.iter().map(|probe| &probe.embedding).collect();
        let vectors = embed(&texts)?;
        let mut checks = vec![Check::stated(
            Name::Claim,
            Verdict::Passed,
            format!("the space {} of {id}, which takes its texts alike", self.manifest.space),
        )];
        let cosines = stored.iter().zip(&vectors).map(|(stored, vector)| cosine(stored, vector));
        if let Some((at, figure)) = least(cosines) {
            let sentence = format!("least to the vectors of {id}, of {}", probe::quoted(texts[at]));
            let bound = Bound::AtLeast(bounds.min_claim_cosine);
            checks.push(Check::measured(Name::ClaimCosine, figure, bound, sentence));
        }
        let overlap = cross_overlap(&stored, &vectors, NEIGHBOURS);
        let sentence =
            format!("of the {NEIGHBOURS} nearest vectors of {id} to each of {} texts", texts.len());
        let bound = Bound::AtLeast(bounds.min_claim_overlap);
        checks.push(Check::measured(Name::ClaimOverlap, overlap, bound, sentence));
        Ok(checks)
    }
}

/// What of `child` makes another space than its parent's though no probe would see it.
fn contradiction(parent: &Manifest, child: &Manifest) -> Option<String> {
    if parent.space_parent.is_some() {
        // Each claim may be a little off; a claim on a claim would add that up.
        return Some("claims the space of another version itself: claim that one's".to_owned());
    }
    if child.space != parent.space {
        return Some(format!("writes into the space {}, not into {}", parent.space, child.space));
    }
    // Prompts are no part of the probes, and a length says nothing to a cosine.
    let differs = [
        ("dimensions", parent.dimensions != child.dimensions),
        ("normalise", parent.normalise != child.normalise),
        ("max_tokens", parent.max_tokens != child.max_tokens),
        ("prompts", parent.prompts != child.prompts),
        ("default_prompt", parent.default_prompt != child.default_prompt),
        ("default_query_prompt", parent.default_query_prompt != child.default_query_prompt),
        ("default_document_prompt", parent.default_document_prompt != child.default_document_prompt),
    ];
    let names: Vec<&str> = differs.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    (!names.is_empty())
        .then(|| format!("has another `{}`, so that texts are taken otherwise", names.join("`, `")))
}
