//! The probe set: texts with the vectors that they must give, made by the version's own graph.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ImportError, Phase, Precision, Progress};
use crate::engine::{Batch, Output, Session, Vector, pooling};
use crate::tokenize::{Tokenizer, Truncate};

/// Texts of many kinds: one character and many words, several scripts, code, markup, numbers. One a line.
const TEXTS: &str = include_str!("texts/probe.txt");

/// The probe set's file name in a version's directory: a [`Probe`] in JSON on each line.
pub const FILE: &str = "probe.jsonl";

/// The most by which a component of a unit vector may differ between alone and in a batch. Above it the same text has
/// another vector beside other neighbours, which no index forgives.
const ALLOWED: f32 = 1e-4;

/// Rows of a mixed batch: short and long texts meet in each.
const MIXED: usize = 16;

/// A text and its vector, normalised if the version's vectors are. No prompt is put before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The text, cut to the version's `max_tokens` like any other.
    pub text: String,
    /// The vector of the text alone.
    pub embedding: Vector,
}

/// What makes a text's vector.
pub(super) struct Encoding<'a> {
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) session: &'a mut Session,
    pub(super) normalise: bool,
    pub(super) precision: Precision,
}

/// Runs the built-in texts and writes their vectors to `stage`.
///
/// # Errors
/// If a vector is not finite or zero, or, from a graph of our own making, depends on the batch.
pub(super) fn write(
    encoding: Encoding<'_>,
    stage: &Path,
    progress: &dyn Fn(Progress),
) -> Result<(), ImportError> {
    let Encoding { tokenizer, session, normalise, precision } = encoding;
    let texts: Vec<&str> = TEXTS.lines().collect();
    let rows = tokenize(tokenizer, &texts)?;
    let mut alone = Vec::with_capacity(rows.len());
    let report =
        |done: usize| progress(Progress { phase: Phase::Probe, done: done as u64, total: rows.len() as u64 });
    for row in &rows {
        report(alone.len());
        alone.extend(run(session, vec![Arc::clone(row)])?);
    }
    report(alone.len());
    for (text, vector) in texts.iter().zip(&alone) {
        let fault = match vector {
            vector if vector.iter().any(|value| !value.is_finite()) => "not finite",
            vector if vector.iter().all(|value| *value == 0.0) => "all zeros",
            _ => continue,
        };
        return Err(ImportError::Probe { text: (*text).to_owned(), fault, precision });
    }
    if session.is_packed() {
        for (at, rows) in rows.chunks(MIXED).enumerate() {
            let together = run(session, rows.to_vec())?;
            let pairs = alone[at * MIXED..].iter().zip(&together);
            for (text, (alone, together)) in texts[at * MIXED..].iter().zip(pairs) {
                let difference = distance(alone, together);
                if difference.is_nan() || difference > ALLOWED {
                    let text = (*text).to_owned();
                    return Err(ImportError::BatchDependent { text, difference, allowed: ALLOWED });
                }
            }
        }
    }
    let path = stage.join(FILE);
    let mut lines = String::new();
    for (text, mut embedding) in texts.into_iter().zip(alone) {
        if normalise {
            pooling::normalise(&mut embedding);
        }
        let probe = Probe { text: text.to_owned(), embedding };
        lines += &serde_json::to_string(&probe).map_err(|error| ImportError::malformed(&path, error))?;
        lines.push('\n');
    }
    fs::write(&path, lines).map_err(ImportError::io("write", &path))
}

/// The token ids of `texts`.
pub(super) fn tokenize(tokenizer: &Tokenizer, texts: &[&str]) -> Result<Vec<Arc<[u32]>>, ImportError> {
    texts
        .iter()
        .map(|text| match tokenizer.tokenize(text, Truncate::End) {
            Ok(tokens) => Ok(tokens.ids),
            Err(source) => Err(ImportError::Text { text: (*text).to_owned(), source }),
        })
        .collect()
}

fn run(session: &mut Session, rows: Vec<Arc<[u32]>>) -> Result<Vec<Vector>, ImportError> {
    Ok(session.run(&Batch { rows, output: Output::Pooled, lone: false })?)
}

/// The largest difference of a component of two vectors scaled to unit length; not a number if one of them is none.
fn distance(left: &[f32], right: &[f32]) -> f32 {
    let unit = |vector: &[f32]| {
        let mut vector = vector.to_vec();
        pooling::normalise(&mut vector);
        vector
    };
    let differences = unit(left).into_iter().zip(unit(right)).map(|(left, right)| (left - right).abs());
    differences.max_by(f32::total_cmp).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_of_directions_and_sees_what_is_no_number() {
        assert_eq!(distance(&[3.0, 4.0], &[6.0, 8.0]), 0.0);
        assert!((distance(&[1.0, 0.0], &[0.0, 2.0]) - 1.0).abs() < 1e-6);
        assert!(distance(&[1.0, 2.0], &[1.0, f32::NAN]).is_nan());
    }

    #[test]
    fn built_in_texts_are_many_and_different() {
        let texts: std::collections::BTreeSet<&str> = TEXTS.lines().collect();
        assert!(texts.len() >= 32 && texts.len() == TEXTS.lines().count());
    }
}
