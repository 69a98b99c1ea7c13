//! States of drift, from files or from a server.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cli::Failure;
use crate::drift::state::State;

/// What a server answers of a model, and what a file holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct States {
    /// One of each version that is held against a reference.
    pub(super) versions: Vec<State>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected what GET /admin/v1/models/{model}/drift answers, or one version of it"
)]
enum File {
    Answer(States),
    One(Box<State>),
}

/// Every state in the files, in their order.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<State>, Failure> {
    let mut states = Vec::new();
    for path in files {
        let failed = |error: &dyn std::fmt::Display| Failure {
            message: format!("`{}` holds no state of drift: {error}", path.display()),
            code: 1,
        };
        let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
        match serde_json::from_str(&text).map_err(|error| failed(&error))? {
            File::Answer(answer) => states.extend(answer.versions),
            File::One(state) => states.push(*state),
        }
    }
    Ok(states)
}
