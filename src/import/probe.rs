//! The probe set: texts with the vectors that they must give, made by the version's own graph.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ImportError, Phase, Progress};
use crate::compare::{fault, largest_difference};
use crate::engine::{Batch, EngineError, Output, Session, Vector};
use crate::repository::manifest::Manifest;
use crate::rollout::gate::claim::Parent;
use crate::rollout::gate::{Bounds, Check, Verdict};
use crate::tokenize::{Tokenizer, Truncate};

/// Texts of many kinds: one character and many words, several scripts, code, markup, numbers. One a line.
const TEXTS: &str = include_str!("texts/probe.txt");

/// The probe set's file name in a version's directory: a [`Probe`] in JSON on each line.
pub const FILE: &str = "probe.jsonl";

/// The most by which a component of a unit vector may differ between alone and in a batch. Above it the same text has
/// another vector beside other neighbours, which no index forgives.
const ALLOWED: f32 = Bounds::DEFAULT.max_batch_difference as f32;

/// Most rows of a mixed batch: short and long texts meet in each.
const MIXED: usize = 16;

/// A text and its vector as it is served. No prompt is put before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The text, cut to the version's `max_tokens` like any other.
    pub text: String,
    /// The vector of the text alone.
    pub embedding: Vector,
}

/// What the built-in texts showed of a graph.
pub(super) struct Probed {
    pub(super) probes: Vec<Probe>,
    /// Whether a text gets another vector beside other texts.
    pub(super) depends_on_batch: bool,
}

impl Probed {
    /// Measures the claim that the vectors lie in the space of `parent`.
    ///
    /// # Errors
    /// If they do not, with the figures.
    pub(super) fn check_claim(
        self,
        parent: &Parent,
        manifest: &Manifest,
        tokenizer: &Tokenizer,
        session: &mut Session,
    ) -> Result<(), ImportError> {
        let checks = parent.measure(manifest, &Bounds::DEFAULT, |texts| {
            if self.probes.iter().map(|probe| probe.text.as_str()).eq(texts.iter().copied()) {
                return Ok(self.probes.into_iter().map(|probe| probe.embedding).collect());
            }
            let mut vectors = alone(session, &tokenize(tokenizer, texts)?, |_| {})?;
            vectors.iter_mut().for_each(|vector| manifest.finish(vector));
            Ok::<_, ImportError>(vectors)
        })?;
        let failed = checks.iter().filter(|check| check.verdict == Verdict::Failed).map(Check::to_string);
        match failed.collect::<Vec<_>>() {
            failed if failed.is_empty() => Ok(()),
            failed => Err(ImportError::Claim { parent: parent.version(), reasons: failed.join("; ") }),
        }
    }
}

/// Runs the built-in texts and writes their vectors, as the version of `manifest` serves them, to `stage`.
///
/// # Errors
/// If a vector is not finite or zero, or, from a graph of our own making, depends on the batch.
pub(super) fn write(
    manifest: &Manifest,
    tokenizer: &Tokenizer,
    session: &mut Session,
    stage: &Path,
    progress: &dyn Fn(Progress),
) -> Result<Probed, ImportError> {
    let texts: Vec<&str> = texts().collect();
    let rows = tokenize(tokenizer, &texts)?;
    let report =
        |done: usize| progress(Progress { phase: Phase::Probe, done: done as u64, total: rows.len() as u64 });
    let alone = alone(session, &rows, report)?;
    for (text, vector) in texts.iter().zip(&alone) {
        if let Some(fault) = fault(vector) {
            return Err(ImportError::Probe {
                text: (*text).to_owned(),
                fault,
                precision: manifest.precision,
            });
        }
    }
    let mut depends_on_batch = false;
    let together = together(session, &rows)?;
    for (text, (alone, together)) in texts.iter().zip(alone.iter().zip(&together)) {
        let difference = largest_difference(alone, together);
        if difference.is_nan() || difference > ALLOWED {
            if session.is_packed() {
                let text = (*text).to_owned();
                return Err(ImportError::BatchDependent { text, difference, allowed: ALLOWED });
            }
            depends_on_batch = true;
        }
    }
    let path = stage.join(FILE);
    let mut lines = String::new();
    let mut probes = Vec::with_capacity(texts.len());
    for (text, mut embedding) in texts.into_iter().zip(alone) {
        manifest.finish(&mut embedding);
        let probe = Probe { text: text.to_owned(), embedding };
        lines += &serde_json::to_string(&probe).map_err(|error| ImportError::malformed(&path, error))?;
        lines.push('\n');
        probes.push(probe);
    }
    fs::write(&path, lines).map_err(ImportError::io("write", &path))?;
    Ok(Probed { probes, depends_on_batch })
}

