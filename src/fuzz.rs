//! What the targets of `fuzz/` do with bytes that come from anybody, and the tests with the inputs that are kept there. A target must
//! not panic, and holds what it says of what was taken.

use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

use crate::drift::DEFAULT_RUN_TIME;
use crate::drift::detectors::Detectors;
use crate::drift::inputs::InputFacts;
use crate::drift::reference::{MAGIC, Reference};
use crate::drift::score::Scorer;
use crate::drift::state::State;
use crate::import::fuzz::TOKENIZER;
use crate::repository::manifest::Manifest;
use crate::repository::signing::TrustedKeys;
use crate::rollout::Rollout;
use crate::tokenize::{Tokenizer, TokenizerError, Truncate};

pub use crate::http::fuzz::{inference, requests};
pub use crate::import::fuzz::{checkpoint, export};

/// Longest input of the tokenizer here.
const MAX_TOKENS: usize = 16;

/// A manifest that is taken reads back as it is written.
pub fn manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(manifest) = Manifest::from_toml(text) else { return };
    if manifest.check().is_ok() {
        let written = manifest.to_toml().map(|text| Manifest::from_toml(&text));
        assert_eq!(written, Ok(Ok(manifest)));
    }
}

/// A document that is taken reads back as it is written.
pub fn rollout(data: &[u8]) {
    let number = data.first().map_or(1, |byte| u64::from(byte % 8));
    if let Ok(rollout) = Rollout::read(number, data.get(1..).unwrap_or_default()) {
        let written = serde_json::to_vec(&rollout).map(|text| Rollout::read(number, &text)).ok();
        assert_eq!(written, Some(Ok(rollout)));
    }
}

/// Ids that are taken are the tokenizer's and not too many, and so are those of a text, which say the same of it each time.
#[expect(clippy::expect_used, reason = "a fuzz target fails by a panic")]
pub fn tokens(data: &[u8]) {
    static TINY: LazyLock<Tokenizer> = LazyLock::new(|| {
        let unreadable = |reason: tokenizers::Error| TokenizerError::Unreadable {
            path: String::new(),
            reason: reason.to_string(),
        };
        Tokenizer::read(TOKENIZER, MAX_TOKENS, unreadable).expect("the tokenizer of the targets is one")
    });
    let Some((how, data)) = data.split_first() else { return };
    let truncate = [Truncate::End, Truncate::Start, Truncate::Error][usize::from(how % 3)];
    let (words, _) = data.as_chunks::<2>();
    let ids: Vec<i64> = words.iter().map(|word| i64::from(i16::from_le_bytes(*word))).collect();
    let text = String::from_utf8_lossy(data);
    for tokens in
        [TINY.accept(&ids, TINY.max_tokens(), truncate), TINY.tokenize(&text, truncate)].into_iter().flatten()
    {
        assert!(tokens.ids.len() <= MAX_TOKENS && tokens.unknown <= tokens.ids.len());
        assert!(tokens.ids.iter().all(|id| (*id as usize) < TINY.vocabulary()));
        let back: Vec<i64> = tokens.ids.iter().map(|id| i64::from(*id)).collect();
        assert_eq!(
            TINY.accept(&back, TINY.max_tokens(), Truncate::Error).map(|again| again.ids),
            Ok(tokens.ids.clone())
        );
        assert!(TINY.decode(&back, true).is_ok());
    }
    if let Ok(pieces) = TINY.pieces(&text, how & 4 == 0) {
        let characters: Vec<char> = text.chars().collect();
        for piece in pieces {
            let Some(span) = piece.span else { continue };
            assert!(characters.get(span).is_some_and(|part| part.iter().copied().eq(piece.text.chars())));
        }
    }
}

/// A reference that is taken, its digest put right, reads back as it is written, and can be used.
pub fn reference(data: &[u8]) {
    let digest = hex::encode(Sha256::digest(data));
    let file = [MAGIC.as_bytes(), digest.as_bytes(), b"\n", data].concat();
    let Ok((name, reference)) = Reference::decode(&file) else { return };
    let again = reference.encode().map(|file| Reference::decode(&file).map(|(_, again)| again));
    assert!(matches!(again, Ok(Ok(again)) if again == reference));
    let facts = InputFacts { tokens: 3, truncated: false, unknown: false };
    let vectors: [_; 2] = [0.5_f32, 0.0].map(|value| (vec![value; reference.dimensions()], facts));
    let scorer = Scorer::new(name, reference);
    let mut detectors = Detectors::new(scorer.facts(), DEFAULT_RUN_TIME);
    for (mark, seen) in (1..).zip(scorer.observe(&vectors).into_iter().flatten()) {
        detectors.observe(&seen, mark);
    }
    detectors.readings();
}

/// States are added or refused.
pub fn states(data: &[u8]) {
    if let Ok(states) = serde_json::from_slice::<Vec<State>>(data)
        && let Ok(sum) = State::merge(states)
    {
        assert!(serde_json::to_vec(&sum).is_ok());
    }
}

/// Keys that are taken read back as they are written.
pub fn keys(data: &[u8]) {
    let Ok(keys) = TrustedKeys::parse(&String::from_utf8_lossy(data)) else { return };
    for key in keys {
        let again = TrustedKeys::parse(&format!("# {}\n{}", key.name, key.to_pem()));
        assert_eq!(again, Ok(vec![key]));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 10] = [
        ("requests", super::requests),
        ("inference", super::inference),
        ("manifest", super::manifest),
        ("rollout", super::rollout),
        ("checkpoint", super::checkpoint),
        ("export", super::export),
        ("tokens", super::tokens),
        ("reference", super::reference),
        ("states", super::states),
        ("keys", super::keys),
    ];

    fn names(directory: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "a panic inside of a target does not name its input")]
    fn inputs_that_are_kept_pass_their_targets() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let known = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names(&root.join("fuzz_targets")), known);
        assert_eq!(names(&root.join("corpus")), known);
        for (name, target) in TARGETS {
            let inputs: Vec<_> = fs::read_dir(root.join("corpus").join(name)).unwrap().collect();
            assert!(!inputs.is_empty(), "{name}");
            for input in inputs {
                let path = input.unwrap().path();
                println!("{}", path.display());
                target(&fs::read(path).unwrap());
            }
        }
    }
}
