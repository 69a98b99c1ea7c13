//! `sextant sign` and every command that asks for signatures; openssl makes keys, signs and verifies as well.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Keys;
use crate::command::{failure, imported, path, run, sextant};
use crate::support::checkpoint::TinyCheckpoint;

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_version_is_imported_signed_and_every_command_asks_for_the_signature() {
    let (directory, keys) = (imported(), Keys::new());
    let (models, checkpoint) = (path(&directory, "models"), path(&directory, "checkpoint"));
    let cache = path(&directory, "cache");
    let (private, trusted) = (keys.private("release"), keys.public(&["release"]));
    let require = ["--models", &models, "--require-signed", text(&trusted)];
    let verify = |version: &str| {
        sextant(&[&["verify", version, "--cache-dir", &cache], &require[..]].concat()).output().unwrap()
    };

    let refused = verify("tiny@1");
    assert_eq!(refused.status.code(), Some(3));
    let error = String::from_utf8(refused.stderr).unwrap();
    let expected = "error: tiny@1 does not pass the gate: signature: tiny@1 is not signed as this place requires: it has no \
                    signature; ";
    assert!(error.starts_with(expected), "{error}");
    let claim = ["import", &checkpoint, "--name", "tiny", "--precision", "fp16", "--claim-space-of", "1"];
    let claim = [&claim[..], &require, &["--sign", text(&private)]].concat();
    let (code, error) = failure(&mut sextant(&claim));
    assert!(code == 1 && error.contains("tiny@1 is not signed"), "{error}");
    let texts = path(&directory, "texts");
    fs::write(&texts, "the red house\n".repeat(40)).unwrap();
    for command in [
        &["evaluate", "tiny@1", "--texts", &texts][..],
        &["drift", "fit", "tiny@1", "--input", &texts],
        &["drift", "replay", "tiny@1", &texts],
        &["bench", "session", "tiny@1", "--input", &texts],
    ] {
        let (code, error) = failure(&mut sextant(&[command, &require].concat()));
        assert!(code == 1 && error.contains("tiny@1 is not signed"), "{command:?}: {error}");
    }

    let id = keys.id("release");
    let sign = ["sign", "tiny@1", "--models", &models, "--key", text(&private)];
    let manifest = hex::encode(Sha256::digest(
        fs::read(path(&directory, "models/tiny/versions/1/manifest.toml")).unwrap(),
    ));
    let unsigned = printed(&run(&["verify", "tiny@1", "--models", &models]));
    assert!(unsigned.contains(&format!("; the SHA-256 of the manifest is {manifest}")), "{unsigned}");
    let other = ["--sha256", &"0".repeat(64)];
    let (code, error) = failure(&mut sextant(&[&sign[..], &other].concat()));
    assert!(code == 1 && error.contains(&manifest) && error.contains("it is not signed"), "{error}");
    let this = ["--sha256", &manifest.to_uppercase()];
    let expected = format!("tiny@1 is signed with the key {id}: the SHA-256 of its manifest is {manifest}\n");
    assert_eq!(printed(&run(&[&sign[..], &this].concat())), expected);
    let passed = printed(&verify("tiny@1"));
    let line = passed.lines().find(|line| line.starts_with("signature")).unwrap();
    assert!(
        line.contains("passed") && line.ends_with(&format!("the manifest is signed by release ({id})")),
        "{line}"
    );
    // Who trusts no key is told of signatures, and that they were not checked.
    let unchecked = printed(&run(&["verify", "tiny@1", "--models", &models, "--json"]));
    let report: Value = serde_json::from_str(&unchecked).unwrap();
    assert_eq!(
        (&report["checks"][0]["name"], &report["checks"][0]["verdict"]),
        (&"signature".into(), &"warning".into())
    );
    let sentence = report["checks"][0]["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("not checked") && sentence.ends_with(&id), "{sentence}");

    let signed = printed(&run(&[&claim[..], &["--activate"]].concat()));
    assert!(
        signed.contains("imported tiny@2: fp16") && signed.contains("tiny@2 is the version that serves"),
        "{signed}"
    );
    printed(&verify("tiny@2"));
    let why = ["--reason", "a test", "--dry-run"];
    printed(&run(&[&["rollout", "tiny@1"], &require[..], &why].concat()));
    let stranger = keys.public(&["stranger"]);
    let require = ["--models", &models, "--require-signed", text(&stranger)];
    let (code, error) = failure(&mut sextant(&[&["rollout", "tiny@1"], &require[..], &why].concat()));
    let expected = format!("it is signed by no key that is trusted, only by {id}");
    assert!(code == 1 && error.contains("version 1 cannot serve") && error.contains(&expected), "{error}");
}

#[test]
fn a_requirement_that_could_not_be_met_or_is_not_asked_is_told_before_any_work_is_done() {
    let (directory, keys) = (tempfile::tempdir().unwrap(), Keys::new());
    let (models, checkpoint) = (path(&directory, "models"), path(&directory, "checkpoint"));
    TinyCheckpoint::bert().write(checkpoint.as_ref());
    let (trusted, stranger) = (keys.public(&["release"]), keys.private("stranger"));
    let import = ["import", &checkpoint, "--name", "tiny", "--models", &models];
    let require = ["--require-signed", text(&trusted)];
    let unsigned = [&import[..], &require].concat();
    let by_another = [&unsigned[..], &["--sign", text(&stranger)]].concat();
    for (arguments, said) in [
        (unsigned, "is required and none would be made: give `--sign FILE`".to_owned()),
        (by_another, format!("with the key {}, which is none of those in `", keys.id("stranger"))),
    ] {
        let (code, error) = failure(&mut sextant(&arguments));
        assert!(code == 2 && error.contains(&said), "{error}");
        assert!(!Path::new(&models).exists());
    }
    let (code, error) = failure(sextant(&import).env("SEXTANT_REQUIRE_SIGNED", &trusted));
    assert!(code == 2 && error.contains("none would be made"), "{error}");

    let server = ["--server", "http://127.0.0.1:1"];
    for command in [
        &["verify", "tiny@1"][..],
        &["rollout", "tiny@1", "--reason", "a test"],
        &["promote", "tiny@1", "--reason", "a test"],
        &["rollback", "tiny", "--reason", "a test"],
    ] {
        let (code, error) = failure(&mut sextant(&[command, &server, &require].concat()));
        assert!(code == 2 && error.contains("`--require-signed` is for `--models`"), "{command:?}: {error}");
        // Said of all commands at once: the server is asked.
        let mut command = sextant(&[command, &server].concat());
        let (code, error) = failure(command.env("SEXTANT_REQUIRE_SIGNED", &trusted));
        assert!(code == 1 && error.contains("does not answer"), "{error}");
    }
}

#[test]
fn what_is_no_key_is_told_before_any_work_is_done() {
    let (directory, keys) = (tempfile::tempdir().unwrap(), Keys::new());
    let models = path(&directory, "models");
    let public = keys.public(&["release"]);
    let private = keys.private("release");
    for (arguments, said) in [
        (&["sign", "tiny@1", "--key", text(&public)][..], "the signing key in `"),
        (&["sign", "tiny@1", "--key", "/nowhere"], "the signing key in `/nowhere` cannot be used"),
        (&["sign", "tiny@1"], "--key <FILE>"),
        (&["sign", "tiny@1", "--key", text(&private), "--sha256", "abc"], "64 hexadecimal digits"),
        (&["sign", "--key", text(&private)], "<VERSION>"),
        (&["import", "x", "--name", "tiny", "--sign", text(&public)], "the signing key in `"),
        (&["serve", "--require-signed", text(&private)], "`require_signed`: the trusted keys in `"),
        (
            &["verify", "tiny@1", "--require-signed", "/nowhere"],
            "the trusted keys in `/nowhere` cannot be used",
        ),
    ] {
        fs::create_dir_all(&models).unwrap();
        let (code, error) = failure(&mut sextant(&[arguments, &["--models", &models]].concat()));
        assert!(code == 2 && error.contains(said), "{arguments:?}: {error}");
    }
}

/// What docs/operate.md says that openssl does.
#[test]
fn openssl_makes_keys_signs_and_verifies_as_well() {
    let openssl = |arguments: &[&str]| Command::new("openssl").args(arguments).output();
    match openssl(&["version"]) {
        // The sort of openssl that knows `pkeyutl -rawin`.
        Ok(output) if String::from_utf8_lossy(&output.stdout).starts_with("OpenSSL 3") => {}
        _ => return crate::support::skipped("no openssl 3, the keys of others are not tried"),
    }
    let directory = imported();
    let models = path(&directory, "models");
    let manifest = path(&directory, "models/tiny/versions/1/manifest.toml");
    let [private, public] = ["theirs.pem", "theirs.pub"].map(|name| path(&directory, name));
    assert!(openssl(&["genpkey", "-algorithm", "ed25519", "-out", &private]).unwrap().status.success());
    assert!(openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]).unwrap().status.success());
    let signed = printed(&run(&["sign", "tiny@1", "--models", &models, "--key", &private]));
    let id = signed.split_once("the key ").unwrap().1.split(':').next().unwrap();
    let signature = path(&directory, &format!("models/tiny/versions/1/signatures/{id}.sig"));
    let verified = |signature: &str, public: &str| {
        let command = [
            "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", &manifest, "-sigfile",
            signature,
        ];
        openssl(&command).unwrap().status.success()
    };
    assert!(verified(&signature, &public));

    // The other way round: a key of ours, a signature of theirs.
    let [ours, ours_public, theirs] =
        ["ours.pem", "ours.pub", "theirs.sig"].map(|name| path(&directory, name));
    let made = printed(&run(&["sign", "--new-key", &ours]));
    assert!(made.starts_with("# ours\n-----BEGIN PUBLIC KEY-----\n"), "{made}");
    fs::write(&ours_public, &made).unwrap();
    let sign = ["pkeyutl", "-sign", "-inkey", &ours, "-rawin", "-in", &manifest, "-out", &theirs];
    assert!(openssl(&sign).unwrap().status.success());
    assert!(verified(&theirs, &ours_public) && !verified(&signature, &ours_public));
    printed(&run(&["sign", "tiny@1", "--models", &models, "--key", &ours]));
    let signatures = fs::read_dir(path(&directory, "models/tiny/versions/1/signatures")).unwrap();
    let found: Vec<Vec<u8>> = signatures.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(found.len() == 2 && found.contains(&fs::read(&theirs).unwrap()));
    let (code, error) = failure(&mut sextant(&["sign", "--new-key", &ours]));
    assert!(code == 1 && error.contains("cannot make a key in `"), "{error}");
}
