//! `sextant bench session`: what it says was run is what the texts hold.

use std::time::Duration;

use serde_json::{Value, json};
use sextant::bench::session::{Batches, Hardware, Row, SessionLoop};
use sextant::engine::Pooling;
use sextant::repository::manifest::Precision;

use crate::command::{failure, imported, path, run, sextant};
use crate::import::import_tiny;
use crate::support::checkpoint::TinyCheckpoint;

/// Measured for a moment, on texts in a file.
fn session(models: &str, input: &str, more: &[&str]) -> Vec<String> {
    let arguments =
        ["bench", "session", "tiny@1", "--models", models, "--input", input, "--duration", "300ms"];
    [&arguments[..], more].concat().into_iter().map(str::to_owned).collect()
}

fn printed(arguments: &[String]) -> String {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // The key of a server is no reason to ask one.
    let output = sextant(&arguments).env("SEXTANT_API_KEY_FILE", "no/such/file").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn figures(arguments: &[String]) -> Value {
    serde_json::from_str(&printed(arguments)).unwrap()
}

fn number(figures: &Value, pointer: &str) -> f64 {
    figures.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {pointer} in {figures}"))
}

/// What holds for texts with `tokens` tokens together, whatever the machine.
fn check(figures: &Value, tokens: u64) {
    let ran = figures["tokens"].as_u64().unwrap();
    assert!(ran >= tokens && ran.is_multiple_of(tokens), "{ran} is no number of passes over {tokens} tokens");
    let seconds = number(figures, "/seconds");
    assert!((0.02..30.0).contains(&seconds), "{figures}");
    let speed = number(figures, "/tokens_per_second");
    assert!((speed * seconds / ran as f64 - 1.0).abs() < 1e-9, "{figures}");
    let processors = number(figures, "/processors");
    assert!((0.0..1024.0).contains(&processors), "{figures}");
    let batches = figures["batches"].as_str().unwrap();
    let candidates = Hardware::Cpu.candidates().iter().map(Batches::to_string);
    assert!(candidates.into_iter().any(|candidate| candidate == batches), "{batches}");
    assert_eq!(figures["device"], json!(["cpu"]));
    assert_eq!(figures["version"], "tiny@1");
}

#[test]
fn tokens_are_those_of_whole_passes_over_the_texts_as_the_server_would_cut_them() {
    let directory = imported();
    let (models, input) = (path(&directory, "models"), path(&directory, "texts"));
    // Of 5, of 8 and, cut, of 64 tokens; the median is the first kind.
    let texts = ["the red house\n".repeat(20), "a cat sleeps over the river\n".repeat(10)];
    let long = ["what ".repeat(100), "\n".to_owned()].concat().repeat(9);
    std::fs::write(&input, [&texts[..], &[long]].concat().concat()).unwrap();
    let figures = figures(&session(&models, &input, &["--sessions", "2", "--latency", "--json"]));
    check(&figures, 20 * 5 + 10 * 8 + 9 * 64);
    assert_eq!((&figures["texts"], &figures["rows"]), (&json!(39), &json!(39)));
    assert_eq!((&figures["precision"], &figures["sessions"]), (&json!("fp32"), &json!(2)));
    assert_eq!(figures["latency_ms"]["tokens"], 5);
    let p50 = number(&figures, "/latency_ms/p50");
    // A run of the tiny model: microseconds at least, and no second on any machine.
    assert!(p50 > 0.001 && p50 < 1000.0, "{figures}");
}

#[test]
fn the_default_prompt_is_run_too_and_there_is_a_session_for_each_core() {
    let directory = tempfile::tempdir().unwrap();
    let (checkpoint, models) = (path(&directory, "checkpoint"), path(&directory, "models"));
    TinyCheckpoint::bert().write(checkpoint.as_ref());
    let prompts = json!({ "prompts": { "find": "what " }, "default_prompt_name": "find" });
    std::fs::write(format!("{checkpoint}/config_sentence_transformers.json"), prompts.to_string()).unwrap();
    assert!(run(&["import", &checkpoint, "--models", &models, "--name", "tiny"]).status.success());
    let input = path(&directory, "texts.jsonl");
    std::fs::write(&input, "{\"text\": \"the red house\"}\n{\"text\": \"\"}\n{\"text\": \"a cat\"}\n")
        .unwrap();
    let figures = figures(&session(&models, &input, &["--json"]));
    check(&figures, 6 + 5);
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!((&figures["sessions"], &figures["threads"]), (&json!(cores), &json!(1)));
    assert_eq!(figures["latency_ms"], Value::Null, "it was not asked for");
    let text = printed(&session(&models, &input, &["--sessions", "1", "--latency"]));
    let begins: Vec<&str> = text.lines().map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!(begins, ["version", "sessions", "texts", "tokens/s", "latency"], "{text}");
    assert!(text.contains("tiny@1, fp32 on cpu") && text.contains("ms for 6 tokens alone"), "{text}");
}

#[test]
fn what_cannot_be_measured_is_told_in_one_sentence() {
    let directory = imported();
    let models = path(&directory, "models");
    let file = |name: &str, content: &str| {
        std::fs::write(directory.path().join(name), content).unwrap();
        path(&directory, name)
    };
    let (texts, empty) = (file("texts", "the red house\n"), file("empty", ""));
    let blank = file("blank", "{\"text\": \"\"}\n{\"text\": \" \"}\n");
    let missing = path(&directory, "missing");
    let usual = ["--models", &models, "--input", &texts];
    for (arguments, code, expected) in [
        (&["tiny@9", "--models", &models, "--input", &texts][..], 1, "tiny@9"),
        (&["other@1", "--models", &models, "--input", &texts], 1, "other"),
        (&["tiny@1", "--models", &models, "--input", &empty], 1, "has no texts"),
        (&["tiny@1", "--models", &models, "--input", &blank], 1, "has no texts"),
        (&["tiny@1", "--models", &models, "--input", &missing], 1, "cannot read"),
        (&[&["tiny@1", "--duration", "0s"], &usual[..]].concat(), 2, "more than 0"),
        (&[&["tiny@1", "--sessions", "0"], &usual[..]].concat(), 2, "--sessions"),
        (&[&["tiny@1", "--onnxruntime", &missing], &usual[..]].concat(), 1, "no ONNX Runtime library"),
        (&["tiny@1", "--models", &models], 2, "--input"),
    ] {
        let (status, text) = failure(&mut sextant(&[&["bench", "session"], arguments].concat()));
        assert_eq!(status, code, "{arguments:?}: {text}");
        assert!(text.contains(expected) && text.starts_with("error: "), "{arguments:?}: {text}");
    }
    let damaged = directory.path().join("models/tiny/versions/1/model.onnx");
    std::fs::write(damaged, "another graph").unwrap();
    let mut bench = sextant(&[&["bench", "session", "tiny@1"], &usual[..]].concat());
    // The cache of the runs before has a good copy.
    let (status, text) = failure(bench.env("SEXTANT_CACHE_DIR", directory.path().join("cache")));
    assert!(status == 1 && text.contains("model.onnx"), "{text}");
    // A server is measured by the command itself, which needs all that it needed without the subcommand.
    for (arguments, expected) in [
        (&["bench", "--server", "http://127.0.0.1:1", "session", "tiny@1"][..], "cannot be used with"),
        (&["bench", "session", "tiny@1", "--server", "http://127.0.0.1:1"], "unexpected argument"),
        (&["bench", "--input", &texts], "--server"),
        (&["bench"], "--server"),
    ] {
        let (status, text) = failure(&mut sextant(arguments));
        assert!(status == 2 && text.contains(expected), "{arguments:?}: {text}");
    }
}

#[test]
fn many_texts_are_sampled_and_the_sizes_of_a_gpu_run_here_as_well() {
    let version = import_tiny(&TinyCheckpoint::bert(), Precision::Fp32);
    let rows: Vec<Row> =
        ["a cat", "the red house runs", "what river"].iter().map(|text| version.ids(text)).collect();
    let sessions = vec![version.session(Pooling::Mean, 1), version.session(Pooling::Mean, 1)];
    let mut sessions = SessionLoop::new(sessions);
    // 14 million tokens: more than two seconds of work even for the tiny model.
    let many: Vec<Row> = rows.iter().cycle().take(3_000_000).cloned().collect();
    let sample = sessions.sample(many, Hardware::Cpu).unwrap();
    assert!((1000..2_999_999).contains(&sample.len()), "{}", sample.len());
    let of_the_first = sample.iter().filter(|row| **row == rows[0]).count() as f64 / sample.len() as f64;
    assert!((0.2..0.47).contains(&of_the_first), "drawn at random: {of_the_first}");

    let few = &sample[..1000];
    let mut tries = 0;
    let chosen = sessions.choose(few, Hardware::Gpu, |_| tries += 1).unwrap();
    assert!(chosen.failed.is_empty() && chosen.tokens_per_second > 0.0, "{chosen:?}");
    assert!(Hardware::Gpu.candidates().contains(&chosen.batches));
    assert!(tries > 5 && tries <= Hardware::Gpu.candidates().len() + 3, "{tries}");
    let measured = sessions.measure(&chosen, Duration::from_millis(300)).unwrap();
    let tokens: usize = few.iter().map(|row| row.len()).sum();
    assert!(measured.tokens >= tokens && measured.tokens.is_multiple_of(tokens), "{measured:?}");
    assert_eq!(sessions.alone(&rows[1]).unwrap().len(), version.manifest.dimensions);
}
