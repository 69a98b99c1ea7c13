//! `sextant list`.

use clap::Args;
use serde::Serialize;

use super::arguments::Models;
use super::table::table;
use super::{Failure, print_line, warn_line};
use crate::repository::manifest::{Precision, Space};
use crate::repository::{Repository, RepositoryError};
use crate::rollout::{Log, Role, Rollout};

#[derive(Debug, Args)]
pub(super) struct List {
    /// This model only
    model: Option<String>,
    #[command(flatten)]
    models: Models,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

/// A model and its versions.
#[derive(Serialize)]
struct Listed {
    model: String,
    /// Number of the document that says who serves.
    rollout: Option<u64>,
    /// What is wrong with documents above it.
    damaged: Vec<String>,
    versions: Vec<ListedVersion>,
}

#[derive(Serialize)]
struct ListedVersion {
    version: u32,
    /// Unknown if no document of the log can be read.
    role: Option<Role>,
    #[serde(flatten)]
    facts: Facts,
}

/// What its manifest says.
#[derive(Serialize)]
#[serde(untagged)]
enum Facts {
    Whole { space: Space, precision: Precision, dimensions: usize, created: String },
    Unreadable { damaged: String },
}

impl List {
    pub(super) fn run(self) -> Result<(), Failure> {
        let repository = self.models.open()?;
        let listed = tokio::runtime::Runtime::new()?.block_on(async {
            let mut names = repository.models().await?;
            if let Some(asked) = &self.model {
                if !names.contains(asked) {
                    return Err(Failure { message: unknown(asked, &names), code: 1 });
                }
                names.retain(|name| name == asked);
            }
            let mut listed = Vec::new();
            for name in names {
                listed.push(list(&repository, name).await?);
            }
            Ok(listed)
        })?;
        if self.json {
            return print_line(&serde_json::json!({ "models": listed }).to_string());
        }
        for listed in &listed {
            let versions = listed.versions.iter().filter_map(|version| match &version.facts {
                Facts::Whole { .. } => None,
                Facts::Unreadable { damaged } => Some(damaged),
            });
            listed.damaged.iter().chain(versions).for_each(warn_line);
        }
        let rows: Vec<_> = listed.iter().flat_map(rows).collect();
        print_line(&table(["VERSION", "ROLE", "SPACE", "PRECISION", "DIMENSIONS", "CREATED"], &rows))
    }
}

fn unknown(asked: &str, names: &[String]) -> String {
    match names {
        [] => format!("there is no model `{asked}`: the repository is empty"),
        names => format!("there is no model `{asked}`; there are: {}", names.join(", ")),
    }
}

async fn list(repository: &Repository, model: String) -> Result<Listed, RepositoryError> {
    let seen = Log::open(repository, &model)?.current().await?;
    let state = seen.state();
    let mut versions = Vec::new();
    for version in repository.versions(&model).await? {
        let facts = match repository.manifest(&model, version).await {
            Ok(manifest) => Facts::Whole {
                space: manifest.space,
                precision: manifest.precision,
                dimensions: manifest.dimensions,
                created: manifest.created,
            },
            Err(error @ RepositoryError::BadManifest { .. }) => {
                Facts::Unreadable { damaged: error.to_string() }
            }
            Err(error) => return Err(error),
        };
        versions.push(ListedVersion { version, role: state.role(version), facts });
    }
    let rollout = seen.good.as_ref().map(|Rollout { number, .. }| *number);
    let damaged = seen.damaged.iter().map(ToString::to_string).collect();
    Ok(Listed { model, rollout, damaged, versions })
}

fn rows(listed: &Listed) -> impl Iterator<Item = [String; 6]> {
    listed.versions.iter().map(|ListedVersion { version, role, facts }| {
        let name = format!("{}@{version}", listed.model);
        let role = role.map_or("unknown".to_owned(), |role| role.to_string());
        match facts {
            Facts::Whole { space, precision, dimensions, created } => [
                name,
                role,
                space.to_string(),
                precision.to_string(),
                dimensions.to_string(),
                created.clone(),
            ],
            Facts::Unreadable { .. } => {
                [name, role, "damaged".to_owned(), String::new(), String::new(), String::new()]
            }
        }
    })
}
