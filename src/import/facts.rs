//! What an import took from a checkpoint's files, and what of them it does not understand: told when it ends, and kept in the card.

/// Collected while the files are read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Facts {
    /// A setting and the file and key, or the flag, that it came from.
    taken: Vec<(String, String)>,
    /// Keys that no rule here knows; they may shape nothing.
    not_understood: Vec<String>,
}

impl Facts {
    /// `what` came from `key` of the file `from`.
    pub(super) fn took(&mut self, what: impl Into<String>, from: &str, key: &str) {
        let from = if key.is_empty() { from.to_owned() } else { format!("{from}, {key}") };
        self.taken.push((what.into(), from));
    }

    pub(super) fn not_understood(&mut self, what: impl Into<String>) {
        self.not_understood.push(what.into());
    }

    /// The settings, a line each, with where they came from.
    pub fn taken(&self) -> Vec<String> {
        self.taken.iter().map(|(what, from)| format!("{what} ({from})")).collect()
    }

    /// What is listed and not obeyed, a line each.
    pub fn left_out(&self) -> &[String] {
        &self.not_understood
    }
}