/// The built-in texts.
pub(crate) fn texts() -> impl Iterator<Item = &'static str> {
    TEXTS.lines()
}

/// Reads a probe set whose vectors have `dimensions`.
///
/// # Errors
/// In a sentence, if it is empty or a line of it is no probe.
pub(crate) fn read(text: &[u8], dimensions: usize) -> Result<Vec<Probe>, String> {
    let wrong = |line: usize, reason: String| format!("`{FILE}`, line {}: {reason}", line + 1);
    let text = std::str::from_utf8(text).map_err(|error| format!("`{FILE}`: {error}"))?;
    let probes = text.lines().enumerate().map(|(line, text)| {
        let probe: Probe = serde_json::from_str(text).map_err(|error| wrong(line, error.to_string()))?;
        match probe.embedding.len() {
            width if width == dimensions => Ok(probe),
            width => Err(wrong(line, format!("the vector has {width} dimensions, expected {dimensions}"))),
        }
    });
    match probes.collect::<Result<Vec<_>, _>>()? {
        probes if probes.is_empty() => Err(format!("`{FILE}` is empty")),
        probes => Ok(probes),
    }
}

/// The token ids of `texts`.
pub(crate) fn tokenize(tokenizer: &Tokenizer, texts: &[&str]) -> Result<Vec<Arc<[u32]>>, ImportError> {
    texts
        .iter()
        .map(|text| match tokenizer.tokenize(text, Truncate::End) {
            Ok(tokens) => Ok(tokens.ids),
            Err(source) => Err(ImportError::Text { text: (*text).to_owned(), source }),
        })
        .collect()
}

/// The vectors of `rows`, each run by itself. `progress` hears how many are done.
pub(crate) fn alone(
    session: &mut Session,
    rows: &[Arc<[u32]>],
    progress: impl Fn(usize),
) -> Result<Vec<Vector>, EngineError> {
    let mut vectors = Vec::with_capacity(rows.len());
    for row in rows {
        progress(vectors.len());
        vectors.extend(run(session, vec![Arc::clone(row)])?);
    }
    progress(vectors.len());
    Ok(vectors)
}

/// The vectors of `rows`, each run in a batch of rows from all over the list, in the list's order.
pub(crate) fn together(session: &mut Session, rows: &[Arc<[u32]>]) -> Result<Vec<Vector>, EngineError> {
    let batches = rows.len().div_ceil(MIXED);
    let mut vectors = vec![Vector::new(); rows.len()];
    for first in 0..batches {
        let mixed = rows.iter().skip(first).step_by(batches).map(Arc::clone).collect();
        let places = vectors.iter_mut().skip(first).step_by(batches);
        places.zip(run(session, mixed)?).for_each(|(place, vector)| *place = vector);
    }
    Ok(vectors)
}

/// The beginning of a text between quotation marks, for a message.
pub(crate) fn quoted(text: &str) -> String {
    let mut characters = text.chars();
    let start: String = characters.by_ref().take(40).collect();
    if characters.next().is_some() { format!("`{start}...`") } else { format!("`{start}`") }
}

fn run(session: &mut Session, rows: Vec<Arc<[u32]>>) -> Result<Vec<Vector>, EngineError> {
    session.run(&Batch { rows, output: Output::Pooled, ..Batch::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_texts_are_many_and_different() {
        let texts: std::collections::BTreeSet<&str> = texts().collect();
        assert!(texts.len() >= 32 && texts.len() == super::texts().count());
    }

    #[test]
    fn a_probe_set_that_is_none_is_told_by_its_line() {
        let good = r#"{"text": "a", "embedding": [1.0, 0.0]}"#;
        assert_eq!(read(good.as_bytes(), 2).unwrap()[0].embedding, [1.0, 0.0]);
        for (text, expected) in [
            (String::new(), "is empty"),
            (format!("{good}\n{{}}"), "line 2: missing field `text`"),
            (format!("{good}\n{good}\nx"), "line 3: expected value"),
            (good.replace("1.0", "null"), "line 1: invalid type: null"),
            (good.replace("1.0, ", ""), "line 1: the vector has 1 dimensions, expected 2"),
        ] {
            let error = read(text.as_bytes(), 2).unwrap_err();
            assert!(error.starts_with("`probe.jsonl`") && error.contains(expected), "{error}");
        }
        assert!(read(&[0xff], 2).unwrap_err().contains("utf-8"));
    }

    #[test]
    fn long_texts_are_quoted_by_their_beginning() {
        assert_eq!(quoted("a cat"), "`a cat`");
        assert_eq!(quoted(&"木".repeat(41)), format!("`{}...`", "木".repeat(40)));
    }
}
