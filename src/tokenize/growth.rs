//! How much longer a tokenizer may make a text, bounded from its file before it sees any text.
//!
//! Normalizers and pre-tokenizers are applied one after the other, so what each adds multiplies: ten `Replace` steps of 900 bytes of JSON
//! make 3 GB of one sentence. Such a file is refused at import and at load, since a caller needs only a valid key to send the sentence.

use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::{NormalizerWrapper, Precompiled};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{DecoderWrapper, PostProcessor as _, Tokenizer};

/// Bytes that may become of one byte of a text. The bound is a product of worst cases that no text meets at once: 7.5 for BERT, 18 for CLIP, 66
/// for XLM-RoBERTa, and 726 for ALBERT, the largest known.
const MOST_GROWTH: f64 = 4096.0;
/// Bytes of a token. The longest in known vocabularies are runs of about a hundred spaces; `/decode` repeats one as often as it is asked to.
const MOST_TOKEN_BYTES: usize = 4096;
/// Bytes of the token for what is unknown, which may stand for a single byte of a text: `[UNK]`, `<unk>`.
const MOST_UNKNOWN_BYTES: usize = 64;
/// Characters of a word that WordPiece looks up part by part, in a time that is the square of them. Real files say 100.
const MOST_WORD_CHARS: usize = 1000;

/// Refuses a tokenizer that may make a text or an id grow without measure.
///
/// # Errors
/// In a sentence, with the part of the file and the bound.
pub(crate) fn check(tokenizer: &Tokenizer) -> Result<(), String> {
    let text = tokenizer.get_normalizer().map_or(Growth::NONE, of_normalizer);
    let text = text.then(tokenizer.get_pre_tokenizer().map_or(Growth::NONE, of_pre_tokenizer));
    within("normalizer and pre-tokenizer make", text)?;
    within("post-processor makes", tokenizer.get_post_processor().map_or(Growth::NONE, of_processor))?;
    within("decoder makes", tokenizer.get_decoder().map_or(Growth::NONE, of_decoder))?;
    check_model(tokenizer.get_model())?;
    match tokenizer.get_vocab(true).into_keys().map(|token| token.len()).max() {
        Some(longest) if longest > MOST_TOKEN_BYTES => {
            Err(format!("it has a token of {longest} bytes, and at most {MOST_TOKEN_BYTES} are taken"))
        }
        _ => Ok(()),
    }
}

fn within(part: &str, growth: Growth) -> Result<(), String> {
    let most = growth.factor + growth.once;
    if most <= MOST_GROWTH {
        return Ok(());
    }
    Err(format!(
        "its {part} up to {most:.3e} bytes of one byte, and at most {MOST_GROWTH} are taken: no tokenizer of a published model comes near \
         that, so look at what its steps insert"
    ))
}

fn check_model(model: &ModelWrapper) -> Result<(), String> {
    let unknown = match model {
        ModelWrapper::WordPiece(model) => {
            if model.max_input_chars_per_word > MOST_WORD_CHARS {
                return Err(format!(
                    "its max_input_chars_per_word is {}, and at most {MOST_WORD_CHARS} are taken: the time for a word is the square of it",
                    model.max_input_chars_per_word
                ));
            }
            model.unk_token.len()
        }
        ModelWrapper::WordLevel(model) => model.unk_token.len(),
        ModelWrapper::BPE(model) => model.unk_token.as_ref().map_or(0, String::len),
        ModelWrapper::Unigram(_) => 0,
    };
    if unknown > MOST_UNKNOWN_BYTES {
        return Err(format!("its unk_token has {unknown} bytes, and at most {MOST_UNKNOWN_BYTES} are taken"));
    }
    Ok(())
}

/// The most bytes that a step makes of `n` bytes: `factor * n + once`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Growth {
    factor: f64,
    once: f64,
}

impl Growth {
    const NONE: Self = Self::by(1.0);

