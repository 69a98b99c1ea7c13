//! Text to token ids, with what was cut off and what the vocabulary does not know; token ids checked.

mod ascii;
mod early_stop;
mod growth;

use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::drift::inputs::InputFacts;
use crate::files::read_whole;
use ascii::AsciiWordPiece;
pub(crate) use growth::check as check_growth;

/// What happens to an input of more than `max_tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Truncate {
    /// The end is cut off.
    #[default]
    End,
    /// The start is cut off.
    Start,
    /// The request is refused.
    Error,
}

/// Why a tokenizer file cannot be used.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// Not a tokenizer in the `tokenizers` format.
    #[error("`{path}` is not a usable tokenizer: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// The library's reason.
        reason: String,
    },
    /// The special tokens alone are as long as an input may be.
    #[error("max_tokens is {max_tokens}, and the tokenizer adds {added} special tokens to every input")]
    NoRoom {
        /// The longest input.
        max_tokens: usize,
        /// Special tokens around every input.
        added: usize,
    },
}

/// Why an input cannot be tokenized.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InputError {
    /// More tokens than the model takes, and the caller asked not to cut.
    #[error(
        "the input has {tokens} tokens or more and the model takes {max_tokens}; shorten it, or allow truncation"
    )]
    TooLong {
        /// Tokens of the input, special tokens included; of a long one, as many as were looked at.
        tokens: usize,
        /// The longest input.
        max_tokens: usize,
    },
    /// A text that no cutting makes reasonable.
    #[error("the input has {bytes} bytes, at most {most} are taken")]
    TooLarge {
        /// Of the text.
        bytes: usize,
        /// Allowed.
        most: usize,
    },
    /// A prompt was asked for, and the input is a token array.
    #[error("a prompt cannot be put before a token array: put its tokens into the array, or send text")]
    PromptBeforeIds,
    /// No tokens, and the tokenizer adds none.
    #[error("the input is empty")]
    Empty,
    /// A token id that this model's vocabulary does not have.
    #[error(
        "token id {id} is out of range: this model has {vocabulary} tokens. Token arrays must come from this model's own \
         tokenizer (POST /tokenize); LangChain sends another tokenizer's unless check_embedding_ctx_length=False"
    )]
    OutOfRange {
        /// The id.
        id: i64,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// A token array without this tokenizer's special tokens around it.
    #[error(
        "the token array is not framed by this model's special tokens ({frame}), so it comes from another tokenizer. Send \
         the ids that POST /tokenize returns, or text; LangChain sends another tokenizer's ids unless \
         check_embedding_ctx_length=False"
    )]
    Unframed {
        /// How a token array must begin and end.
        frame: String,
    },
    /// The tokenizer itself failed.
    #[error("the tokenizer failed: {0}")]
    Failed(String),
}

/// The token ids of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Special tokens included.
    pub ids: Arc<[u32]>,
    /// How many tokens were cut off, of those that were looked at; 0 only if none.
    pub cut: usize,
    /// How many tokens are the unknown token.
    pub unknown: usize,
}

impl Tokens {
    /// What there is to know of the input.
    pub fn facts(&self) -> InputFacts {
        InputFacts { tokens: self.ids.len(), truncated: self.cut > 0, unknown: self.unknown > 0 }
    }
}

/// One token of a text, as `/tokenize` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The token's id.
    pub id: u32,
    /// The part of the text that it stands for, as it stands there; of a special token the vocabulary's name for it.
    pub text: String,
    /// Added by the tokenizer, not part of the text.
    pub special: bool,
    /// Where in the text, in characters; `None` for special tokens.
    pub span: Option<Range<usize>>,
}

