//! Ids of ASCII texts by BERT's rules, without the library. That keeps for each character where it came from, through every step, and
//! makes a string of each token, which an embedding does not need: it takes 24 times as long for words of one token.
//!
//! In ASCII the rules are few: no accents to strip, no signs to set apart, one byte a character. What is not, or holds a token that was
//! added to the vocabulary, is the library's.

use std::collections::HashMap;

use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

/// How many times as fast as the library it counts: less than for words of one token, since others need more look-ups.
pub(super) const FASTER: usize = 16;

/// ASCII of many kinds among other texts: words, code, markup, numbers.
const SAMPLE: &str = include_str!("../import/texts/probe.txt");

/// A WordPiece vocabulary as far as it is ASCII.
pub(super) struct AsciiWordPiece {
    /// Pieces that a word may begin with.
    beginnings: HashMap<Box<[u8]>, u32>,
    /// Pieces that it may go on with, without the prefix that marks them in the vocabulary.
    continuations: HashMap<Box<[u8]>, u32>,
    /// Bytes of the longest of either.
    longest_piece: usize,
    /// Bytes of a word that is looked at; a longer one is unknown.
    longest_word: usize,
    unknown: u32,
    lowercase: bool,
    /// Found in a text before any rule is applied.
    added: Vec<String>,
}