    const fn by(factor: f64) -> Self {
        Self { factor, once: 0.0 }
    }

    /// This step and then `next`.
    fn then(self, next: Self) -> Self {
        Self { factor: self.factor * next.factor, once: self.once * next.factor + next.once }
    }

    fn of_steps<T>(steps: &[T], of_step: impl Fn(&T) -> Self) -> Self {
        steps.iter().fold(Self::NONE, |before, step| before.then(of_step(step)))
    }
}

/// Canonical forms: the most in UTF-8 by Unicode's annex 15, section "Stability and expansion".
const CANONICAL: f64 = 3.0;
/// Compatibility forms, by the same: U+FDFA has 3 bytes and becomes 33.
const COMPATIBLE: f64 = 11.0;
/// U+0130 has 2 bytes and becomes 3.
const LOWERCASE: f64 = 1.5;
/// A space on either side of a character of 3 bytes.
const SPACED: f64 = 5.0 / 3.0;
/// Each byte becomes a character of at most 2 bytes.
const BYTE_LEVEL: f64 = 2.0;

fn of_normalizer(normalizer: &NormalizerWrapper) -> Growth {
    match normalizer {
        NormalizerWrapper::BertNormalizer(_) => Growth::by(SPACED * CANONICAL * LOWERCASE),
        NormalizerWrapper::StripNormalizer(_)
        | NormalizerWrapper::StripAccents(_)
        | NormalizerWrapper::Nmt(_) => Growth::NONE,
        NormalizerWrapper::NFC(_) | NormalizerWrapper::NFD(_) => Growth::by(CANONICAL),
        NormalizerWrapper::NFKC(_) | NormalizerWrapper::NFKD(_) => Growth::by(COMPATIBLE),
        NormalizerWrapper::Lowercase(_) => Growth::by(LOWERCASE),
        NormalizerWrapper::Sequence(sequence) => Growth::of_steps(sequence.as_ref(), of_normalizer),
        NormalizerWrapper::Precompiled(table) => Growth::by(of_table(table)),
        NormalizerWrapper::Replace(replace) => of_replace(replace),
        NormalizerWrapper::Prepend(prepend) => Growth { factor: 1.0, once: prepend.prepend.len() as f64 },
        NormalizerWrapper::ByteLevel(_) => Growth::by(BYTE_LEVEL),
    }
}

fn of_pre_tokenizer(pre_tokenizer: &PreTokenizerWrapper) -> Growth {
    match pre_tokenizer {
        PreTokenizerWrapper::Sequence(sequence) => Growth::of_steps(sequence.as_ref(), of_pre_tokenizer),
        // A piece may be one byte, and gets a space in front.
        PreTokenizerWrapper::ByteLevel(level) => {
            Growth::by(BYTE_LEVEL * if level.add_prefix_space { 2.0 } else { 1.0 })
        }
        PreTokenizerWrapper::Metaspace(metaspace) => {
            let replacement = metaspace.get_replacement().len_utf8() as f64;
            let prepended = if metaspace.get_prepend_scheme() == PrependScheme::Never { 0.0 } else { 1.0 };
            Growth::by(replacement + prepended)
        }
        // These split and add nothing.
        PreTokenizerWrapper::BertPreTokenizer(_)
        | PreTokenizerWrapper::Delimiter(_)
        | PreTokenizerWrapper::Whitespace(_)
        | PreTokenizerWrapper::Split(_)
        | PreTokenizerWrapper::Punctuation(_)
        | PreTokenizerWrapper::WhitespaceSplit(_)
        | PreTokenizerWrapper::Digits(_)
        | PreTokenizerWrapper::UnicodeScripts(_)
        | PreTokenizerWrapper::FixedLength(_) => Growth::NONE,
    }
}

