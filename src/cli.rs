//! The command line: one file per command.

mod bench;
mod evaluate;
mod import;
mod progress;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An embedding server that keeps vectors true.
#[derive(Debug, Parser)]
#[command(name = "sextant", version, after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage.")]
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

#[expect(clippy::print_stderr, reason = "the one place where commands speak of failure")]
fn eprint_line(message: &str) {
    eprintln!("error: {message}");
}

#[expect(clippy::print_stdout, reason = "the one place where commands print results")]
fn print_line(message: &str) {
    println!("{message}");
}
