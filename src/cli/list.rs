//! `sextant list`.

use clap::Args;
use serde::Deserialize;

use super::table::table;
use super::target::{Place, Server, Target};
use super::{Failure, print_line, warn_line};
use crate::repository::Repository;
use crate::rollout::{Facts, Overview, Role, Trial, Version};

#[derive(Debug, Args)]
pub(super) struct List {
    /// This model only
    model: Option<String>,
    #[command(flatten)]
    target: Target,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) fn run(self) -> Result<(), Failure> {
        let place = self.target.open()?;
        let listed = tokio::runtime::Runtime::new()?.block_on(async {
            match &place {
                Place::Server(server) => of_server(server, self.model.as_deref()).await,
                Place::Repository(repository) => of_repository(repository, self.model.as_deref()).await,
            }
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
        let mut text = table(["VERSION", "ROLE", "SPACE", "PRECISION", "DIMENSIONS", "CREATED"], &rows);
        for Overview { model, aliases, .. } in listed.iter().filter(|listed| !listed.aliases.is_empty()) {
            text += &format!("\n{model} answers to {} as well", aliases.join(", "));
        }
        print_line(&text)
    }
}

async fn of_server(server: &Server, model: Option<&str>) -> Result<Vec<Overview>, Failure> {
    #[derive(Deserialize)]
    struct Models {
        models: Vec<Overview>,
    }
    match model {
        Some(model) => Ok(vec![server.get(&[model]).await?]),
        None => Ok(server.get::<Models>(&[]).await?.models),
    }
}

async fn of_repository(repository: &Repository, model: Option<&str>) -> Result<Vec<Overview>, Failure> {
    let mut names = repository.models().await?;
    if let Some(asked) = model {
        if !names.iter().any(|name| name == asked) {
            return Err(Failure { message: unknown(asked, &names), code: 1 });
        }
        names.retain(|name| name == asked);
    }
    let mut listed = Vec::new();
    for name in names {
        listed.push(Overview::read(repository, &name).await?);
    }
    Ok(listed)
}

fn unknown(asked: &str, names: &[String]) -> String {
    match names {
        [] => format!("there is no model `{asked}`: the repository is empty"),
        names => format!("there is no model `{asked}`; there are: {}", names.join(", ")),
    }
}

fn rows(listed: &Overview) -> impl Iterator<Item = [String; 6]> {
    listed.versions.iter().map(|Version { version, role, facts }| {
        let name = format!("{}@{version}", listed.model);
        let role = match (role, listed.trial) {
            (Some(role @ (Role::Canary | Role::Shadow)), Some(trial)) => shares(*role, trial),
            (Some(role), _) => role.to_string(),
            (None, _) => "unknown".to_owned(),
        };
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

/// The role of a version on trial, with its share.
fn shares(role: Role, trial: Trial) -> String {
    let percent = if role == Role::Canary { trial.canary_percent } else { trial.shadow_percent };
    percent.map_or_else(|| role.to_string(), |percent| format!("{role} {percent}"))
}
