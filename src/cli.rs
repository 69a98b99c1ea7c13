//! The command line: one file per command.

mod bench;
mod evaluate;
mod import;
mod progress;
mod serve;
mod verify;

use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An embedding server that keeps vectors true.
#[derive(Debug, Parser)]
#[command(
    name = "sextant",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 gate not passed."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the activated version of every model in a repository
    Serve(Box<serve::Serve>),
    /// Make a version from a checkpoint directory or a model on the hub
    Import(Box<import::Import>),
    /// Check on this machine whether a version may serve
    Verify(verify::Verify),
    /// Measure the quality of a version on labelled pairs
    Evaluate(evaluate::Evaluate),
    /// Measure a server under load
    Bench(Box<bench::Bench>),
}

/// Runs the command and says how it went. Failures are one sentence on standard error.
pub fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Serve(command) => command.run(),
        Command::Import(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Evaluate(command) => command.run(),
        Command::Bench(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint_line(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// Why a command failed, for a person to read.
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// The command line or the configuration is wrong.
    fn usage(error: impl std::fmt::Display) -> Self {
        Self { message: error.to_string(), code: 2 }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { message: error.to_string(), code: 1 }
    }
}

/// The model's name and the number of a version given as `minilm@2`.
fn version(text: &str) -> Result<(String, u32), Failure> {
    text.split_once('@')
        .and_then(|(name, number)| Some((name.to_owned(), number.parse().ok()?)))
        .ok_or_else(|| Failure::usage(format!("`{text}` is no version: expected one as minilm@2")))
}

/// Speaks of a failure. Not `eprintln!`, which panics where nobody can be told.
fn eprint_line(message: &str) {
    let _nobody_is_left_to_tell = writeln!(io::stderr(), "error: {message}");
}

/// Prints a result. Not `println!`, which panics on a full disk and on a reader that has gone, as `head` does: whoever
/// closed the pipe has read enough.
fn print_line(message: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    match writeln!(output, "{message}").and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure { message: format!("cannot write to standard output: {error}"), code: 1 })
        }
        _ => Ok(()),
    }
}
