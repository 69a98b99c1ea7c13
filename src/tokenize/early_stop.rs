//! How much of a long text must be tokenized for the tokens that are kept: where a text may be cut so that each part has the tokens that it
//! has within the whole.
//!
//! There is one such place for most tokenizers: a single space between two ASCII words of two characters or more, `ab cd`. Their
//! pre-tokenizers never leave the end of the first word and the start of the second in one piece, their normalizers change each of these
//! characters by itself, and their models see one piece at a time. The two characters on either side keep combining marks and other
//! neighbours out of the graphemes at the cut. Whether a tokenizer is of this kind is decided once, when it is loaded, from a list of
//! components whose code was read for it: a tokenizer with any other component takes the whole text. Refused: to cut anywhere and to
//! distrust the tokens near the cut. One long word there made them others than the whole text's.

use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::{NormalizerWrapper, Strip};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, NormalizedString, Normalizer as _, SplitDelimiterBehavior, Tokenizer};

/// Texts of many kinds, to try on each tokenizer what was read in its components.
const SAMPLE: &str = include_str!("../import/texts/probe.txt");

/// Patterns of byte-level tokenizers in which no match holds the last letter or digit of a word and what follows it, and none looks at what is
/// before it: Qwen's, and Llama's with up to three digits in a piece.
const WORD_PATTERNS: [&str; 2] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

/// The first `bytes` of the text or more, up to a space between words; all of it where there is none.
pub(super) fn start_of(text: &str, bytes: usize) -> &str {
    let from = bytes.saturating_sub(AT_SPACE);
    let rest = text.as_bytes().get(from..).unwrap_or_default();
    let found = rest.windows(WINDOW).position(is_between_words);
    found.map_or(text, |found| &text[..from + found + AT_SPACE])
}

/// The last `bytes` of the text or more, from a space between words on; all of it where there is none.
pub(super) fn end_of(text: &str, bytes: usize) -> &str {
    let before = text.len().saturating_sub(bytes);
    let until = text.len().min(before + WINDOW - AT_SPACE);
    let found = text.as_bytes()[..until].windows(WINDOW).rposition(is_between_words);
    found.map_or(text, |found| &text[found + AT_SPACE..])
}

/// Bytes that are looked at together, and where in them the space is.
const WINDOW: usize = 5;
const AT_SPACE: usize = 2;

fn is_between_words(bytes: &[u8]) -> bool {
    let is_word = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_alphanumeric);
    bytes[AT_SPACE] == b' ' && is_word(&bytes[..AT_SPACE]) && is_word(&bytes[AT_SPACE + 1..])
}

/// Whether the tokens of any text are those of its parts, end to end, if it is cut before a space between words.
pub(super) fn keeps_words_apart(tokenizer: &Tokenizer) -> bool {
    tokenizer.get_normalizer().is_none_or(|normalizer| keeps_places(normalizer) && tables(normalizer) <= 1)
        && is_plain_in_ascii(tokenizer)
        && tokenizer.get_pre_tokenizer().is_some_and(splits_at_space)
        && sees_one_piece(tokenizer.get_model())
        && tokenizer.get_added_tokens_decoder().values().all(|token| stays_on_one_side(tokenizer, token))
        && agrees(tokenizer)
}

/// Whether what becomes of a character depends on none beyond its grapheme, and of a grapheme on none beyond a run of spaces.
fn keeps_places(normalizer: &NormalizerWrapper) -> bool {
    match normalizer {
        NormalizerWrapper::BertNormalizer(_)
        | NormalizerWrapper::StripAccents(_)
        | NormalizerWrapper::NFC(_)
        | NormalizerWrapper::NFD(_)
        | NormalizerWrapper::NFKC(_)
        | NormalizerWrapper::NFKD(_)
        | NormalizerWrapper::Lowercase(_)
        | NormalizerWrapper::Nmt(_)
        | NormalizerWrapper::Precompiled(_) => true,
        // The second part begins with a space, which the start of a text would lose and the middle of one would not.
        NormalizerWrapper::StripNormalizer(Strip { strip_left, .. }) => !strip_left,
        NormalizerWrapper::Replace(replace) => joins_spaces(replace),
        NormalizerWrapper::Sequence(sequence) => sequence.as_ref().iter().all(keeps_places),
        NormalizerWrapper::Prepend(_) | NormalizerWrapper::ByteLevel(_) => false,
    }
}

/// How many tables of graphemes it looks into. What one of them makes of the character before a word may be in one grapheme with the word
/// for the next.
fn tables(normalizer: &NormalizerWrapper) -> usize {
    match normalizer {
        NormalizerWrapper::Precompiled(_) => 1,
        NormalizerWrapper::Sequence(sequence) => sequence.as_ref().iter().map(tables).sum(),
        _ => 0,
    }
}

/// Whether it changes nothing but two spaces or more in a row, as the files of sentencepiece's models do.
fn joins_spaces(replace: &Replace) -> bool {
    let joining = |content| Replace::new(ReplacePattern::Regex(" {2,}".to_owned()), content);
    [" ", "\u{2581}"].into_iter().filter_map(|content| joining(content).ok()).any(|known| known == *replace)
}

