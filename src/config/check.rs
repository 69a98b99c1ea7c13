//! Settings held against what they may be: all mistakes are told at once.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use super::Count;
use crate::batch::Limits;
use crate::engine::Asked;
use crate::keys::Keys;

/// Collects mistakes; what it returns beside one is never used, because the mistake ends in an error.
#[derive(Default)]
pub(super) struct Check {
    pub(super) mistakes: Vec<String>,
}

impl Check {
    pub(super) fn wrong<T: Default>(&mut self, name: &str, given: &str, expected: &str) -> T {
        self.mistakes.push(format!("`{name}` is `{given}`: expected {expected}"));
        T::default()
    }

    pub(super) fn missing(&mut self, name: &str, flag: &str) -> String {
        let variable = format!("SEXTANT_{}", name.to_uppercase());
        self.mistakes.push(format!("`{name}` is missing: give {flag}, {variable} or a line in the file"));
        String::new()
    }

    /// The keys of a file, or of the text of one.
    pub(super) fn keys(&mut self, file: Option<&Path>, text: Option<&str>) -> Keys {
        let read = match (file, text) {
            (None, None) => return Keys::default(),
            (Some(_), Some(_)) => Err("`keys_file` and `keys` are both given: which of them?".to_owned()),
            (Some(path), None) => {
                Keys::read(path).map_err(|error| format!("`keys_file` is `{}`: {error}", path.display()))
            }
            (None, Some(text)) => text.parse().map_err(|error| format!("`keys` (SEXTANT_KEYS): {error}")),
        };
        read.unwrap_or_else(|mistake| {
            self.mistakes.push(mistake);
            Keys::default()
        })
    }

    pub(super) fn device(&mut self, given: Option<&str>) -> Asked {
        given.map_or(Ok(Asked::Auto), str::parse).unwrap_or_else(|expected| {
            self.mistakes.push(format!("`device` is `{}`: {expected}", given.unwrap_or_default()));
            Asked::Auto
        })
    }

    pub(super) fn positive(&mut self, name: &str, given: Option<usize>, default: usize) -> NonZeroUsize {
        NonZeroUsize::new(given.unwrap_or(default)).unwrap_or_else(|| {
            self.mistakes.push(format!("`{name}` is `0`: expected at least 1"));
            NonZeroUsize::MIN
        })
    }

    /// What the queue may hold, and how it is shared.
    pub(super) fn limits(&mut self, queue_tokens: Option<usize>, bulk_share: Option<f64>) -> Limits {
        let default = Limits::default();
        let bulk_share = bulk_share.unwrap_or(default.bulk_share);
        if !(0.0..=0.5).contains(&bulk_share) {
            self.mistakes.push(format!("`bulk_share` is `{bulk_share}`: expected 0 to 0.5"));
        }
        let queue_tokens = self.positive("max_queue_tokens", queue_tokens, default.queue_tokens).get();
        Limits { queue_tokens, bulk_share, ..default }
    }

    /// A number that was given, `None` if it is to be measured.
    pub(super) fn count(&mut self, name: &str, given: Option<Count>) -> Option<NonZeroUsize> {
        match given {
            Some(Count::Of(count)) => Some(self.positive(name, Some(count), count)),
            Some(Count::Auto(_)) | None => None,
        }
    }

    pub(super) fn parse(&mut self, name: &str, given: Option<&str>, default: &str) -> SocketAddr {
        let text = given.unwrap_or(default);
        text.parse().unwrap_or_else(|_| {
            self.mistakes
                .push(format!("`{name}` is `{text}`: expected an address and a port, as 127.0.0.1:8080"));
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    pub(super) fn time(&mut self, name: &str, given: Option<&str>, default: &str) -> Duration {
        let text = given.unwrap_or(default);
        humantime::parse_duration(text).unwrap_or_else(|_| self.wrong(name, text, "a time, as 30s or 1m 30s"))
    }

    /// A time that is not 0.
    pub(super) fn period(&mut self, name: &str, given: Option<&str>, default: &str) -> Duration {
        let told = self.mistakes.len();
        let time = self.time(name, given, default);
        if time.is_zero() && self.mistakes.len() == told {
            return self.wrong(name, given.unwrap_or(default), "more than 0s");
        }
        time
    }
}
