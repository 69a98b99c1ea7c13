//! Where texts are cut, and which tokenizers may be.

#[path = "../../../tests/it/support/hostile.rs"]
mod hostile;

use serde_json::{Value, json};

use super::*;

const BYTE_LEVEL: &str = include_str!("../../../tests/data/tokenizers/byte_level.json");
const UNIGRAM: &str = include_str!("../../../tests/data/tokenizers/unigram.json");

#[test]
fn texts_are_cut_before_a_space_between_words_or_not_at_all() {
    let text = "one two, (three) fo\u{fc}r f ve six seven\teight nine";
    assert_eq!(start_of(text, 0), "one");
    assert_eq!(start_of(text, 3), "one");
    assert_eq!(start_of(text, 4), "one two, (three) fo\u{fc}r f ve");
    assert_eq!(start_of(text, 40), "one two, (three) fo\u{fc}r f ve six seven\teight");
    for bytes in [text.len() - 4, text.len(), text.len() + 1, usize::MAX] {
        assert_eq!(start_of(text, bytes), text);
    }
    assert_eq!(end_of(text, 0), " nine");
    assert_eq!(end_of(text, 5), " nine");
    assert_eq!(end_of(text, 6), " seven\teight nine");
    assert_eq!(end_of(text, text.len() - 4), " two, (three) fo\u{fc}r f ve six seven\teight nine");
    for bytes in [text.len() - 2, text.len(), usize::MAX] {
        assert_eq!(end_of(text, bytes), text);
    }
    for text in ["", "a", "a b", "averylongword", "\u{e9}\u{e9} \u{e9}\u{e9}"] {
        assert_eq!((start_of(text, 1), end_of(text, 1)), (text, text));
    }
}

fn keeps_apart(file: &str, edit: impl FnOnce(&mut Value)) -> bool {
    let mut file: Value = serde_json::from_str(file).unwrap();
    edit(&mut file);
    keeps_words_apart(&Tokenizer::from_bytes(file.to_string()).unwrap())
}

fn byte_level(regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": regex })
}

/// Adds a token to the vocabulary, with one property.
fn add(file: &mut Value, content: &str, property: &str) {
    let mut token = json!({
        "id": 1010, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": false
    });
    if !property.is_empty() {
        token[property] = true.into();
    }
    file["added_tokens"].as_array_mut().unwrap().push(token);
}

fn metaspace(scheme: &str, split: bool) -> Value {
    json!({ "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": split })
}

#[test]
fn a_tokenizer_is_cut_only_if_all_its_components_are_known_to_keep_words_apart() {
    assert!(keeps_apart(BYTE_LEVEL, |_| ()) && keeps_apart(UNIGRAM, |_| ()));
    let split = |file: &mut Value, field: &str, value: Value| {
        file["pre_tokenizer"]["pretokenizers"][0][field] = value
    };
    assert!(keeps_apart(BYTE_LEVEL, |file| file["pre_tokenizer"] = byte_level(true)));
    assert!(!keeps_apart(BYTE_LEVEL, |file| file["pre_tokenizer"] = byte_level(false)));
    assert!(!keeps_apart(BYTE_LEVEL, |file| file["pre_tokenizer"] = Value::Null));
    assert!(!keeps_apart(BYTE_LEVEL, |file| split(file, "pattern", json!({ "Regex": r"\w+|\s+|\S" }))));
    assert!(!keeps_apart(BYTE_LEVEL, |file| split(file, "pattern", json!({ "String": " " }))));
    assert!(!keeps_apart(BYTE_LEVEL, |file| split(file, "behavior", json!("MergedWithNext"))));
    assert!(!keeps_apart(BYTE_LEVEL, |file| file["model"]["dropout"] = json!(0.1)));

    assert!(keeps_apart(UNIGRAM, |file| file["pre_tokenizer"] = metaspace("always", true)));
    assert!(!keeps_apart(UNIGRAM, |file| file["pre_tokenizer"] = metaspace("always", false)));
    assert!(!keeps_apart(UNIGRAM, |file| file["pre_tokenizer"] = metaspace("first", true)));
    assert!(!keeps_apart(UNIGRAM, |file| {
        file["pre_tokenizer"]["pretokenizers"].as_array_mut().unwrap().reverse();
        file["pre_tokenizer"]["pretokenizers"][0] = metaspace("never", false);
    }));
    let normaliser = |normaliser: Value| {
        keeps_apart(UNIGRAM, |file| {
            file["normalizer"]["normalizers"].as_array_mut().unwrap().push(normaliser)
        })
    };
    let replace = |from: Value, to: &str| json!({ "type": "Replace", "pattern": from, "content": to });
    let spaces = json!({ "Regex": " {2,}" });
    assert!(normaliser(json!({ "type": "Strip", "strip_left": false, "strip_right": true })));
    assert!(!normaliser(json!({ "type": "Strip", "strip_left": true, "strip_right": true })));
    assert!(normaliser(replace(spaces.clone(), "\u{2581}")));
    assert!(!normaliser(replace(spaces, "")));
    assert!(!normaliser(replace(json!({ "String": "x" }), "y")));
    assert!(!normaliser(json!({ "type": "Prepend", "prepend": "x" })));
    let table: Value = serde_json::from_str(UNIGRAM).unwrap();
    assert!(!normaliser(table["normalizer"]["normalizers"][0].clone()), "two tables");
}

