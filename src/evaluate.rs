//! Quality of a version: on labelled pairs, on retrieval with known answers, on texts as people mistype them; and of a version
//! against another, so that a silent regression is a number before it is an incident.

pub mod pairs;
mod perturb;
mod report;
pub mod retrieval;
mod statistics;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use thiserror::Error;

use crate::compare::{cosine, cross_overlap, dot, nearest};
use crate::embed::{EmbedError, EmbedRequest, Embedder, Input, Prompt};
use pairs::Pair;
use perturb::Perturbation;
pub use report::{Comparison, Figure, Report, Verdict};
use retrieval::Retrieval;
use statistics::{mean_at, paired_bootstrap, spearman_at};

/// Sentences embedded in one request: enough for full batches, few enough for a lively progress bar.
const PER_REQUEST: usize = 256;
/// Texts that are mistyped, and whose neighbours are compared: every one meets every other.
const MOST_TEXTS: usize = 1000;
/// Neighbours that are compared.
const NEIGHBOURS: usize = 10;
/// Texts that are named as the worst.
const WORST: usize = 10;

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
    /// A line is of another form.
    #[error("`{}`, line {line}: expected {expected}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What a line must be.
        expected: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// No figure without at least two items that differ.
    #[error("`{}` has too few items to compare", .0.display())]
    TooFew(PathBuf),
    /// The model failed.
    #[error(transparent)]
    Embed(#[from] EmbedError),
}

impl EvaluateError {
    fn unreadable(path: &Path, source: io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), source }
    }
}

/// What a version is measured on. At least one of them should be there.
#[derive(Debug, Default)]
pub struct Data {
    /// Labelled pairs, and the file they come from.
    pub pairs: Option<(PathBuf, Vec<Pair>)>,
    /// Queries and documents.
    pub retrieval: Option<Retrieval>,
    /// Texts without labels.
    pub texts: Vec<String>,
}

/// How sure a verdict must be.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// A figure may fall by so much before it is called worse.
    pub margin: f64,
    /// Resamples of the bootstrap.
    pub resamples: usize,
    /// Of the bootstrap and of the typing errors.
    pub seed: u64,
}

/// A version that is measured.
pub struct Subject {
    /// Serves it, and nothing else.
    pub embedder: Embedder,
    /// As `minilm@2`.
    pub id: String,
}

/// All vectors of one version, of unit length.
struct Vectors {
    /// First and second sentence of each pair.
    pairs: Vec<Vec<f32>>,
    queries: Vec<Vec<f32>>,
    documents: Vec<Vec<f32>>,
    texts: Vec<Vec<f32>>,
    /// Of the texts mistyped in each way, in the order of [`Perturbation::ALL`].
    mistyped: Vec<Vec<Vec<f32>>>,
}

impl Data {
    /// Texts to mistype and to compare: those given, else the sentences of the pairs, else the documents; no text twice.
    fn sample(&self) -> Vec<String> {
        let sentences = self.pairs.iter().flat_map(|(_, pairs)| pairs).flat_map(|pair| &pair.sentences);
        let documents = self.retrieval.iter().flat_map(|retrieval| &retrieval.documents);
        let all: Vec<&String> = if self.texts.is_empty() {
            let sentences: Vec<_> = sentences.collect();
            if sentences.is_empty() { documents.collect() } else { sentences }
        } else {
            self.texts.iter().collect()
        };
        let mut seen = HashSet::new();
        all.into_iter()
            .filter(|text| !text.trim().is_empty() && seen.insert(text.trim().to_lowercase()))
            .take(MOST_TEXTS)
            .cloned()
            .collect()
    }

    /// How many texts are embedded for each version.
    pub fn size(&self) -> u64 {
        let pairs = self.pairs.as_ref().map_or(0, |(_, pairs)| pairs.len() * 2);
        let retrieval = self.retrieval.as_ref();
        let retrieval = retrieval.map_or(0, |retrieval| retrieval.queries.len() + retrieval.documents.len());
        (pairs + retrieval + self.sample().len() * (1 + Perturbation::ALL.len())) as u64
    }
}

/// Measures `subject`, and where there is one, `against` on the same data. `progress` hears each time how many more texts are done.
///
/// # Errors
/// If a model fails, or the pairs' scores are all the same.
pub async fn evaluate(
    subject: &Subject,
    against: Option<&Subject>,
    data: &Data,
    method: Method,
    progress: impl Fn(u64),
) -> Result<Report, EvaluateError> {
    let sample = data.sample();
    let vectors = embed(subject, data, &sample, method.seed, &progress).await?;
    let other = match against {
        Some(against) => Some(embed(against, data, &sample, method.seed, &progress).await?),
        None => None,
    };
    let mut report = Report::new(&subject.id, against.map(|against| against.id.as_str()), method.margin);
    let sides = (&vectors, other.as_ref());
    if let Some((path, pairs)) = &data.pairs {
        let scores: Vec<f64> = pairs.iter().map(|pair| pair.score).collect();
        let cosines = |vectors: &Vectors| -> Vec<f64> {
            vectors.pairs.chunks_exact(2).map(|pair| dot(&pair[0], &pair[1])).collect()
        };
        let figure = figure("sts_spearman", pairs.len(), sides, method, cosines, |cosines, indices| {
            spearman_at(cosines, &scores, indices)
        });
        if figure.value.is_nan() {
            return Err(EvaluateError::TooFew(path.clone()));
        }
        report.figures.push(figure);
    }
    if let Some(retrieval) = &data.retrieval {
        let ndcg = |vectors: &Vectors| retrieval.ndcg(&vectors.queries, &vectors.documents);
        let count = retrieval.queries.len();
        report.figures.push(figure("retrieval_ndcg_at_10", count, sides, method, ndcg, mean_at));
    }
    if sample.len() > 1 {
        for (index, perturbation) in Perturbation::ALL.into_iter().enumerate() {
            let found = |vectors: &Vectors| found_again(&vectors.texts, &vectors.mistyped[index]);
            let name = perturbation.figure();
            report.figures.push(figure(name, sample.len(), sides, method, found, mean_at));
        }
        report.comparison = other.as_ref().map(|other| compare(&sample, &vectors.texts, &other.texts));
    }
    Ok(report)
}

