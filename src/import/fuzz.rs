//! Checkpoints of anybody.

use std::cell::Cell;
use std::fs;
use std::panic;
use std::path::Path;
use std::sync::Once;

use super::checkpoint::Checkpoint;
use super::encoder::{Encoder, WORD_EMBEDDINGS};
use super::weights::Weights;
use super::{Request, parts};
use crate::repository::manifest::Source;
use crate::tokenize::Truncate;

/// What a checkpoint is read from, in the order that their contents come in.
const FILES: [&str; 8] = [
    "config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "config_sentence_transformers.json",
    "README.md",
    "model.safetensors",
];

/// Between two files. No UTF-8 has it, and safetensors only in weights, of which nothing here depends.
const SEPARATOR: u8 = 0xff;

/// The tokenizer of a checkpoint that brings none.
pub(crate) const TOKENIZER: &[u8] = include_bytes!("../../fuzz/tokenizer.json");

/// Reads a checkpoint as far as can be done without the runtime. `data` has its files one after the other, the tokenizer's last.
#[expect(clippy::expect_used, reason = "a fuzz target fails by a panic")]
pub fn checkpoint(data: &[u8]) {
    let directory = tempfile::tempdir().expect("there is room for temporary files");
    let root = directory.path();
    fs::create_dir(root.join("1_Pooling")).expect("it is empty");
    let mut parts = data.splitn(FILES.len() + 1, |byte| *byte == SEPARATOR);
    let mut write = |name: &str, without: &[u8]| {
        let content = parts.next().filter(|content| !content.is_empty()).unwrap_or(without);
        if !content.is_empty() {
            fs::write(root.join(name), content).expect("there is room for temporary files");
        }
    };
    FILES.iter().for_each(|name| write(name, b""));
    write("tokenizer.json", TOKENIZER);
    let source = Source::Directory { name: String::new() };
    let Ok(read) = Checkpoint::read(&Request::new(root, "m", source, String::new())) else { return };
    assert!(read.file("config.json").starts_with(root));
    if let Ok(tokenizer) = beyond_the_hook(|| read.tokenizer())
        && let Ok(tokens) = tokenizer.tokenize("the red cat runs over the house, and sleeps", Truncate::End)
    {
        assert!(tokens.ids.len() <= read.max_tokens);
    }
    let config = read.file("config.json");
    if let (Ok(_), Ok(mut weights)) = (
        Encoder::from_config(&config, &read.config),
        Weights::open(&read.file("model.safetensors"), WORD_EMBEDDINGS),
    ) {
        // Whether it has this shape or not, it answers.
        let _ = weights.read(WORD_EMBEDDINGS, &[1, 1]);
    }
}

/// Does work whose caught panics are no finding: libFuzzer's hook would end the process before they are caught. One that is not caught
/// ends it after.
fn beyond_the_hook<T>(work: impl FnOnce() -> T) -> T {
    thread_local!(static BEYOND: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let outer = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !BEYOND.get() {
                outer(info);
            }
        }));
    });
    BEYOND.set(true);
    let done = work();
    BEYOND.set(false);
    done
}

/// Looks for weights outside of a graph's file. Those that are taken lie below its directory.
pub fn export(data: &[u8]) {
    let Ok((weights, _)) = parts::parse(data.to_vec().into()) else { return };
    let ordinary =
        |file: &Path| file.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    assert!(weights.keys().all(|file| ordinary(file)));
}