/// A model's tokenizer. Its file's own padding and truncation are not used: they are fixed at export and silent.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Where the rules are BERT's.
    ascii: Option<AsciiWordPiece>,
    /// Whether a text may be cut between words: see [`early_stop`].
    words_apart: bool,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    unknown: Option<u32>,
    vocabulary: usize,
    max_tokens: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// If the file is no tokenizer, or leaves no room for text in `max_tokens`.
    pub fn load(path: &Path, max_tokens: usize) -> Result<Self, TokenizerError> {
        let unreadable = |reason: tokenizers::Error| TokenizerError::Unreadable {
            path: path.display().to_string(),
            reason: reason.to_string(),
        };
        let file = read_whole(path, MOST_BYTES).map_err(|error| unreadable(error.into()))?;
        Self::read(&file, max_tokens, unreadable)
    }

    pub(crate) fn read(
        file: &[u8],
        max_tokens: usize,
        unreadable: impl Fn(tokenizers::Error) -> TokenizerError,
    ) -> Result<Self, TokenizerError> {
        // On some files that are none the library panics, which must end neither an import nor a load without a word.
        let read =
            panic::catch_unwind(AssertUnwindSafe(|| Self::read_unguarded(file, max_tokens, &unreadable)));
        read.unwrap_or_else(|_| Err(unreadable("the tokenizers library panics on it".into())))
    }

    fn read_unguarded(
        file: &[u8],
        max_tokens: usize,
        unreadable: impl Fn(tokenizers::Error) -> TokenizerError,
    ) -> Result<Self, TokenizerError> {
        let mut inner = tokenizers::Tokenizer::from_bytes(file).map_err(&unreadable)?;
        inner.with_padding(None).with_truncation(None).map_err(&unreadable)?;
        // Before it sees a text.
        check_growth(&inner).map_err(|reason| unreadable(reason.into()))?;
        let (prefix, suffix) = frame_of(&inner).map_err(&unreadable)?;
        let added = prefix.len() + suffix.len();
        if added >= max_tokens {
            return Err(TokenizerError::NoRoom { max_tokens, added });
        }
        // Byte-level and unigram models name theirs in the file only.
        let unknown = ["[UNK]", "<unk>", "UNK"].iter().find_map(|token| inner.token_to_id(token));
        let highest = inner.get_vocab(true).into_values().max();
        let vocabulary = highest.map_or(0, |highest| highest as usize + 1);
        let ascii = AsciiWordPiece::of(&inner);
        let words_apart = early_stop::keeps_words_apart(&inner);
        Ok(Self { inner, ascii, words_apart, prefix, suffix, unknown, vocabulary, max_tokens })
    }

    /// Longest input in tokens, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Size of the vocabulary: one more than the highest token id.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The text's ids, cut to `max_tokens`.
    ///
    /// They are the whole text's. Where its tokenizer keeps words apart, only as much of a long text is tokenized as is kept, so that a book
    /// does not take a thousand times as long as its first page.
    ///
    /// # Errors
    /// If it is too long and must not be cut, or has no token at all.
    pub fn tokenize(&self, text: &str, truncate: Truncate) -> Result<Tokens, InputError> {
        self.tokenize_within(text, self.max_tokens, truncate)
    }

    /// The same, cut to `most` tokens instead: queries and documents may have lengths of their own.
    ///
    /// # Errors
    /// As [`tokenize`](Self::tokenize).
    pub fn tokenize_within(&self, text: &str, most: usize, truncate: Truncate) -> Result<Tokens, InputError> {
        let room = self.room(most);
        let mut bytes = match self.words_apart {
            true => most.saturating_mul(PROBABLE_BYTES),
            false => text.len(),
        };
        loop {
            let part = match truncate {
                Truncate::Start => early_stop::end_of(text, bytes),
                Truncate::End | Truncate::Error => early_stop::start_of(text, bytes),
            };
            let content = self.content(part)?;
            // One token more than there is room for tells that the text is cut.
            if part.len() == text.len() || content.len() > room {
                return self.frame(&content, most, truncate);
            }
            bytes = part.len().saturating_mul(4);
        }
    }

    /// How long the text's ids take, in bytes of a text that the library tokenizes: 0.3 microseconds each.
    pub fn effort(&self, text: &str) -> usize {
        // A long text is not even looked at: it is work whoever does it.
        if text.len() <= LONG_BYTES && self.by_ascii(text).is_some() {
            return text.len().div_ceil(ascii::FASTER);
        }
        text.len()
    }

    /// What tokenizes the text without the library, if it may.
    fn by_ascii(&self, text: &str) -> Option<&AsciiWordPiece> {
        self.ascii.as_ref().filter(|ascii| ascii.takes(text))
    }

    /// The text's ids without special tokens.
    fn content(&self, text: &str) -> Result<Vec<u32>, InputError> {
        match self.by_ascii(text) {
            Some(ascii) => Ok(ascii.ids(text)),
            None => Ok(self.inner.encode_fast(text, false).map_err(failed)?.get_ids().to_vec()),
        }
    }

    /// Takes ids that a caller made, as they are: only if they are this tokenizer's, and cut like a text to `most`.
    ///
    /// # Errors
    /// If an id is out of range, the frame of special tokens is missing, or they are too many and must not be cut.
    pub fn accept(&self, ids: &[i64], most: usize, truncate: Truncate) -> Result<Tokens, InputError> {
        let ids = self.known(ids)?;
        let framed = ids.strip_prefix(self.prefix.as_slice());
        let Some(content) = framed.and_then(|ids| ids.strip_suffix(self.suffix.as_slice())) else {
            return Err(InputError::Unframed { frame: format!("{:?} ... {:?}", self.prefix, self.suffix) });
        };
        self.frame(content, most, truncate)
    }

    /// Every token of the text, nothing cut off.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn pieces(&self, text: &str, add_special_tokens: bool) -> Result<Vec<Piece>, InputError> {
        // In bytes: for characters the library makes a map with an entry for each byte of the text.
        let encoding = self.inner.encode(text, add_special_tokens).map_err(failed)?;
        let places = encoding.get_offsets().iter().zip(encoding.get_special_tokens_mask());
        let tokens = encoding.get_ids().iter().zip(encoding.get_tokens());
        let mut walk = Walk { text, character: 0, byte: 0 };
        Ok(tokens
            .zip(places)
            .map(|((&id, token), (&(start, end), &special))| match special {
                1 => Piece { id, text: token.clone(), special: true, span: None },
                _ => {
                    let (part, span) = walk.part(start..end);
                    Piece { id, text: part.to_owned(), special: false, span: Some(span) }
                }
            })
            .collect())
    }

    /// The text that ids stand for.
    ///
    /// # Errors
    /// If an id is out of range.
    pub fn decode(&self, ids: &[i64], skip_special_tokens: bool) -> Result<String, InputError> {
        self.inner.decode(&self.known(ids)?, skip_special_tokens).map_err(failed)
    }

    /// Ids as the vocabulary has them.
    fn known(&self, ids: &[i64]) -> Result<Vec<u32>, InputError> {
        let known = |id: i64| u32::try_from(id).ok().filter(|id| (*id as usize) < self.vocabulary);
        ids.iter()
            .map(|&id| known(id).ok_or(InputError::OutOfRange { id, vocabulary: self.vocabulary }))
            .collect()
    }

    /// Cuts the content to what there is room for and puts the special tokens round it.
    fn frame(&self, content: &[u32], most: usize, truncate: Truncate) -> Result<Tokens, InputError> {
        let kept = &content[self.keep(content.len(), most, truncate)?];
        let unknown = kept.iter().filter(|id| Some(**id) == self.unknown).count();
        let ids: Arc<[u32]> = [&self.prefix, kept, &self.suffix].concat().into();
        if ids.is_empty() {
            return Err(InputError::Empty);
        }
        Ok(Tokens { ids, cut: content.len() - kept.len(), unknown })
    }

    /// Which part of `tokens` stays.
    fn keep(&self, tokens: usize, most: usize, truncate: Truncate) -> Result<Range<usize>, InputError> {
        let room = self.room(most);
        match truncate {
            _ if tokens <= room => Ok(0..tokens),
            Truncate::End => Ok(0..room),
            Truncate::Start => Ok(tokens - room..tokens),
            Truncate::Error => {
                let tokens = tokens + most - room;
                Err(InputError::TooLong { tokens, max_tokens: most })
            }
        }
    }

    /// Tokens of a text that are kept of `most`.
    fn room(&self, most: usize) -> usize {
        most.saturating_sub(self.prefix.len() + self.suffix.len())
    }
}

