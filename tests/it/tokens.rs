//! The tokens of a text are those that its tokenizer's library gives for the whole of it, then cut, however long and odd the text is.

mod served;

use std::fs;
use std::path::Path;

use sextant::tokenize::{InputError, Tokenizer, Truncate};

use crate::support::hostile;

/// A tokenizer of this project, with the library's own for the same file.
struct Pair {
    name: String,
    own: Tokenizer,
    library: tokenizers::Tokenizer,
    max_tokens: usize,
}

/// Tokens that are kept, special tokens around them.
const LIMITS: [usize; 3] = [5, 24, 130];

/// How many of the texts that were tried had how many tokens.
#[derive(Debug, Default)]
struct Seen {
    one_less: usize,
    exact: usize,
    one_more: usize,
    many: usize,
}

impl Pair {
    fn new(name: &str, file: &[u8], max_tokens: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        fs::write(&path, file).unwrap();
        let own = Tokenizer::load(&path, max_tokens).unwrap();
        let mut library = tokenizers::Tokenizer::from_bytes(file).unwrap();
        library.with_padding(None).with_truncation(None).unwrap();
        Self { name: name.to_owned(), own, library, max_tokens }
    }

    /// The special tokens before and behind a text.
    fn frame(&self) -> (Vec<u32>, Vec<u32>) {
        let ids = |special| self.library.encode_fast("a", special).unwrap().get_ids().to_vec();
        let (framed, bare) = (ids(true), ids(false));
        let start = framed.windows(bare.len()).position(|window| window == bare).unwrap();
        (framed[..start].to_vec(), framed[start + bare.len()..].to_vec())
    }

    /// Holds the ids of the text against the library's, for each way to cut.
    fn check(&self, text: &str, seen: &mut Seen) {
        let whole = self.library.encode_fast(text, false).unwrap().get_ids().to_vec();
        let (before, behind) = self.frame();
        let room = self.max_tokens - before.len() - behind.len();
        let too_many = whole.len() > room;
        match whole.len() {
            length if length + 1 == room => seen.one_less += 1,
            length if length == room => seen.exact += 1,
            length if length == room + 1 => seen.one_more += 1,
            length => seen.many += usize::from(length > 2 * room),
        }
        let expected = |kept: &[u32]| [&before, kept, &behind].concat();
        let at = || {
            let start: String = text.chars().take(60).collect();
            format!("{} of {}, {} tokens, {start:?}", self.name, self.max_tokens, whole.len())
        };
        for (truncate, kept) in [
            (Truncate::End, &whole[..whole.len().min(room)]),
            (Truncate::Start, &whole[whole.len().saturating_sub(room)..]),
        ] {
            match self.own.tokenize(text, truncate) {
                Ok(tokens) => {
                    assert!(tokens.ids[..] == expected(kept), "{truncate:?}: {}", at());
                    assert_eq!(tokens.cut > 0, too_many, "{truncate:?}: {}", at());
                }
                Err(error) => {
                    assert!(error == InputError::Empty && expected(kept).is_empty(), "{error}: {}", at())
                }
            }
        }
        match self.own.tokenize(text, Truncate::Error) {
            Ok(tokens) => assert!(!too_many && tokens.ids[..] == expected(&whole), "{}", at()),
            Err(InputError::Empty) => assert!(expected(&whole).is_empty(), "{}", at()),
            Err(error) => {
                assert!(too_many && matches!(error, InputError::TooLong { .. }), "{error}: {}", at());
            }
        }
    }

    /// The text's beginning that has about so many tokens.
    fn beginning<'a>(&self, text: &'a str, tokens: usize) -> &'a str {
        let encoding = self.library.encode(text, false).unwrap();
        let end =
            tokens.checked_sub(1).and_then(|last| encoding.get_offsets().get(last)).map(|place| place.1);
        end.map_or(text, |end| &text[..text.ceil_char_boundary(end)])
    }

    /// Tries so many texts, whole and cut to about as many tokens as are kept.
    fn check_texts(&self, count: u64, length: usize) -> Seen {
        let mut seen = Seen::default();
        for seed in 0..count {
            let text = hostile::text(seed, if seed % 50 == 0 { 8 * length } else { length });
            self.check(&text, &mut seen);
            for tokens in self.max_tokens.saturating_sub(4)..self.max_tokens + 2 {
                self.check(self.beginning(&text, tokens), &mut seen);
            }
        }
        seen
    }
}

fn read(name: &str) -> Vec<u8> {
    fs::read(Path::new("tests/data/tokenizers").join(name)).unwrap()
}

/// The three kinds: WordPiece with the vocabulary of all-MiniLM-L6-v2, byte-level BPE, and Unigram behind a table of characters.
fn kinds() -> [(&'static str, Vec<u8>); 3] {
    let wordpiece = fs::read(".sextant/weights/tokenizer.json").unwrap();
    [("wordpiece", wordpiece), ("byte-level", read("byte_level.json")), ("unigram", read("unigram.json"))]
}

#[test]
fn ids_of_hostile_texts_are_those_of_the_whole_text_then_cut() {
    for (name, file) in kinds() {
        for max_tokens in LIMITS {
            let seen = Pair::new(name, &file, max_tokens).check_texts(150, 1500);
            let least = seen.one_less.min(seen.exact).min(seen.one_more).min(seen.many);
            assert!(least >= 50, "{name} of {max_tokens}: {seen:?}");
        }
    }
}

/// Words as long as a text may be, at the limits of WordPiece's longest word and far beyond.
#[test]
fn long_words_are_tokenized_whole() {
    for (name, file) in kinds() {
        let pair = Pair::new(name, &file, 24);
        let mut seen = Seen::default();
        for length in [1, 2, 99, 100, 101, 383, 384, 385, 386, 1000, 5000] {
            for word in [
                "x".repeat(length),
                "aB3".repeat(length).chars().take(length).collect(),
                "\u{e9}".repeat(length),
            ] {
                pair.check(&word, &mut seen);
                pair.check(&format!("{word} {word} the house"), &mut seen);
                pair.check(&format!("the house {word}"), &mut seen);
            }
        }
        assert!(seen.many > 10, "{name}: {seen:?}");
    }
}

/// Of the library's own count of characters, which it makes from a map of each byte of the text.
#[test]
fn pieces_lie_where_the_library_says_in_characters() {
    for (name, file) in kinds() {
        let pair = Pair::new(name, &file, 24);
        let mut parts = 0;
        for seed in 0..300 {
            let text = hostile::text(seed, 300);
            let characters: Vec<char> = text.chars().collect();
            let encoding = pair.library.encode_char_offsets(&*text, true).unwrap();
            let pieces = pair.own.pieces(&text, true).unwrap();
            assert_eq!(pieces.len(), encoding.len(), "{name}: {text:?}");
            for (index, piece) in pieces.iter().enumerate() {
                assert_eq!(piece.id, encoding.get_ids()[index]);
                assert_eq!(piece.special, encoding.get_special_tokens_mask()[index] == 1);
                let Some(span) = &piece.span else { continue };
                let (start, end) = encoding.get_offsets()[index];
                assert_eq!(*span, start..end, "{name}: token {index} of {text:?}");
                assert_eq!(
                    piece.text,
                    characters[span.clone()].iter().collect::<String>(),
                    "{name}: {text:?}"
                );
                parts += usize::from(!piece.text.is_empty());
            }
        }
        assert!(parts > 10_000, "{name}: {parts}");
    }
}