#[test]
fn an_added_token_that_reaches_across_a_space_forbids_the_cut() {
    let with = |content: &str, property: &str| keeps_apart(UNIGRAM, |file| add(file, content, property));
    for (content, property) in [
        ("house", ""),
        ("house", "single_word"),
        ("house", "normalized"),
        ("  ", ""),
        ("<x>", "lstrip"),
        ("<x>", "rstrip"),
    ] {
        assert!(with(content, property), "{content:?} {property}");
    }
    // The table makes a space of the last one's sign.
    for (content, property) in [
        ("a house", ""),
        ("house ", ""),
        ("house", "lstrip"),
        ("house", "rstrip"),
        ("a\u{2581}b", "normalized"),
    ] {
        assert!(!with(content, property), "{content:?} {property}");
    }
}

/// Whether the text, wherever it is cut, has the tokens of the whole text in both parts; `None` if it has no place to be cut.
fn holds_for(tokenizer: &Tokenizer, text: &str) -> Option<bool> {
    let ids = |text: &str| tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec();
    let whole = ids(text);
    let places = (0..text.len()).step_by(text.len() / 12 + 1);
    let cuts = places.map(|bytes| (start_of(text, bytes), end_of(text, bytes)));
    let cuts: Vec<_> =
        cuts.filter(|(start, end)| start.len() < text.len() && end.len() < text.len()).collect();
    let holds = |(start, end): &(&str, &str)| whole.starts_with(&ids(start)) && whole.ends_with(&ids(end));
    (!cuts.is_empty()).then(|| cuts.iter().all(holds))
}

/// An edit of a tokenizer's file, with whether words are kept apart after it.
type Variant = (&'static str, bool, fn(&mut Value));

const VARIANTS: [Variant; 12] = [
    (BYTE_LEVEL, true, |_| ()),
    (BYTE_LEVEL, true, |file| file["pre_tokenizer"] = byte_level(true)),
    (BYTE_LEVEL, true, |file| add(file, "river", "single_word")),
    (BYTE_LEVEL, true, |file| add(file, "  ", "normalized")),
    (UNIGRAM, true, |_| ()),
    (UNIGRAM, true, |file| file["normalizer"] = Value::Null),
    (UNIGRAM, true, |file| file["pre_tokenizer"] = metaspace("always", true)),
    (UNIGRAM, true, |file| file["normalizer"] = json!({ "type": "Nmt" })),
    (BYTE_LEVEL, false, |file| add(file, "er the", "")),
    (BYTE_LEVEL, false, |file| add(file, "the", "rstrip")),
    (UNIGRAM, false, |file| file["normalizer"] = json!({ "type": "Prepend", "prepend": "x" })),
    (UNIGRAM, false, |file| {
        file["normalizer"] = json!({ "type": "Replace", "pattern": { "String": "r o" }, "content": "ro" });
    }),
];

#[test]
fn parts_of_a_cut_text_have_its_tokens_if_words_are_kept_apart_and_not_else() {
    for (number, (file, apart, edit)) in VARIANTS.into_iter().enumerate() {
        let mut file: Value = serde_json::from_str(file).unwrap();
        edit(&mut file);
        let tokenizer = Tokenizer::from_bytes(file.to_string()).unwrap();
        assert_eq!(keeps_words_apart(&tokenizer), apart, "variant {number}");
        let holds = |seed| holds_for(&tokenizer, &hostile::text(seed, 600)).map(|holds| (seed, holds));
        let tried: Vec<(u64, bool)> = (0..200).filter_map(holds).collect();
        assert!(tried.len() > 50, "variant {number}: {} texts can be cut", tried.len());
        let other = tried.iter().find(|(_, holds)| !holds);
        assert_eq!(other.is_none(), apart, "variant {number}: {other:?}");
    }
}