/// A figure of one number an item; `of` makes those and `statistic` the figure of some of them.
fn figure(
    name: &'static str,
    items: usize,
    (subject, against): (&Vectors, Option<&Vectors>),
    method: Method,
    of: impl Fn(&Vectors) -> Vec<f64>,
    statistic: impl Fn(&[f64], &[usize]) -> f64 + Sync,
) -> Figure {
    let all: Vec<usize> = (0..items).collect();
    let mine = of(subject);
    let against = against.map(|against| {
        let theirs = of(against);
        let difference = |indices: &[usize]| statistic(&mine, indices) - statistic(&theirs, indices);
        let interval = paired_bootstrap(items, method.resamples, method.seed, difference);
        (statistic(&theirs, &all), interval)
    });
    Figure::new(name, items, statistic(&mine, &all), against, method.margin)
}

/// For each mistyped text 1 if its nearest text is the one it was made from, else 0.
fn found_again(texts: &[Vec<f32>], mistyped: &[Vec<f32>]) -> Vec<f64> {
    let none_is_left_out = texts.len();
    let found = |(index, query): (usize, &Vec<f32>)| {
        f64::from(u8::from(nearest(query, texts, none_is_left_out, 1).contains(&index)))
    };
    mistyped.par_iter().enumerate().map(found).collect()
}

/// The vectors of one version beside another one's of the same texts.
fn compare(texts: &[String], subject: &[Vec<f32>], against: &[Vec<f32>]) -> Comparison {
    let count = NEIGHBOURS.min(texts.len() - 1);
    let kept = |own: usize| {
        let before = nearest(&against[own], against, own, count);
        before.intersection(&nearest(&subject[own], subject, own, count)).count()
    };
    let kept: usize = (0..texts.len()).into_par_iter().map(kept).sum();
    let mut comparison = Comparison {
        texts: texts.len(),
        overlap_within: kept as f64 / (texts.len() * count) as f64,
        overlap_across: None,
        cosine_mean: None,
        worst: Vec::new(),
    };
    if subject[0].len() == against[0].len() {
        let cosines: Vec<f64> = subject.iter().zip(against).map(|(one, other)| cosine(one, other)).collect();
        comparison.overlap_across = Some(cross_overlap(against, subject, NEIGHBOURS));
        comparison.cosine_mean = Some(cosines.iter().sum::<f64>() / cosines.len() as f64);
        let mut worst: Vec<(f64, String)> = cosines.into_iter().zip(texts.iter().cloned()).collect();
        worst.sort_by(|left, right| left.0.total_cmp(&right.0));
        worst.truncate(WORST);
        comparison.worst = worst;
    }
    comparison
}

async fn embed(
    subject: &Subject,
    data: &Data,
    sample: &[String],
    seed: u64,
    progress: &impl Fn(u64),
) -> Result<Vectors, EvaluateError> {
    let all = async |texts: Vec<&String>, prompt: Prompt| -> Result<Vec<Vec<f32>>, EvaluateError> {
        let mut vectors = Vec::with_capacity(texts.len());
        for part in texts.chunks(PER_REQUEST) {
            let request = EmbedRequest {
                inputs: part.iter().map(|text| Input::Text((*text).clone())).collect(),
                prompt: prompt.clone(),
                normalise: Some(true),
                truncate: None,
                ..EmbedRequest::default()
            };
            let embedded = subject.embedder.embed(request).await?;
            vectors.extend(embedded.vectors.into_iter().map(Arc::unwrap_or_clone));
            progress(part.len() as u64);
        }
        Ok(vectors)
    };
    let sentences = data.pairs.iter().flat_map(|(_, pairs)| pairs).flat_map(|pair| &pair.sentences);
    let queries = data.retrieval.iter().flat_map(|retrieval| &retrieval.queries);
    let documents = data.retrieval.iter().flat_map(|retrieval| &retrieval.documents);
    let mut mistyped = Vec::new();
    for perturbation in Perturbation::ALL {
        let typed: Vec<String> =
            (seed..).zip(sample).map(|(seed, text)| perturbation.apply(text, seed)).collect();
        mistyped.push(all(typed.iter().collect(), Prompt::Default).await?);
    }
    Ok(Vectors {
        pairs: all(sentences.collect(), Prompt::Default).await?,
        queries: all(queries.collect(), Prompt::Query).await?,
        documents: all(documents.collect(), Prompt::Document).await?,
        texts: all(sample.iter().collect(), Prompt::Default).await?,
        mistyped,
    })
}