/// How often a text stands in the outcome, and how many special tokens beside it.
fn of_processor(processor: &PostProcessorWrapper) -> Growth {
    match processor {
        PostProcessorWrapper::Sequence(sequence) => Growth::of_steps(sequence.as_ref(), of_processor),
        PostProcessorWrapper::Template(template) => {
            let template_json = serde_json::to_value(template).unwrap_or_default();
            let copies = |key: &str| {
                let pieces = template_json[key].as_array().into_iter().flatten();
                pieces.filter(|piece| piece.get("Sequence").is_some()).count()
            };
            let copies = copies("single").max(copies("pair")).max(1);
            Growth { factor: copies as f64, once: template.added_tokens(true) as f64 }
        }
        PostProcessorWrapper::Roberta(_)
        | PostProcessorWrapper::Bert(_)
        | PostProcessorWrapper::ByteLevel(_) => Growth::NONE,
    }
}

fn of_decoder(decoder: &DecoderWrapper) -> Growth {
    match decoder {
        DecoderWrapper::Sequence(sequence) => Growth::of_steps(sequence.get_decoders(), of_decoder),
        DecoderWrapper::Replace(replace) => of_replace(replace),
        // A byte that is no UTF-8 becomes U+FFFD.
        DecoderWrapper::ByteLevel(_) | DecoderWrapper::ByteFallback(_) => Growth::by(3.0),
        // A space for each token, or in place of an empty mark between any two characters.
        DecoderWrapper::BPE(_) | DecoderWrapper::WordPiece(_) | DecoderWrapper::CTC(_) => {
            Growth { factor: 2.0, once: 1.0 }
        }
        DecoderWrapper::Metaspace(_) | DecoderWrapper::Fuse(_) | DecoderWrapper::Strip(_) => Growth::NONE,
    }
}

/// What is put in place of each match. A pattern that matches nothing does so before each byte and at the end.
fn of_replace(replace: &Replace) -> Growth {
    let content = replace.content.len() as f64;
    match shortest_match(replace) {
        0 => Growth { factor: 1.0 + content, once: content },
        shortest => Growth::by((content / shortest as f64).max(1.0)),
    }
}

/// Bytes of the shortest text that the pattern matches; 0 where that is not known, as with look-around.
fn shortest_match(replace: &Replace) -> usize {
    let pattern = serde_json::to_value(replace).unwrap_or_default()["pattern"].take();
    match (&pattern["String"], &pattern["Regex"]) {
        (Value::String(text), _) => text.len(),
        (_, Value::String(regex)) => {
            let parsed = regex_syntax::parse(regex).ok();
            parsed.and_then(|parsed| parsed.properties().minimum_len()).unwrap_or(0)
        }
        _ => 0,
    }
}

/// What a table of sentencepiece may make of a byte. It is asked with a character, or a grapheme of less than 6 bytes, and answers for a
/// beginning of it.
fn of_table(table: &Precompiled) -> f64 {
    let longest = serde_json::to_value(table).ok().and_then(|value| longest_entry(&value));
    // Not readable: nothing is known of it.
    let Some(longest) = longest else { return f64::INFINITY };
    // A key of three bytes or more is not looked up, since there are a million: the longest entry may be its.
    let longer = longest as f64 / 3.0;
    let short = (1..0x800).filter_map(char::from_u32).map(String::from).chain(["\r\n".to_owned()]);
    short
        .filter_map(|key| Some(table.transform(&key)?.len() as f64 / key.len() as f64))
        .fold(longer.max(1.0), f64::max)
}

/// Bytes of the longest entry of a table: after the trie and its size come the entries, each ended by a NUL.
fn longest_entry(table: &Value) -> Option<usize> {
    use base64::Engine as _;
    let text = table["precompiled_charsmap"].as_str()?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    // The size is rounded down to whole units, as its reader does.
    let entries = rest.get(u32::from_le_bytes(*size) as usize / 4 * 4..)?;
    entries.split(|byte| *byte == 0).map(<[u8]>::len).max()
}