/// The ids that a tokenizer, which must not pad, puts before and behind a text: seen from a text framed by them.
pub(crate) fn frame_of(tokenizer: &tokenizers::Tokenizer) -> tokenizers::Result<(Vec<u32>, Vec<u32>)> {
    let framed = tokenizer.encode("a", true)?;
    let (ids, special) = (framed.get_ids(), framed.get_special_tokens_mask());
    let leading = special.iter().take_while(|mask| **mask == 1).count();
    let trailing = special[leading..].iter().rev().take_while(|mask| **mask == 1).count();
    Ok((ids[..leading].to_vec(), ids[ids.len() - trailing..].to_vec()))
}

/// The largest vocabularies there are, of 256,000 tokens, take 35 MB. More is not read into memory.
pub(crate) const MOST_BYTES: u64 = 128 << 20;
/// Bytes that a token rarely has, to guess how much of a text is needed.
const PROBABLE_BYTES: usize = 16;
/// Bytes of a long text, which is not looked at to say what effort it is.
pub(crate) const LONG_BYTES: usize = 1 << 16;

/// Counts characters from where it was last. Tokens come in the order of the text, so it is walked once, however many there are.
struct Walk<'a> {
    text: &'a str,
    character: usize,
    byte: usize,
}

impl<'a> Walk<'a> {
    /// The whole characters that begin within `bytes` of the text and end there, and which they are.
    fn part(&mut self, bytes: Range<usize>) -> (&'a str, Range<usize>) {
        let start = self.to(bytes.start);
        let end = self.to(bytes.end);
        (self.text.get(start.0..end.0).unwrap_or_default(), start.1..end.1)
    }

    /// Goes to the character that `byte` is of, or to the end of the text; its first byte and its number.
    fn to(&mut self, byte: usize) -> (usize, usize) {
        while let Some(next) = self.text[self.byte..].chars().next()
            && self.byte + next.len_utf8() <= byte
        {
            (self.character, self.byte) = (self.character + 1, self.byte + next.len_utf8());
        }
        // Of a character of several tokens each has its place.
        while self.byte > byte
            && let Some(before) = self.text[..self.byte].chars().next_back()
        {
            (self.character, self.byte) = (self.character - 1, self.byte - before.len_utf8());
        }
        (self.byte, self.character)
    }
}

fn failed(error: tokenizers::Error) -> InputError {
    InputError::Failed(error.to_string())
}
