//! What a repository says of a model: its versions, and what they do.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::document::Rollout;
use super::log::Log;
use super::roles::{Role, Trial};
use super::seen::Damaged;
use crate::repository::manifest::{Precision, Space};
use crate::repository::{Repository, RepositoryError};

/// A model and its versions.
#[derive(Debug, Serialize, Deserialize)]
pub struct Overview {
    /// The model.
    pub model: String,
    /// Number of the document that says who serves.
    pub rollout: Option<u64>,
    /// The version on trial, and its shares of the requests.
    pub trial: Option<Trial>,
    /// Further names of the model.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// What is wrong with documents above it.
    pub damaged: Vec<String>,
    /// Its published versions.
    pub versions: Vec<Version>,
}

/// A published version.
#[derive(Debug, Serialize, Deserialize)]
pub struct Version {
    /// Its number.
    pub version: u32,
    /// Unknown if no document of the log can be read.
    pub role: Option<Role>,
    /// The rest.
    #[serde(flatten)]
    pub facts: Facts,
}

/// What a version's manifest says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Facts {
    /// What is worth a column.
    Whole {
        /// The space it writes into.
        space: Space,
        /// Of its weights.
        precision: Precision,
        /// Of its vectors.
        dimensions: usize,
        /// RFC 3339, UTC.
        created: String,
    },
    /// It cannot be read.
    Unreadable {
        /// Why not.
        damaged: String,
    },
}

impl Overview {
    /// Looks at a model.
    ///
    /// # Errors
    /// If the repository fails. What is damaged is no failure: it is in the overview.
    pub async fn read(repository: &Repository, model: &str) -> Result<Self, RepositoryError> {
        let seen = Log::open(repository, model)?.current().await?;
        let state = seen.state();
        let mut versions = Vec::new();
        for version in repository.versions(model).await? {
            let facts = match repository.manifest(model, version).await {
                Ok(manifest) => Facts::Whole {
                    space: manifest.space,
                    precision: manifest.precision,
                    dimensions: manifest.dimensions,
                    created: manifest.created,
                },
                Err(error @ (RepositoryError::BadManifest { .. } | RepositoryError::NotTrusted { .. })) => {
                    Facts::Unreadable { damaged: error.to_string() }
                }
                Err(error) => return Err(error),
            };
            versions.push(Version { version, role: state.role(version), facts });
        }
        Ok(Self {
            model: model.to_owned(),
            rollout: seen.good.as_ref().map(|rollout| rollout.number),
            trial: seen.good.as_ref().and_then(|rollout| rollout.trial),
            aliases: seen.good.as_ref().map(|rollout| rollout.aliases.clone()).unwrap_or_default(),
            damaged: seen.damaged.iter().map(ToString::to_string).collect(),
            versions,
        })
    }

    /// A document of the log as JSON.
    pub fn document(document: &Result<Rollout, Damaged>) -> Value {
        match document {
            Ok(rollout) => json!(rollout),
            Err(Damaged { number, reason, .. }) => json!({ "number": number, "damaged": reason.to_string() }),
        }
    }
}
