//! A recorded stream of texts or vectors, from a file.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use chrono::DateTime;
use serde::Deserialize;
use thiserror::Error;

use super::sampling::KEY_SECONDS;

/// Why a file is no stream.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The file cannot be read, or is not UTF-8.
    #[error("cannot read `{}`: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A line of JSON that is no item.
    #[error("`{}`, line {line}: expected a JSON object with `text` or `vector`: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// Nothing in it.
    #[error("`{}` has no texts and no vectors", .0.display())]
    Empty(PathBuf),
}

/// What stands in a line.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// To be embedded.
    Text(String),
    /// Embedded already.
    Vector(Vec<f32>),
}

/// One item of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Where it stands in the file, counted from 1.
    pub line: u64,
    /// A text or a vector.
    pub content: Content,
    /// Whoever sent it, or the conversation: of each only one item counts.
    pub session: Option<String>,
    /// Seconds since 1970.
    pub time: Option<f64>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    vector: Option<Vec<f32>>,
    #[serde(default)]
    session: Option<Key>,
    #[serde(default)]
    time: Option<Time>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected `session` to be a string or a number")]
enum Key {
    Number(i64),
    Name(String),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected `time` in seconds since 1970 or as RFC 3339")]
enum Time {
    Seconds(f64),
    Text(String),
}

/// Reads one text a line, or, if the first line is a JSON object, one object a line: `text` or `vector`, and if known `session` and
/// `time`. Sorted by time where every item has one. Lines and texts without any content are left out.
///
/// # Errors
/// If the file cannot be read, a line of JSON is no item, or there is none at all.
pub fn read(path: &Path) -> Result<Vec<Item>, StreamError> {
    let file = std::fs::read_to_string(path)
        .map_err(|source| StreamError::Unreadable { path: path.to_owned(), source })?;
    let lines: Vec<_> = (1..).zip(file.lines()).filter(|(_, line)| !line.trim().is_empty()).collect();
    let is_json = |line: &str| serde_json::from_str::<serde_json::Map<_, _>>(line).is_ok();
    let json = lines.first().is_some_and(|(_, line)| is_json(line));
    let mut items = Vec::with_capacity(lines.len());
    for (line, content) in lines {
        if json {
            let malformed = |reason| StreamError::Malformed { path: path.to_owned(), line, reason };
            items.push(parse(line, content).map_err(malformed)?);
        } else {
            items.push(Item { line, content: Content::Text(content.to_owned()), session: None, time: None });
        }
    }
    items.retain(|item| !matches!(&item.content, Content::Text(text) if text.trim().is_empty()));
    if items.iter().all(|item| item.time.is_some()) {
        items.sort_by(|left, right| {
            let time = |item: &Item| item.time.unwrap_or_default();
            time(left).total_cmp(&time(right))
        });
    }
    if items.is_empty() { Err(StreamError::Empty(path.to_owned())) } else { Ok(items) }
}

fn parse(line: u64, content: &str) -> Result<Item, String> {
    let Line { text, vector, session, time } =
        serde_json::from_str(content).map_err(|error| error.to_string())?;
    let content = match (text, vector) {
        (Some(text), None) => Content::Text(text),
        (None, Some(vector)) => Content::Vector(vector),
        (Some(_), Some(_)) => return Err("it has both".to_owned()),
        (None, None) => return Err("it has neither".to_owned()),
    };
    let session = session.map(|session| match session {
        Key::Number(number) => number.to_string(),
        Key::Name(name) => name,
    });
    let time = match time {
        None => None,
        Some(Time::Seconds(seconds)) => Some(seconds).filter(|seconds| seconds.is_finite()),
        Some(Time::Text(text)) => {
            let time = DateTime::parse_from_rfc3339(&text).map_err(|error| format!("`time`: {error}"))?;
            Some(time.timestamp_micros() as f64 / 1e6)
        }
    };
    Ok(Item { line, content, session, time })
}

/// The items that count: of each session the first, and with times another one when [`KEY_SECONDS`] have passed, as a server takes
/// them.
pub fn one_of_each_session(items: Vec<Item>) -> Vec<Item> {
    let mut counted: HashMap<String, Option<f64>> = HashMap::new();
    let counts = |item: &Item| {
        let Some(session) = &item.session else { return true };
        let lately = match (counted.get(session), item.time) {
            (Some(Some(before)), Some(now)) => now - before < KEY_SECONDS as f64,
            (before, _) => before.is_some(),
        };
        if !lately {
            counted.insert(session.clone(), item.time);
        }
        !lately
    };
    items.into_iter().filter(counts).collect()
}

/// Items a second, if they have times and these differ.
pub fn rate(items: &[Item]) -> Option<f64> {
    let took = items.last()?.time? - items.first()?.time?;
    (took > 0.0).then(|| items.len() as f64 / took)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(content: &str) -> Result<Vec<Item>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        read(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn items_come_in_the_order_of_time_and_one_of_each_session_counts() {
        let items = read_text(
            "{\"text\": \"b\", \"session\": 7, \"time\": \"2026-01-01T01:00:04+01:00\", \"id\": 9}\n\n\
             {\"text\": \"a\", \"session\": \"7\", \"time\": 1767225602}\n\
             {\"vector\": [1, 2.5], \"time\": 1767225606.5}\n{\"text\": \" \", \"time\": 1}\n",
        );
        let items = items.unwrap();
        assert_eq!(items.iter().map(|item| item.line).collect::<Vec<_>>(), [3, 1, 4]);
        assert_eq!(rate(&items), Some(3.0 / 4.5));
        let counting = one_of_each_session(items);
        let contents: Vec<_> = counting.into_iter().map(|item| item.content).collect();
        assert_eq!(contents, [Content::Text("a".to_owned()), Content::Vector(vec![1.0, 2.5])]);

        let at = |time: Option<f64>| Item {
            line: 1,
            content: Content::Text("a".into()),
            session: Some("s".into()),
            time,
        };
        let counting =
            |times: &[Option<f64>]| one_of_each_session(times.iter().map(|time| at(*time)).collect()).len();
        assert_eq!(counting(&[0.0, 30.0, 59.0, 61.0, 100.0, 122.0].map(Some)), 3);
        assert_eq!(counting(&[None; 5]), 1);
    }

    #[test]
    fn plain_lines_are_texts_and_wrong_ones_are_named() {
        let items = read_text("one\n\n{ no json\n").unwrap();
        assert_eq!((items[1].line, items[1].content.clone()), (3, Content::Text("{ no json".to_owned())));
        for (wrong, named) in [
            ("{\"txt\": \"a\"}", "line 1"),
            ("{\"text\": \"a\"}\nplain", "line 2"),
            ("{\"text\": \"a\", \"vector\": [1]}", "has both"),
            ("{\"session\": 1}", "has neither"),
            ("{\"text\": \"a\", \"time\": \"noon\"}", "`time`"),
            ("{\"text\": \"\"}", "no texts and no vectors"),
        ] {
            assert!(read_text(wrong).unwrap_err().contains(named), "{wrong}");
        }
    }
}
