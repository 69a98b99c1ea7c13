//! Standard output and standard error that cannot be written: no command panics, and none leaves its work half done.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::command::{Server, imported, path, sextant};
use crate::support::app::{client, until};

/// A device that is always full.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// A pipe whose reader has gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// The exit code and standard error of a command that prints to `output`.
fn printing_to(output: Stdio, command: &mut Command) -> (Option<i32>, String) {
    let output = command.stdout(output).stderr(Stdio::piped()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_import_that_cannot_print_is_still_whole() {
    let directory = imported();
    let (checkpoint, models) = (path(&directory, "checkpoint"), path(&directory, "models"));
    for (name, output, expected) in [("full", full(), 1), ("closed", closed(), 0)] {
        let import = ["import", &checkpoint, "--models", &models, "--name", name];
        let (code, text) = printing_to(output, &mut sextant(&import));
        assert_eq!(code, Some(expected), "{text}");
        if expected == 1 {
            assert!(
                text.starts_with("error: full@1 is imported, but cannot write to standard output"),
                "{text}"
            );
        } else {
            assert_eq!(text, "");
        }
        assert!(Path::new(&models).join(name).join("versions/1/manifest.toml").is_file());
        assert!(Path::new(&models).join(name).join("rollouts/00000001.json").is_file(), "it is activated");
    }
}

#[test]
fn results_that_cannot_be_written_are_a_failure_and_a_reader_that_left_is_none() {
    let print = || sextant(&["serve", "--models", "nowhere", "--print-config"]);
    let (code, text) = printing_to(full(), &mut print());
    assert_eq!(code, Some(1));
    assert!(
        text.starts_with("error: cannot write to standard output") && text.lines().count() == 1,
        "{text}"
    );
    assert_eq!(printing_to(closed(), &mut print()), (Some(0), String::new()));
    // Nor may the failure that nobody hears of be a panic, which exits with 101.
    let mut wrong = sextant(&["serve", "--models", "nowhere", "--listen", "127.0.0.1:0"]);
    assert_eq!(wrong.stdout(full()).stderr(full()).status().unwrap().code(), Some(1));
}

#[tokio::test]
async fn a_server_that_can_neither_greet_nor_log_serves() {
    let directory = imported();
    let models = path(&directory, "models");
    for (output, errors) in [(full(), full()), (closed(), closed())] {
        // The port is not printed, so it is chosen here; somebody else may take it in between, but hardly does.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut command = sextant(&["serve", "--models", &models, "--listen", &address, "--log", "debug"]);
        command.args([
            "--sessions",
            "1",
            "--max-batch-tokens",
            "256",
            "--lone-threads",
            "0",
            "--drain-delay",
            "0s",
        ]);
        let server = Server { child: command.stdout(output).stderr(errors).spawn().unwrap(), address };
        let url = format!("http://{}/readyz", server.address);
        until("it is ready", async || {
            let answer = client().get(&url).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        server.signal("TERM");
        assert_eq!(server.exit_code().await, Some(0));
    }
}
