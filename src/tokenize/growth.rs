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

/// Bytes that may become of one byte of a text. The bound is a product of worst cases that no text meets at once: 7.5 for BERT, 9 for CLIP, 44
/// for XLM-RoBERTa, and 726 for ALBERT, the largest known.
const MOST_GROWTH: f64 = 4096.0;
/// The same of the steps whose results the file itself writes, which a text can be made to meet again and again. A table of sentencepiece and
/// XLM-RoBERTa's runs of spaces have 16.5.
const MOST_WRITTEN: f64 = 32.0;
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
    within("normalizer and pre-tokenizer make", text, MOST_GROWTH)?;
    let written = tokenizer.get_normalizer().map_or(Growth::NONE, of_written);
    within("normalizer's replacements make", written, MOST_WRITTEN)?;
    within(
        "post-processor makes",
        tokenizer.get_post_processor().map_or(Growth::NONE, of_processor),
        MOST_GROWTH,
    )?;
    within("decoder makes", tokenizer.get_decoder().map_or(Growth::NONE, of_decoder), MOST_GROWTH)?;
    check_model(tokenizer.get_model())?;
    match tokenizer.get_vocab(true).into_keys().map(|token| token.len()).max() {
        Some(longest) if longest > MOST_TOKEN_BYTES => {
            Err(format!("it has a token of {longest} bytes, and at most {MOST_TOKEN_BYTES} are taken"))
        }
        _ => Ok(()),
    }
}

