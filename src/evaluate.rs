//! Quality of a version on labelled pairs: do its cosines order the pairs as people did?

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::embed::{EmbedError, EmbedRequest, Embedder, Input};
use crate::tokenize::Truncate;

/// Sentences embedded in one request: enough for full batches, few enough for a lively progress bar.
const PER_REQUEST: usize = 256;

/// Two sentences and how alike people found them.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The two sentences.
    pub sentences: [String; 2],
    /// Any scale, more is more alike.
    pub score: f64,
}

/// Why there is no figure.
#[derive(Debug, Error)]
pub enum EvaluateError {
    /// The file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A line is not `sentence,sentence,score`.
    #[error("`{}`, line {line}: expected sentence1,sentence2,score: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// No correlation without at least two pairs of different scores.
    #[error("`{}` has too few pairs to order", .0.display())]
    TooFew(PathBuf),
    /// The model failed.
    #[error(transparent)]
    Embed(#[from] EmbedError),
}

/// Reads pairs from a CSV file of `sentence1,sentence2,score`, with or without a header.
///
/// # Errors
/// If the file cannot be read, a line is of another form, or there are fewer than two pairs.
pub fn read_pairs(path: &Path) -> Result<Vec<Pair>, EvaluateError> {
    let text =
        std::fs::read(path).map_err(|source| EvaluateError::Unreadable { path: path.to_owned(), source })?;
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_slice());
    let mut pairs = Vec::new();
    for (index, record) in reader.records().enumerate() {
        let malformed =
            |line, reason: String| EvaluateError::Malformed { path: path.to_owned(), line, reason };
        let record = record
            .map_err(|error| malformed(error.position().map_or(0, csv::Position::line), error.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let [first, second, score] = record.iter().collect::<Vec<_>>()[..] else {
            return Err(malformed(line, format!("there are {} columns", record.len())));
        };
        match score.trim().parse::<f64>() {
            Ok(score) if score.is_finite() => {
                pairs.push(Pair { sentences: [first.to_owned(), second.to_owned()], score });
            }
            _ if index == 0 => {} // A header.
            _ => return Err(malformed(line, format!("`{score}` is no number"))),
        }
    }
    if pairs.len() < 2 { Err(EvaluateError::TooFew(path.to_owned())) } else { Ok(pairs) }
}

/// Spearman's rank correlation of the cosines of `pairs` with their scores. `progress` hears how many sentences are done.
///
/// # Errors
/// If the model fails, or the scores are all the same.
pub async fn correlation(
    embedder: &Embedder,
    model: &str,
    pairs: &[Pair],
    path: &Path,
    progress: impl Fn(u64),
) -> Result<f64, EvaluateError> {
    let sentences: Vec<&String> = pairs.iter().flat_map(|pair| &pair.sentences).collect();
    let mut vectors: Vec<Vec<f32>> = Vec::with_capacity(sentences.len());
    for part in sentences.chunks(PER_REQUEST) {
        let request = EmbedRequest {
            model: Some(model.to_owned()),
            inputs: part.iter().map(|text| Input::Text((*text).clone())).collect(),
            normalise: Some(true),
            truncate: Truncate::End,
            ..EmbedRequest::default()
        };
        vectors.extend(embedder.embed(request).await?.vectors);
        progress(vectors.len() as u64);
    }
    let cosines: Vec<f64> = vectors.chunks_exact(2).map(|pair| dot(&pair[0], &pair[1])).collect();
    let scores: Vec<f64> = pairs.iter().map(|pair| pair.score).collect();
    spearman(&cosines, &scores).ok_or_else(|| EvaluateError::TooFew(path.to_owned()))
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Pearson's correlation of the ranks; `None` if one side does not vary.
fn spearman(left: &[f64], right: &[f64]) -> Option<f64> {
    let (left, right) = (ranks(left), ranks(right));
    let mean = (left.len() as f64 + 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    let scale = (product(&left, &left) * product(&right, &right)).sqrt();
    (scale > 0.0).then(|| product(&left, &right) / scale)
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = start as f64 + (equal.len() as f64 + 1.0) / 2.0;
        equal.iter().for_each(|&index| ranks[index] = rank);
        start += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spearman_is_that_of_the_textbook() {
        // Ties share their mean rank: 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
        let tied = spearman(&[1.0, 2.0, 2.0, 9.0], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert!((tied - 0.948_683_298).abs() < 1e-9, "{tied}");
        assert_eq!(spearman(&[1.0, 5.0, 6.0], &[10.0, 20.0, 21.0]), Some(1.0));
        assert_eq!(spearman(&[3.0, 2.0, 1.0], &[10.0, 20.0, 21.0]), Some(-1.0));
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn pairs_are_read_with_quotes_and_a_header_and_a_bad_line_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sts.csv");
        std::fs::write(&file, "a,b,score\n\"one, two\",three,4.5\nfour,five,0\n").unwrap();
        let pairs = read_pairs(&file).unwrap();
        assert_eq!(pairs.len(), 2);
        assert_eq!(pairs[0], Pair { sentences: ["one, two".into(), "three".into()], score: 4.5 });
        std::fs::write(&file, "one,two,1\nthree,four,much\n").unwrap();
        let error = read_pairs(&file).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("`much` is no number"), "{error}");
    }
}
