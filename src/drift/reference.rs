//! The summary of the traffic that a model was meant to see.

use std::borrow::Cow;
use std::collections::HashMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::evidence::{NEAR, OUTSIDE};
use super::inputs::InputCounts;
use super::tail::TAILS;
use crate::repository::manifest::Space;
use crate::rollout::Signature;

/// Fewer vectors say too little of the tails.
pub const LEAST_VECTORS: usize = 3_000;

/// Of the file's form. A reader of this form refuses others.
const SCHEMA: u32 = 1;
/// What a file begins with, before the digest of all that follows.
pub(crate) const MAGIC: &str = "sextant-reference ";

/// A few numbers of a reference, enough to judge what was counted against it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Vectors that the mean and the directions were fitted on.
    pub fitted: u64,
    /// Vectors that were held out, whose scores are the yardstick.
    pub calibrated: u64,
    /// How many vectors of the stream tell as much as one independent vector, at least 1.
    pub design_effect: f64,
    /// Upper bound of the share of unchanged traffic in each of [`TAILS`].
    pub tail_bounds: [f64; TAILS.len()],
    /// Share of the traffic in each topic; `[bins]`.
    pub bin_shares: Vec<f64>,
    /// Of the inputs.
    pub inputs: InputCounts,
}

impl Facts {
    /// So many independent vectors tell as much of the tails as those that were held out.
    pub fn effective(&self) -> usize {
        (self.calibrated as f64 / self.design_effect) as usize
    }
}

/// Where a reference comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Of the file's form.
    pub schema: u32,
    /// The version whose vectors it was fitted on, as `minilm@1`.
    pub version: String,
    /// The space of these vectors: it judges no others.
    pub space: Space,
    /// When, as RFC 3339.
    pub created: String,
    /// From which texts: a file's name, or live traffic.
    pub source: String,
}

impl Origin {
    /// That of a reference of this form, made now.
    pub fn now(version: String, space: Space, source: String) -> Self {
        Self { schema: SCHEMA, version, space, created: Signature::now(), source }
    }
}

/// A reference, as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// Where it comes from.
    pub origin: Origin,
    /// What is judged with.
    pub facts: Facts,
    /// Mean of the fitted vectors; `[dimensions]`.
    pub mean: Vec<f32>,
    /// Leading eigenvectors of their covariance, each divided by the root of its eigenvalue; `[components, dimensions]`.
    pub projection: Vec<f32>,
    /// Centres of clusters of the fitted vectors, less the mean, of unit length; `[centres, dimensions]`.
    pub centres: Vec<f32>,
    /// Of each centre its topic; `[centres]`.
    pub bins: Vec<u8>,
    /// Scores of the held-out vectors, ascending; `[calibrated]`.
    pub scores: Vec<f32>,
    /// A text near each centre, where the operator allowed to keep them; `[centres]`.
    pub examples: Option<Vec<String>>,
}

/// What a file says of itself beside its tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About<'a> {
    origin: Cow<'a, Origin>,
    facts: Cow<'a, Facts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    examples: Option<Cow<'a, [String]>>,
}

/// Where it stands in the file's metadata.
const ABOUT: &str = "reference";

/// Why bytes are no reference.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// Changed or cut short since it was written.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Written by a later release.
    #[error("its form {0} is not known, this is for form {SCHEMA}")]
    Schema(u32),
    /// It belongs to other vectors.
    #[error("it is of the space {found}, and these vectors are of {expected}")]
    OtherSpace {
        /// Of the reference.
        found: Space,
        /// Of the version.
        expected: Space,
    },
    /// The vectors have another width.
    #[error("its vectors have {found} dimensions, and the version's {expected}")]
    OtherWidth {
        /// Of the reference.
        found: usize,
        /// Of the version.
        expected: usize,
    },
}

type Result<T> = std::result::Result<T, ReferenceError>;

impl Reference {
    /// Width of the vectors.
    pub fn dimensions(&self) -> usize {
        self.mean.len()
    }

    /// Directions that are watched.
    pub fn components(&self) -> usize {
        self.projection.len() / self.mean.len().max(1)
    }

    /// Whether it judges vectors of a `space` and a width.
    ///
    /// # Errors
    /// If not.
    pub fn fits(&self, space: &Space, dimensions: usize) -> Result<()> {
        if self.origin.space != *space {
            return Err(ReferenceError::OtherSpace {
                found: self.origin.space.clone(),
                expected: space.clone(),
            });
        }
        if self.dimensions() != dimensions {
            return Err(ReferenceError::OtherWidth { found: self.dimensions(), expected: dimensions });
        }
        Ok(())
    }

