//! `sextant drift report`.

use std::path::PathBuf;

use clap::Args;

use super::states::{self, States};
use crate::cli::target::{Place, Target};
use crate::cli::{Failure, print_line};
use crate::drift::report::Report as Page;

#[derive(Debug, Args)]
pub(in crate::cli) struct Report {
    /// The model, of which a server is asked
    #[arg(required_unless_present = "file")]
    model: Option<String>,
    /// Files with what servers answered, or with what `drift merge` printed, instead of a server
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    file: Vec<PathBuf>,
    #[command(flatten)]
    target: Target,
    /// Print the state as JSON
    #[arg(long)]
    json: bool,
}

impl Report {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        let versions = match &self.model {
            None => states::read(&self.file)?,
            Some(model) => {
                let Place::Server(server) = self.target.open()? else {
                    return Err(Failure::usage("drift is counted by servers: name one with --server URL"));
                };
                let path = [model.as_str(), "drift"];
                tokio::runtime::Runtime::new()?.block_on(server.get::<States>(&path))?.versions
            }
        };
        if self.json {
            return print_line(&serde_json::to_string_pretty(&States { versions })?);
        }
        if versions.is_empty() {
            return print_line(
                "no version is held against a drift reference: make one with `sextant drift fit`",
            );
        }
        let pages: Vec<String> = versions.iter().map(|state| Page(state).to_string()).collect();
        print_line(pages.join("\n").trim_end())
    }
}