impl AsciiWordPiece {
    /// The tokenizer's own rules; none if they are others than BERT's.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        let Some(NormalizerWrapper::BertNormalizer(normalizer)) = tokenizer.get_normalizer() else {
            return None;
        };
        let (Some(PreTokenizerWrapper::BertPreTokenizer(_)), ModelWrapper::WordPiece(model)) =
            (tokenizer.get_pre_tokenizer(), tokenizer.get_model())
        else {
            return None;
        };
        let added = tokenizer.get_added_tokens_decoder();
        // Those are found in the text as the rules leave it.
        if !normalizer.clean_text || added.values().any(|token| token.normalized) {
            return None;
        }
        let vocabulary = tokenizer.get_vocab(false);
        let unknown = *vocabulary.get(&model.unk_token)?;
        let mut beginnings: HashMap<Box<[u8]>, u32> = HashMap::new();
        let mut continuations: HashMap<Box<[u8]>, u32> = HashMap::new();
        for (piece, id) in vocabulary {
            let rest = piece.strip_prefix(&model.continuing_subword_prefix).filter(|rest| rest.is_ascii());
            if let Some(rest) = rest {
                continuations.insert(rest.as_bytes().into(), id);
            }
            if piece.is_ascii() {
                beginnings.insert(piece.into_bytes().into(), id);
            }
        }
        let longest_piece = beginnings.keys().chain(continuations.keys()).map(|piece| piece.len()).max()?;
        let own = Self {
            beginnings,
            continuations,
            longest_piece,
            longest_word: model.max_input_chars_per_word,
            unknown,
            lowercase: normalizer.lowercase,
            added: added.into_values().map(|token| token.content).collect(),
        };
        own.agrees_with(tokenizer).then_some(own)
    }

    /// Whether the ids are the library's, for the texts that versions are probed with: a tokenizer that knows a rule which is not looked at
    /// above is left to it.
    fn agrees_with(&self, tokenizer: &tokenizers::Tokenizer) -> bool {
        let other = SAMPLE.lines().filter(|text| self.takes(text)).find(|text| {
            !tokenizer.encode_fast(*text, false).is_ok_and(|encoding| encoding.get_ids() == self.ids(text))
        });
        if let Some(text) = other {
            tracing::warn!(text, "the tokenizer has rules of its own: it is slower than it could be");
        }
        other.is_none()
    }

    /// Whether the text is not the library's.
    pub(super) fn takes(&self, text: &str) -> bool {
        text.is_ascii() && !self.added.iter().any(|token| text.contains(token.as_str()))
    }

    /// The ids of a text that it takes, without special tokens.
    pub(super) fn ids(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        let mut word = Vec::new();
        for byte in text.bytes() {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.end(&mut word, &mut ids),
                // Taken out of the middle of a word, too.
                _ if byte.is_ascii_control() => {}
                _ if byte.is_ascii_punctuation() => {
                    self.end(&mut word, &mut ids);
                    self.pieces(&[byte], &mut ids);
                }
                _ if self.lowercase => word.push(byte.to_ascii_lowercase()),
                _ => word.push(byte),
            }
        }
        self.end(&mut word, &mut ids);
        ids
    }

    /// The word is whole.
    fn end(&self, word: &mut Vec<u8>, ids: &mut Vec<u32>) {
        self.pieces(word, ids);
        word.clear();
    }

    /// The longest piece that the word begins with, then the longest that what is left of it goes on with, and so on. Of a word with a
    /// part that is no piece, the unknown token alone.
    fn pieces(&self, word: &[u8], ids: &mut Vec<u32>) {
        let (before, mut start) = (ids.len(), 0);
        while start < word.len() {
            let pieces = if start == 0 { &self.beginnings } else { &self.continuations };
            let most = word.len().min(start + self.longest_piece);
            let longest =
                (start + 1..=most).rev().find_map(|end| Some((end, *pieces.get(&word[start..end])?)));
            let Some((end, id)) = longest.filter(|_| word.len() <= self.longest_word) else {
                ids.truncate(before);
                ids.push(self.unknown);
                return;
            };
            ids.push(id);
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn tokenizer(change: impl FnOnce(&mut Value)) -> tokenizers::Tokenizer {
        let pieces = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "##",
            "a",
            "b",
            "ab",
            "abc",
            "c",
            "A",
            "B",
            "AB",
            "##a",
            "##b",
            "##ab",
            "##c",
            "##A",
            "##AB",
            ".",
            "-",
            "#",
            "[",
            "]",
            "'",
            "1",
            "##1",
            "caf\u{e9}",
            "##\u{e9}",
        ];
        let vocabulary: serde_json::Map<String, Value> =
            pieces.iter().zip(0..).map(|(piece, id): (_, u32)| ((*piece).to_owned(), id.into())).collect();
        let added = |id: u32, content: &str| {
            json!({
                "id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false
            })
        };
        let mut file = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [added(0, "[PAD]"), added(1, "[UNK]"), added(2, "[CLS]")],
            "normalizer": {
                "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
                "lowercase": true
            },
            "pre_tokenizer": { "type": "BertPreTokenizer" },
            "post_processor": null,
            "decoder": null,
            "model": {
                "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 12, "vocab": vocabulary
            }
        });
        change(&mut file);
        tokenizers::Tokenizer::from_bytes(file.to_string()).unwrap()
    }

    /// Words of pieces and of what is none, with everything between them that ASCII has.
    fn text() -> impl Strategy<Value = String> {
        // Around the longest word that is looked at, and far beyond.
        let long = prop_oneof![Just(199..=202_usize), Just(1..=5000)].prop_flat_map(|length| {
            (length, "[abcAB]{1,3}").prop_map(|(length, part)| part.chars().cycle().take(length).collect())
        });
        let word = prop_oneof![20 => "[abcAB1]{1,14}", 1 => long];
        let between = prop_oneof![4 => " ", 2 => "[ .#'\\[\\]-]{1,3}", 1 => "[\\x00-\\x7f]{1,3}"];
        let added = prop_oneof![30 => "", 1 => "\\[CLS\\]", 1 => "\\[unk\\]"];
        prop::collection::vec((word, between, added), 0..12).prop_map(|parts| {
            parts.into_iter().map(|(word, between, added)| word + &between + &added).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn ids_are_the_librarys(text in text(), lowercase: bool, strip_accents: Option<bool>, longest in prop_oneof![Just(12), Just(200)]) {
            let tokenizer = tokenizer(|file| {
                file["model"]["max_input_chars_per_word"] = longest.into();
                file["normalizer"]["lowercase"] = lowercase.into();
                file["normalizer"]["strip_accents"] = json!(strip_accents);
            });
            let ascii = AsciiWordPiece::of(&tokenizer).unwrap();
            prop_assert_eq!(ascii.takes(&text), !["[PAD]", "[UNK]", "[CLS]"].iter().any(|token| text.contains(token)));
            if ascii.takes(&text) {
                let encoding = tokenizer.encode_fast(text.as_str(), false).unwrap();
                prop_assert_eq!(&ascii.ids(&text), encoding.get_ids());
            }
        }
    }

    #[test]
    fn what_is_not_ascii_or_not_by_these_rules_is_the_librarys() {
        let own = |change: fn(&mut Value)| AsciiWordPiece::of(&tokenizer(change));
        assert!(!own(|_| ()).unwrap().takes("caf\u{e9}"));
        assert!(own(|file| file["normalizer"]["clean_text"] = false.into()).is_none());
        assert!(own(|file| file["normalizer"] = json!({ "type": "Lowercase" })).is_none());
        assert!(own(|file| file["pre_tokenizer"] = json!({ "type": "Whitespace" })).is_none());
        assert!(own(|file| file["added_tokens"][2]["normalized"] = true.into()).is_none());
    }

    #[test]
    fn one_that_gives_other_ids_is_the_librarys() {
        let mut own = AsciiWordPiece::of(&tokenizer(|_| ())).unwrap();
        assert!(own.agrees_with(&tokenizer(|_| ())));
        own.lowercase = false;
        assert!(!own.agrees_with(&tokenizer(|_| ())));
    }
}