    /// As a file: the digest of all that follows, then tensors in the form of safetensors.
    ///
    /// # Errors
    /// If its parts do not fit each other, which is a mistake of whoever made it.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.check().map_err(|reason| ReferenceError::Damaged(reason.to_owned()))?;
        self.encode_unchecked()
    }

    fn encode_unchecked(&self) -> Result<Vec<u8>> {
        let failed = |error: &dyn std::fmt::Display| ReferenceError::Damaged(error.to_string());
        let about = About {
            origin: Cow::Borrowed(&self.origin),
            facts: Cow::Borrowed(&self.facts),
            examples: self.examples.as_deref().map(Cow::Borrowed),
        };
        let about = serde_json::to_string(&about).map_err(|error| failed(&error))?;
        // One entry: several would be written in another order each time, and the digest is the reference's name.
        let metadata = HashMap::from([(ABOUT.to_owned(), about)]);
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let floats = [
            ("mean", bytes(&self.mean), vec![self.dimensions()]),
            ("projection", bytes(&self.projection), vec![self.components(), self.dimensions()]),
            ("centres", bytes(&self.centres), vec![self.bins.len(), self.dimensions()]),
            ("scores", bytes(&self.scores), vec![self.scores.len()]),
        ];
        let mut tensors = Vec::new();
        for (name, bytes, shape) in &floats {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(|error| failed(&error))?;
            tensors.push((*name, view));
        }
        let bins = TensorView::new(Dtype::U8, vec![self.bins.len()], &self.bins);
        tensors.push(("bins", bins.map_err(|error| failed(&error))?));
        let body = serialize(tensors, Some(metadata)).map_err(|error| failed(&error))?;
        let digest = hex::encode(Sha256::digest(&body));
        Ok([MAGIC.as_bytes(), digest.as_bytes(), b"\n", &body].concat())
    }

    /// Reads what [`Reference::encode`] wrote, with the reference's short name: the first eight digits of the digest.
    ///
    /// # Errors
    /// If anything of it has changed, or it is of another form.
    pub fn decode(file: &[u8]) -> Result<(String, Self)> {
        let damaged = |reason: &str| ReferenceError::Damaged(reason.to_owned());
        let rest =
            file.strip_prefix(MAGIC.as_bytes()).ok_or_else(|| damaged("it begins with something else"))?;
        let end = rest.iter().position(|byte| *byte == b'\n').filter(|end| *end == 64);
        let (digest, body) = rest.split_at(end.ok_or_else(|| damaged("its digest is cut short"))?);
        let body = &body[1..];
        if hex::encode(Sha256::digest(body)).as_bytes() != digest {
            return Err(damaged("its digest is not that of its contents"));
        }
        let wrong = |error: &dyn std::fmt::Display| ReferenceError::Damaged(error.to_string());
        let tensors = SafeTensors::deserialize(body).map_err(|error| wrong(&error))?;
        let (_, header) = SafeTensors::read_metadata(body).map_err(|error| wrong(&error))?;
        let about = header.metadata().as_ref().and_then(|metadata| metadata.get(ABOUT));
        let about = about.ok_or_else(|| damaged("it says nothing of itself"))?;
        // Before the rest: a later form may say it otherwise.
        let form: serde_json::Value = serde_json::from_str(about).map_err(|error| wrong(&error))?;
        let schema = form["origin"]["schema"].as_u64().and_then(|schema| schema.try_into().ok()).unwrap_or(0);
        if schema != SCHEMA {
            return Err(ReferenceError::Schema(schema));
        }
        let About { origin, facts, examples } =
            serde_json::from_value(form).map_err(|error| wrong(&error))?;
        let reference = Self {
            origin: origin.into_owned(),
            facts: facts.into_owned(),
            mean: floats(&tensors, "mean")?,
            projection: floats(&tensors, "projection")?,
            centres: floats(&tensors, "centres")?,
            bins: tensor(&tensors, "bins", Dtype::U8)?.to_vec(),
            scores: floats(&tensors, "scores")?,
            examples: examples.map(Cow::into_owned),
        };
        reference.check().map_err(damaged)?;
        let name = String::from_utf8_lossy(&digest[..8]).into_owned();
        Ok((name, reference))
    }

    /// Whether the parts fit each other, so that nothing that uses them has to ask.
    fn check(&self) -> std::result::Result<(), &'static str> {
        let width = self.dimensions();
        let bins = self.facts.bin_shares.len();
        let is_whole = width > 0
            && self.components() > 0
            && self.projection.len() == self.components() * width
            && !self.bins.is_empty()
            && self.centres.len() == self.bins.len() * width
            && self.bins.iter().all(|bin| usize::from(*bin) < bins)
            && self.scores.len() as u64 == self.facts.calibrated
            && self.examples.as_ref().is_none_or(|examples| examples.len() == self.bins.len());
        if !is_whole {
            return Err("its parts do not fit each other");
        }
        let numbers = [&self.mean, &self.projection, &self.centres, &self.scores];
        let are_finite = numbers.into_iter().flatten().all(|value| value.is_finite());
        let is_sorted = self.scores.is_sorted();
        let is_share = |share: &f64| (0.0..=1.0).contains(share);
        let facts = &self.facts;
        let can_judge = facts.design_effect >= 1.0
            && facts.design_effect.is_finite()
            && facts.tail_bounds.iter().all(|bound| *bound > 0.0)
            // No bet stakes more than it has.
            && OUTSIDE.iter().chain(&NEAR).all(|bet| bet.stake * facts.tail_bounds[bet.tail] < 1.0)
            && facts.bin_shares.iter().all(is_share);
        if are_finite && is_sorted && can_judge { Ok(()) } else { Err("its numbers cannot be") }
    }
}

