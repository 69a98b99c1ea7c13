//! Texts as people mistype them.

use serde::Serialize;

/// What is done to a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Perturbation {
    /// In one word of eight, but at least in one, two neighbouring letters change places.
    Typos,
    /// All letters are capitals.
    Case,
    /// White space at both ends, and more of it between words.
    WhiteSpace,
}

impl Perturbation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Typos, Self::Case, Self::WhiteSpace];

    /// The name of the figure that it gives.
    pub fn figure(self) -> &'static str {
        match self {
            Self::Typos => "self_retrieval_typos",
            Self::Case => "self_retrieval_case",
            Self::WhiteSpace => "self_retrieval_white_space",
        }
    }

    /// The text with it; the same for the same seed.
    pub fn apply(self, text: &str, seed: u64) -> String {
        match self {
            Self::Case => text.to_uppercase(),
            Self::WhiteSpace => format!("  {} \n", text.split_whitespace().collect::<Vec<_>>().join(" \t ")),
            Self::Typos => {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
                let long: Vec<usize> =
                    (0..words.len()).filter(|&index| words[index].chars().count() > 3).collect();
                let count = (words.len() / 8).max(1);
                for index in random.choose_multiple(long, count) {
                    let mut letters: Vec<char> = words[index].chars().collect();
                    // Not the first: people rarely mistype it.
                    let at = random.usize(1..letters.len() - 1);
                    letters.swap(at, at + 1);
                    words[index] = letters.into_iter().collect();
                }
                words.join(" ")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_change_places_and_nothing_is_lost() {
        let text = "the quick brown fox jumps over the lazy dog";
        let typed = Perturbation::Typos.apply(text, 3);
        assert_ne!(typed, text);
        assert_eq!(typed, Perturbation::Typos.apply(text, 3));
        let sorted = |text: &str| {
            let mut letters: Vec<char> = text.chars().collect();
            letters.sort_unstable();
            letters
        };
        assert_eq!(sorted(&typed), sorted(text));
        assert_eq!(Perturbation::Typos.apply("a b", 3), "a b", "no word is long enough");
        assert_eq!(Perturbation::Case.apply("Straße", 0), "STRASSE");
        assert_eq!(Perturbation::WhiteSpace.apply("a  b", 0), "  a \t b \n");
    }
}
