//! Labelled pairs: two sentences, and how alike people found them.

use std::path::Path;

use super::EvaluateError;

/// Two sentences and how alike people found them.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The two sentences.
    pub sentences: [String; 2],
    /// Any scale, more is more alike.
    pub score: f64,
}

/// Reads pairs from a CSV file of `sentence1,sentence2,score`, with or without a header.
///
/// # Errors
/// If the file cannot be read, a line is of another form, or there are fewer than two pairs.
pub fn read_pairs(path: &Path) -> Result<Vec<Pair>, EvaluateError> {
    let text = std::fs::read(path).map_err(|source| EvaluateError::unreadable(path, source))?;
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_slice());
    let mut pairs = Vec::new();
    for (index, record) in reader.records().enumerate() {
        let malformed = |line, reason: String| EvaluateError::Malformed {
            path: path.to_owned(),
            line,
            expected: "sentence1,sentence2,score",
            reason,
        };
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

#[cfg(test)]
mod tests {
    use super::*;

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
