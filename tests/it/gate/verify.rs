//! The gate from outside: `sextant verify` and the start of `sextant serve`.

use std::process::Output;

use serde_json::Value;
use sextant::engine::Pooling;

use super::{Models, tiny};
use crate::command::{imported, path, sextant};
use crate::rollout::begin;

struct Verified {
    code: Option<i32>,
    printed: String,
    error: String,
}

fn run(arguments: &[&str]) -> Verified {
    let Output { status, stdout, stderr } = sextant(arguments).output().unwrap();
    let [printed, error] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    Verified { code: status.code(), printed, error }
}

#[test]
fn verify_prints_a_table_and_its_exit_code_says_whether_a_version_passes() {
    let directory = imported();
    let models = path(&directory, "models");
    let verify =
        |arguments: &[&str]| run(&[&["verify", arguments[0], "--models", &models], &arguments[1..]].concat());
    let passed = verify(&["tiny@1"]);
    assert_eq!((passed.code, passed.error.as_str()), (Some(0), ""));
    let mut lines = passed.printed.lines();
    assert_eq!(lines.next(), Some("tiny@1 passes the gate"));
    for name in ["digests", "loads", "runs", "outputs", "probe_cosine", "probe_length", "batch_difference"] {
        let line = passed.printed.lines().find(|line| line.starts_with(name)).expect(name);
        assert!(line.contains("passed"), "{line}");
    }
    let json: Value = serde_json::from_str(&verify(&["tiny@1", "--json"]).printed).unwrap();
    assert_eq!((&json["version"], &json["passed"]), (&"tiny@1".into(), &true.into()));
    assert_eq!(json["checks"].as_array().unwrap().len(), 7);

    // An fp16 version that claims the space of the first, and bounds that nothing keeps.
    let checkpoint = path(&directory, "checkpoint");
    let import = ["import", &checkpoint, "--models", &models, "--name", "tiny", "--precision", "fp16"];
    let claimed = run(&[&import[..], &["--claim-space-of", "1"]].concat());
    assert_eq!(claimed.code, Some(0), "{}", claimed.error);
    let passed = verify(&["tiny@2"]);
    assert_eq!(passed.code, Some(0), "{}", passed.error);
    assert!(passed.printed.contains("\nclaim_overlap     passed"), "{}", passed.printed);
    let strict = verify(&["tiny@2", "--json", "--gate-min-claim-cosine", "1"]);
    assert_eq!(strict.code, Some(3));
    let expected = "error: tiny@2 does not pass the gate: claim_cosine is ";
    assert!(strict.error.starts_with(expected), "{}", strict.error);
    let json: Value = serde_json::from_str(&strict.printed).unwrap();
    assert_eq!(json["passed"], false);
    let check =
        json["checks"].as_array().unwrap().iter().find(|check| check["name"] == "claim_cosine").unwrap();
    assert_eq!((&check["verdict"], &check["bound"]["at_least"]), (&"failed".into(), &1.0.into()));

    let missing = run(&[&import[..], &["--claim-space-of", "7"]].concat());
    assert!(missing.code == Some(1) && missing.error.contains("no version tiny@7"), "{}", missing.error);
    for (arguments, code, said) in [
        (&["tiny"][..], 2, "expected a version, as minilm@2"),
        (&["tiny@1", "--gate-min-probe-cosine", "1.5"], 2, "`gate.min_probe_cosine` is `1.5`"),
        (&["tiny@9"], 1, "no version tiny@9"),
        (&["other@1"], 1, "no version other@1"),
    ] {
        let refused = verify(arguments);
        assert_eq!((refused.code, refused.printed.as_str()), (Some(code), ""), "{}", refused.error);
        assert!(refused.error.contains(said), "{}", refused.error);
    }
    std::fs::write(path(&directory, "models/tiny/versions/1/config.json"), "{}").unwrap();
    let damaged = verify(&["tiny@1"]);
    assert_eq!(damaged.code, Some(3));
    assert!(damaged.error.contains("digests: the file `config.json` of tiny@1"), "{}", damaged.error);
    assert!(damaged.printed.contains("\ndigests           FAILED"), "{}", damaged.printed);
}

#[test]
fn the_help_names_the_exit_codes() {
    assert!(run(&["--help"]).printed.contains("3 gate not passed"));
}

#[tokio::test]
async fn a_server_does_not_start_with_a_version_that_does_not_pass() {
    let mut version = tiny();
    version.manifest.pooling = Pooling::Cls;
    let models = Models::with(&version).await;
    begin(&models.repository, "tiny", 1).await;
    let directory = models.directory.path().to_str().unwrap();
    let serve = ["serve", "--models", directory, "--listen", "127.0.0.1:0", "--sessions", "1"];
    let serve = [&serve[..], &["--max-batch-tokens", "256", "--lone-threads", "0"]].concat();
    let refused = run(&serve);
    assert_eq!(refused.code, Some(1));
    let error = refused.error.lines().find(|line| line.starts_with("error: ")).unwrap();
    let expected = "error: tiny@1 cannot be served: it does not pass the gate: probe_cosine is 0.";
    assert!(error.starts_with(expected), "{error}");
    assert!(error.contains("must be at least 0.9999"), "{error}");
    assert!(!refused.printed.contains("serves on"), "{}", refused.printed);
}