fn tensor<'a>(tensors: &SafeTensors<'a>, name: &str, dtype: Dtype) -> Result<&'a [u8]> {
    let tensor = tensors.tensor(name).map_err(|error| ReferenceError::Damaged(error.to_string()))?;
    if tensor.dtype() != dtype {
        return Err(ReferenceError::Damaged(format!("`{name}` holds {:?}", tensor.dtype())));
    }
    Ok(tensor.data())
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>> {
    let (numbers, _) = tensor(tensors, name, Dtype::F32)?.as_chunks::<4>();
    Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::fixture::fitted;

    #[test]
    fn a_reference_is_read_as_it_was_written_and_any_change_is_named() {
        let mut reference = fitted(3_000).0;
        reference.examples = Some(vec!["a text".to_owned(); reference.bins.len()]);
        let file = reference.encode().unwrap();
        let (name, read) = Reference::decode(&file).unwrap();
        assert!(read == reference && name.len() == 8);
        assert!(file == reference.encode().unwrap(), "the same reference has one name");

        for place in (0..file.len()).step_by(file.len() / 97) {
            let mut changed = file.clone();
            changed[place] ^= 1;
            assert!(Reference::decode(&changed).is_err(), "{place}");
        }
        for end in [0, 5, 60, 83, 90, file.len() - 1] {
            assert!(matches!(Reference::decode(&file[..end]), Err(ReferenceError::Damaged(_))), "{end}");
        }
    }

    #[test]
    fn what_was_written_wrongly_is_refused_although_its_digest_is_right() {
        type Change = fn(&mut Reference);
        let changes: [(Change, &str); 6] = [
            (|reference| reference.origin.schema = 2, "form 2"),
            (|reference| reference.scores.truncate(7), "do not fit"),
            (|reference| reference.bins[0] = 200, "do not fit"),
            (|reference| reference.scores.reverse(), "cannot be"),
            (|reference| reference.centres[0] = f32::NAN, "cannot be"),
            (|reference| reference.facts.design_effect = 0.0, "cannot be"),
        ];
        let (good, _) = fitted(3_000);
        for (change, named) in changes {
            let mut reference = good.clone();
            change(&mut reference);
            let error = Reference::decode(&reference.encode_unchecked().unwrap()).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn it_judges_vectors_of_its_own_space_only() {
        let (reference, _) = fitted(3_000);
        let (space, width) = (reference.origin.space.clone(), reference.dimensions());
        assert_eq!(reference.fits(&space, width), Ok(()));
        let other = Space("bb".into());
        let error = reference.fits(&other, width).unwrap_err();
        assert_eq!(error, ReferenceError::OtherSpace { found: space.clone(), expected: other });
        let error = reference.fits(&space, 5).unwrap_err();
        assert_eq!(error.to_string(), "its vectors have 24 dimensions, and the version's 5");
    }
}
