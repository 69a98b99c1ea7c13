//! The texts to send, from a file.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// Why a file gives no texts.
#[derive(Debug, Error)]
pub enum InputFileError {
    /// The file cannot be read, or is not UTF-8.
    #[error("cannot read `{}`: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A line of JSON that holds no text.
    #[error("`{}`, line {line}: expected a JSON object with a string `text`: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: serde_json::Error,
    },
    /// No line has a text.
    #[error("`{}` has no texts", .0.display())]
    Empty(PathBuf),
}

#[derive(Deserialize)]
struct Line {
    text: String,
}

/// Reads one text a line, or, if the first line is a JSON object with a `text`, one such object a line. Lines and texts
/// without any content are left out: servers refuse them.
///
/// # Errors
/// If the file cannot be read, a line of JSON has no `text`, or there is no text at all.
pub fn read_texts(path: &Path) -> Result<Vec<String>, InputFileError> {
    let content = std::fs::read_to_string(path)
        .map_err(|source| InputFileError::Unreadable { path: path.to_owned(), source })?;
    let lines: Vec<(usize, &str)> =
        (1..).zip(content.lines()).filter(|(_, line)| !line.trim().is_empty()).collect();
    let json = lines.first().is_some_and(|(_, line)| serde_json::from_str::<Line>(line).is_ok());
    let mut texts = Vec::with_capacity(lines.len());
    for (line, content) in lines {
        let text = if json {
            let malformed = |reason| InputFileError::Malformed { path: path.to_owned(), line, reason };
            serde_json::from_str::<Line>(content).map_err(malformed)?.text
        } else {
            content.to_owned()
        };
        if !text.trim().is_empty() {
            texts.push(text);
        }
    }
    if texts.is_empty() { Err(InputFileError::Empty(path.to_owned())) } else { Ok(texts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str) -> Result<Vec<String>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        read_texts(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_text_a_line_blank_ones_left_out() {
        assert_eq!(read("one two\n\n  \r\nthree\r\n").unwrap(), ["one two", "three"]);
        assert_eq!(read("{ is no JSON\nx").unwrap(), ["{ is no JSON", "x"]);
    }

    #[test]
    fn lines_of_json_give_their_text() {
        let json = "{\"id\": 1, \"text\": \"a\\nb\"}\n\n{\"text\": \"\"}\n{\"text\": \"c\"}\n";
        assert_eq!(read(json).unwrap(), ["a\nb", "c"]);
        let error = read("{\"text\": \"a\"}\n\n{\"txt\": \"b\"}\n").unwrap_err();
        assert!(error.contains("line 3") && error.contains("missing field `text`"), "{error}");
    }

    #[test]
    fn a_file_without_texts_is_an_error() {
        assert!(read("\n \n").unwrap_err().ends_with("has no texts"));
        assert!(read_texts(Path::new("no/such/file")).unwrap_err().to_string().contains("no/such/file"));
    }
}