/// Whether letters and digits of ASCII become letters and digits of ASCII, and a space between them stays one: a table may say otherwise.
fn is_plain_in_ascii(tokenizer: &Tokenizer) -> bool {
    (0..=u8::MAX).filter(u8::is_ascii_alphanumeric).map(char::from).all(|character| {
        let word = normalised(tokenizer, &character.to_string());
        let words = normalised(tokenizer, &format!("{character} {character}"));
        word.zip(words).is_some_and(|(word, words)| {
            let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
            is_word && words == format!("{word} {word}")
        })
    })
}

/// The text as the tokenizer's normalizer leaves it.
fn normalised(tokenizer: &Tokenizer, text: &str) -> Option<String> {
    let mut text = NormalizedString::from(text);
    if let Some(normalizer) = tokenizer.get_normalizer() {
        normalizer.normalize(&mut text).ok()?;
    }
    Some(text.get().to_owned())
}

/// Whether each piece lies on one side of the place before a space between words, wherever the text begins.
fn splits_at_space(pre_tokenizer: &PreTokenizerWrapper) -> bool {
    match pre_tokenizer {
        PreTokenizerWrapper::BertPreTokenizer(_)
        | PreTokenizerWrapper::Whitespace(_)
        | PreTokenizerWrapper::WhitespaceSplit(_) => true,
        PreTokenizerWrapper::ByteLevel(byte_level) => byte_level.use_regex,
        PreTokenizerWrapper::Metaspace(metaspace) => metaspace.get_split() && splits_pieces(pre_tokenizer),
        PreTokenizerWrapper::Split(split) => splits_words(split),
        // What follows splits the pieces further, each by itself.
        PreTokenizerWrapper::Sequence(sequence) => match sequence.as_ref() {
            [first, rest @ ..] => splits_at_space(first) && rest.iter().all(splits_pieces),
            [] => false,
        },
        PreTokenizerWrapper::Delimiter(_)
        | PreTokenizerWrapper::Punctuation(_)
        | PreTokenizerWrapper::Digits(_)
        | PreTokenizerWrapper::UnicodeScripts(_)
        | PreTokenizerWrapper::FixedLength(_) => false,
    }
}

/// Whether what it makes of a piece depends on the piece alone.
fn splits_pieces(pre_tokenizer: &PreTokenizerWrapper) -> bool {
    match pre_tokenizer {
        // This scheme asks whether the piece is the first of the text.
        PreTokenizerWrapper::Metaspace(metaspace) => metaspace.get_prepend_scheme() != PrependScheme::First,
        PreTokenizerWrapper::Sequence(sequence) => sequence.as_ref().iter().all(splits_pieces),
        _ => true,
    }
}

fn splits_words(split: &Split) -> bool {
    let is_known =
        matches!(&split.pattern, SplitPattern::Regex(regex) if WORD_PATTERNS.contains(&regex.as_str()));
    is_known && split.behavior == SplitDelimiterBehavior::Isolated && !split.invert
}

/// Whether the tokens of a piece depend on the piece alone: those of a model that draws them at random do not.
fn sees_one_piece(model: &ModelWrapper) -> bool {
    match model {
        ModelWrapper::WordPiece(_) | ModelWrapper::WordLevel(_) => true,
        ModelWrapper::BPE(model) => model.dropout.is_none_or(|dropout| dropout == 0.0),
        ModelWrapper::Unigram(model) => model.alpha.is_none() && model.nbest_size.is_none(),
    }
}

/// Whether a token that was added to the vocabulary, and is found in the text before all else, cannot reach across a space between words.
fn stays_on_one_side(tokenizer: &Tokenizer, token: &AddedToken) -> bool {
    let crosses =
        |content: &str| content.contains(char::is_whitespace) && !content.chars().all(char::is_whitespace);
    // It takes the white space beside it along.
    let takes_space = |content: &str| {
        (token.lstrip && !content.starts_with(|first: char| first.is_ascii_punctuation()))
            || (token.rstrip && !content.ends_with(|last: char| last.is_ascii_punctuation()))
    };
    let found =
        if token.normalized { normalised(tokenizer, &token.content) } else { Some(token.content.clone()) };
    found.is_some_and(|found| !crosses(&found) && !takes_space(&found))
}

/// Whether it is so for texts that versions are probed with: a tokenizer with a rule that is not looked at above takes the whole text.
fn agrees(tokenizer: &Tokenizer) -> bool {
    let text = SAMPLE.replace('\n', " ");
    let ids = |text: &str| Some(tokenizer.encode_fast(text, false).ok()?.get_ids().to_vec());
    let agrees = ids(&text).is_some_and(|whole| {
        (0..text.len()).step_by(text.len() / 16).all(|bytes| {
            let (start, end) = (start_of(&text, bytes), end_of(&text, bytes));
            ids(start).is_some_and(|ids| whole.starts_with(&ids))
                && ids(end).is_some_and(|ids| whole.ends_with(&ids))
        })
    });
    if !agrees {
        tracing::warn!("the tokenizer has rules of its own: long texts are tokenized whole");
    }
    agrees
}

#[cfg(test)]
mod tests;
