//! `sextant drift merge`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use super::states::{self, States};
use crate::cli::{Failure, print_line};
use crate::drift::state::State;

#[derive(Debug, Args)]
pub(in crate::cli) struct Merge {
    /// What GET /admin/v1/models/{model}/drift answered on each replica
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

impl Merge {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        let mut by_version: BTreeMap<String, Vec<State>> = BTreeMap::new();
        for state in states::read(&self.files)? {
            by_version.entry(state.version.clone()).or_default().push(state);
        }
        let versions = by_version.into_values().map(State::merge).collect::<Result<Vec<_>, _>>()?;
        if versions.is_empty() {
            return Err(Failure {
                message: "no version in these files is held against a reference".into(),
                code: 1,
            });
        }
        print_line(&serde_json::to_string_pretty(&States { versions })?)
    }
}
