//! The command line: one file per command.

mod alias;
mod arguments;
mod bench;
mod cache;
mod change;
mod drift;
mod evaluate;
mod health;
mod history;
mod import;
mod key;
mod list;
mod load;
mod progress;
mod promote;
mod retire;
mod rollback;
mod rollout;
mod serve;
mod sign;
mod table;
mod target;
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
    /// Serve the stable version of every model in a repository, as it changes
    Serve(Box<serve::Serve>),
    /// Make a version from a checkpoint directory or a model on the hub
    Import(Box<import::Import>),
    /// Check on this machine whether a version may serve
    Verify(verify::Verify),
    /// Sign a version, so that whoever trusts the key can tell it from a tampered one
    Sign(sign::Sign),
    /// List the versions of every model, and which of them serve
    List(list::List),
    /// Show who changed which version of a model serves, when and why
    History(history::History),
    /// Make another version the one that serves, or put it on trial
    Rollout(rollout::Rollout),
    /// Make the version on trial the one that serves
    Promote(promote::Promote),
    /// Take back the version on trial, or go back to the version that served before
    Rollback(rollback::Rollback),
    /// Unload a version that is on standby
    Retire(retire::Retire),
    /// Give a model another name that requests may use, or take one away
    Alias(alias::Alias),
    /// Measure the quality of a version on labelled pairs
    Evaluate(evaluate::Evaluate),
    /// Whether the traffic is what a model was meant to see
    #[command(subcommand)]
    Drift(drift::Drift),
    /// Measure a server under load
    Bench(Box<bench::Bench>),
    /// Ask the server on this machine whether it is alive
    Health(health::Health),
    /// Keys of those who may use a server
    #[command(subcommand)]
    Key(key::Key),
}

/// Runs the command and says how it went. Failures are one sentence on standard error.
pub fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Serve(command) => command.run(),
        Command::Import(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Sign(command) => command.run(),
        Command::List(command) => command.run(),
        Command::History(command) => command.run(),
        Command::Rollout(command) => command.run(),
        Command::Promote(command) => command.run(),
        Command::Rollback(command) => command.run(),
        Command::Retire(command) => command.run(),
        Command::Alias(command) => command.run(),
        Command::Evaluate(command) => command.run(),
        Command::Drift(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Health(command) => command.run(),
        Command::Key(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint_line("error", &failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// The exit code of a version that may not serve.
const NOT_PASSED: u8 = 3;

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

/// Speaks of what does not keep the command from its work, and should be seen to.
fn warn_line(message: impl std::fmt::Display) {
    eprint_line("warning", message);
}

/// Not `eprintln!`, which panics where nobody can be told.
fn eprint_line(kind: &str, message: impl std::fmt::Display) {
    let _nobody_is_left_to_tell = writeln!(io::stderr(), "{kind}: {message}");
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