fn within(part: &str, growth: Growth, bound: f64) -> Result<(), String> {
    let most = growth.factor + growth.once;
    if most <= bound {
        return Ok(());
    }
    Err(format!(
        "its {part} up to {most:.3e} bytes of one byte, and at most {bound} are taken: no tokenizer of a published model comes near \
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

/// Without what Unicode says, which is the same in every file.
fn of_written(normalizer: &NormalizerWrapper) -> Growth {
    match normalizer {
        NormalizerWrapper::Sequence(sequence) => Growth::of_steps(sequence.as_ref(), of_written),
        NormalizerWrapper::Precompiled(_) | NormalizerWrapper::Replace(_) => of_normalizer(normalizer),
        _ => Growth::NONE,
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokenizers::{NormalizedString, Normalizer as _};

    use super::*;

    /// Of a file with this normalizer and this pre-tokenizer.
    fn growth(normalizer: Value, pre_tokenizer: Value) -> f64 {
        let normalizer: Option<NormalizerWrapper> = serde_json::from_value(normalizer).unwrap();
        let pre_tokenizer: Option<PreTokenizerWrapper> = serde_json::from_value(pre_tokenizer).unwrap();
        let text = normalizer.as_ref().map_or(Growth::NONE, of_normalizer);
        let text = text.then(pre_tokenizer.as_ref().map_or(Growth::NONE, of_pre_tokenizer));
        text.factor + text.once
    }

    fn replace(pattern: Value, content: &str) -> Value {
        json!({"type": "Replace", "pattern": pattern, "content": content})
    }

    /// A table of sentencepiece, smaller than that of published models.
    fn table() -> Value {
        let file = include_bytes!("../../tests/data/references/xlmr/tokenizer.json");
        let file: Value = serde_json::from_slice(file).unwrap();
        file["normalizer"]["normalizers"][0].clone()
    }

    #[test]
    fn tokenizers_of_published_models_stay_far_below_the_bound() {
        let sequence = |steps: &[Value]| json!({"type": "Sequence", "normalizers": steps});
        // sentencepiece's usual table, nmt_nfkc, has the same factor as NFKC.
        let spaces = || replace(json!({"Regex": " {2,}"}), " ");
        let metaspace = json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always"}]});
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
        let bert = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true});
        let kind = |kind: &str| json!({"type": kind});
        let whitespace = replace(json!({"Regex": r"\s+"}), " ");
        let clip = sequence(&[kind("NFC"), whitespace, kind("Lowercase")]);
        let albert = sequence(&[
            replace(json!({"String": "``"}), "\""),
            kind("NFKD"),
            kind("StripAccents"),
            kind("Lowercase"),
            kind("NFKC"),
            spaces(),
        ]);
        let llama = sequence(&[
            json!({"type": "Prepend", "prepend": "\u{2581}"}),
            replace(json!({"String": " "}), "\u{2581}"),
        ]);
        for (name, normalizer, pre_tokenizer, expected) in [
            ("bert", bert, kind("BertPreTokenizer"), 7.5),
            ("roberta", Value::Null, byte_level.clone(), 2.0),
            ("clip", clip, byte_level, 9.0),
            ("xlm-roberta", sequence(&[kind("NFKC"), spaces()]), metaspace.clone(), 44.0),
            ("albert", albert, metaspace, 726.0),
            ("llama", llama, Value::Null, 12.0),
        ] {
            assert_eq!(growth(normalizer, pre_tokenizer), expected, "{name}");
        }
    }

    #[test]
    fn a_replacement_grows_by_the_shortest_text_that_it_can_replace() {
        let alone = |pattern: Value| growth(replace(pattern, "123456"), Value::Null);
        assert_eq!(alone(json!({"String": "ab"})), 3.0);
        assert_eq!(alone(json!({"String": "ab\u{e9}\u{e9}\u{e9}"})), 1.0);
        assert_eq!(alone(json!({"Regex": "a+"})), 6.0);
        assert_eq!(alone(json!({"Regex": "(aaa|bb)c"})), 2.0);
        // A text of one byte has two places for it.
        for nothing in [
            json!({"String": ""}),
            json!({"Regex": "a*"}),
            json!({"Regex": r"(?=a)"}),
            json!({"Regex": r"(a)\1"}),
        ] {
            assert_eq!(alone(nothing.clone()), 13.0, "{nothing}");
        }
    }

    #[test]
    fn steps_grow_what_was_put_in_before_them() {
        let step = || replace(json!({"String": "a"}), "aaaa");
        let prepend = json!({"type": "Prepend", "prepend": "aaaaa"});
        let steps =
            |steps: Vec<Value>| growth(json!({"type": "Sequence", "normalizers": steps}), Value::Null);
        assert_eq!(steps(vec![prepend.clone(), step(), step()]), 16.0 + 80.0);
        assert_eq!(steps(vec![step(), step(), prepend]), 16.0 + 5.0);
        assert!(steps(vec![step(); 600]).is_infinite());
    }

    #[test]
    fn what_a_file_writes_itself_is_bounded_apart() {
        let written = |normalizer: Value| of_written(&serde_json::from_value(normalizer).unwrap()).factor;
        let steps = |steps: &[Value]| json!({"type": "Sequence", "normalizers": steps});
        let nfkc = json!({"type": "NFKC"});
        let spaces = replace(json!({"Regex": " {2,}"}), "\u{2581}");
        assert_eq!(written(steps(&[nfkc.clone(), spaces.clone(), nfkc])), 1.5);
        let published = written(steps(&[table(), spaces]));
        let crafted = written(steps(&[replace(json!({"String": "a"}), &"b".repeat(100))]));
        assert!(published <= MOST_WRITTEN && crafted > MOST_WRITTEN, "{published} {crafted}");
    }

    #[test]
    fn no_character_grows_by_more_than_its_steps_say() {
        let ranges = [0x1..0x3400, 0xf900..0x1_0000, 0x1_d100..0x1_d200, 0x2_f800..0x2_fa20];
        let normalizers: Vec<(NormalizerWrapper, f64)> =
            ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Nmt", "StripAccents", "ByteLevel"]
                .into_iter()
                .map(|kind| json!({"type": kind}))
                .chain([table()])
                .map(|json| serde_json::from_value(json).unwrap())
                .map(|normalizer: NormalizerWrapper| (of_normalizer(&normalizer).factor, normalizer))
                .map(|(factor, normalizer)| (normalizer, factor))
                .collect();
        let mut largest = vec![0.0_f64; normalizers.len()];
        for character in ranges.into_iter().flatten().filter_map(char::from_u32) {
            let text = character.to_string();
            for ((normalizer, factor), largest) in normalizers.iter().zip(&mut largest) {
                let mut normalised = NormalizedString::from(text.as_str());
                normalizer.normalize(&mut normalised).unwrap();
                let grown = normalised.get().len() as f64 / text.len() as f64;
                assert!(grown <= *factor, "{text:?} grows by {grown}");
                *largest = grown.max(*largest);
            }
        }
        assert_eq!(largest[..5], [3.0, 3.0, 11.0, 11.0, 1.5]);
        assert_eq!(largest[8], 6.0, "the table");
        assert_eq!(normalizers[8].1, 6.0, "its bound is no larger than it need be");
    }

    #[test]
    fn a_table_that_cannot_be_read_grows_without_bound() {
        assert_eq!(longest_entry(&json!({"precompiled_charsmap": ""})), None);
        assert_eq!(longest_entry(&json!({})), None);
        let table = [&4_u32.to_le_bytes()[..], &[0; 4], b"abc\0de\0"].concat();
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(table);
        assert_eq!(longest_entry(&json!({"precompiled_charsmap": text})), Some(3));
    }
}
