//! Retrieval with known answers: queries, documents, and which documents people found relevant to which query.
//!
//! The layout is BEIR's: `corpus.jsonl` and `queries.jsonl` with `_id` and `text` (and for documents perhaps `title`), and
//! `qrels/test.tsv` or `qrels.tsv` with a header and lines of `query-id`, `corpus-id`, `score`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;

use super::EvaluateError;
use crate::compare::dot;

/// Documents that are looked at for each query.
pub const DEPTH: usize = 10;

/// Queries, documents, and the grades of some documents for each query.
#[derive(Debug, Clone, PartialEq)]
pub struct Retrieval {
    /// In the file's order; only those with a relevant document.
    pub queries: Vec<String>,
    /// In the file's order; the title before the text.
    pub documents: Vec<String>,
    /// For each query its relevant documents, as indices, with their grades above 0.
    relevant: Vec<HashMap<usize, f64>>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    title: String,
    text: String,
}

impl Retrieval {
    /// Reads the three files in `directory`.
    ///
    /// # Errors
    /// If one cannot be read, a line is of another form or names what is not there, or no query has a relevant document.
    pub fn read(directory: &Path) -> Result<Self, EvaluateError> {
        let documents = lines(&directory.join("corpus.jsonl"))?;
        let queries = lines(&directory.join("queries.jsonl"))?;
        let within = directory.join("qrels").join("test.tsv");
        let path = if within.is_file() { within } else { directory.join("qrels.tsv") };
        let index = |lines: &[(String, String)]| -> HashMap<String, usize> {
            lines.iter().enumerate().map(|(index, (id, _))| (id.clone(), index)).collect()
        };
        let (document_of, query_of) = (index(&documents), index(&queries));
        let mut relevant = vec![HashMap::new(); queries.len()];
        for (line, content) in (1..).zip(read(&path)?.lines()).skip(1) {
            let malformed = |reason: String| EvaluateError::Malformed {
                path: path.clone(),
                line,
                expected: "query-id, corpus-id and score, parted by tabs",
                reason,
            };
            let [query, document, grade] = content.split('\t').collect::<Vec<_>>()[..] else {
                return Err(malformed(format!("`{content}` is another")));
            };
            let unknown = |id: &str| malformed(format!("`{id}` is in no other file"));
            let query = *query_of.get(query).ok_or_else(|| unknown(query))?;
            let document = *document_of.get(document).ok_or_else(|| unknown(document))?;
            let grade: f64 =
                grade.trim().parse().map_err(|_| malformed(format!("`{grade}` is no number")))?;
            if grade > 0.0 {
                relevant[query].insert(document, grade);
            }
        }
        let judged = queries.into_iter().zip(relevant).filter(|(_, relevant)| !relevant.is_empty());
        let (queries, relevant): (Vec<_>, Vec<_>) = judged.map(|((_, text), grades)| (text, grades)).unzip();
        if queries.len() < 2 {
            return Err(EvaluateError::TooFew(path));
        }
        Ok(Self { queries, documents: documents.into_iter().map(|(_, text)| text).collect(), relevant })
    }

    /// The normalised discounted cumulative gain of the first ten documents, for each query, 0 to 1. Vectors are of unit length
    /// and in the order of [`Retrieval::queries`] and [`Retrieval::documents`].
    ///
    /// The gain is the grade itself and the discount log2(rank + 1), as trec_eval and BEIR have it.
    pub fn ndcg(&self, queries: &[Vec<f32>], documents: &[Vec<f32>]) -> Vec<f64> {
        let of = |(query, relevant): (&Vec<f32>, &HashMap<usize, f64>)| {
            let mut ranked: Vec<(f64, usize)> =
                documents.iter().enumerate().map(|(index, document)| (dot(query, document), index)).collect();
            let better = |a: &(f64, usize), b: &(f64, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
            if ranked.len() > DEPTH {
                ranked.select_nth_unstable_by(DEPTH, better);
                ranked.truncate(DEPTH);
            }
            ranked.sort_by(better);
            let found = ranked.iter().map(|(_, index)| relevant.get(index).copied().unwrap_or(0.0));
            let mut best: Vec<f64> = relevant.values().copied().collect();
            best.sort_by(|a, b| b.total_cmp(a));
            discounted(found) / discounted(best.into_iter().take(DEPTH))
        };
        queries.par_iter().zip(&self.relevant).map(of).collect()
    }
}

/// The gains, less the lower they stand.
fn discounted(gains: impl Iterator<Item = f64>) -> f64 {
    gains.zip(2_u32..).map(|(gain, place)| gain / f64::from(place).log2()).sum()
}

fn read(path: &Path) -> Result<String, EvaluateError> {
    std::fs::read_to_string(path).map_err(|source| EvaluateError::unreadable(path, source))
}

/// Identifiers and texts.
fn lines(path: &Path) -> Result<Vec<(String, String)>, EvaluateError> {
    let malformed = |line, error: serde_json::Error| EvaluateError::Malformed {
        path: PathBuf::from(path),
        line,
        expected: "a JSON object with `_id` and `text`",
        reason: error.to_string(),
    };
    let text = read(path)?;
    let filled = (1..).zip(text.lines()).filter(|(_, content)| !content.trim().is_empty());
    filled
        .map(|(line, content)| {
            let Line { id, title, text } =
                serde_json::from_str(content).map_err(|error| malformed(line, error))?;
            Ok((id, if title.is_empty() { text } else { format!("{title} {text}") }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(qrels: &str) -> (tempfile::TempDir, Result<Retrieval, EvaluateError>) {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write(
            "corpus.jsonl",
            "{\"_id\":\"d1\",\"title\":\"T\",\"text\":\"one\"}\n{\"_id\":\"d2\",\"text\":\"two\"}\n",
        );
        write(
            "queries.jsonl",
            "{\"_id\":\"q1\",\"text\":\"a\"}\n\n{\"_id\":\"q2\",\"text\":\"b\"}\n{\"_id\":\"q3\",\"text\":\"c\"}\n",
        );
        write("qrels.tsv", qrels);
        let read = Retrieval::read(directory.path());
        (directory, read)
    }

    #[test]
    fn gains_are_discounted_and_normalised_as_by_hand() {
        let (_directory, read) =
            written("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t2\nq2\td2\t1\nq3\td1\t0\n");
        let read = read.unwrap();
        assert_eq!(read.queries, ["a", "b"], "the third has no relevant document");
        assert_eq!(read.documents, ["T one", "two"]);
        let documents = [vec![1.0, 0.0], vec![0.0, 1.0]];
        // The first query finds d1 (grade 1) before d2 (grade 2); the second its only document first.
        let ndcg = read.ndcg(&[vec![1.0, 0.0], vec![0.0, 1.0]], &documents);
        let log = 3.0_f64.log2();
        assert!((ndcg[0] - (1.0 + 2.0 / log) / (2.0 + 1.0 / log)).abs() < 1e-12, "{ndcg:?}");
        assert_eq!(ndcg[1], 1.0);
    }

    #[test]
    fn what_a_line_names_must_be_there() {
        let (_directory, read) = written("query-id\tcorpus-id\tscore\nq1\td9\t1\n");
        let error = read.unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("`d9`"), "{error}");
    }
}
