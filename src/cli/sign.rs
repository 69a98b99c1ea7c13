//! `sextant sign`.

use std::path::PathBuf;

use clap::Args;

use super::arguments::{Models, VersionName};
use super::{Failure, print_line};
use crate::repository::signing::SigningKey;

#[derive(Debug, Args)]
pub(super) struct Sign {
    /// The version, as minilm@2
    #[arg(required_unless_present = "new_key")]
    version: Option<VersionName>,
    #[command(flatten)]
    models: Option<Models>,
    /// The private key, in PEM
    #[arg(long, value_name = "FILE", env = "SEXTANT_SIGN", required_unless_present = "new_key")]
    key: Option<PathBuf>,
    /// Make a private key in this new file instead, and print its public key
    #[arg(long, value_name = "FILE", conflicts_with = "version")]
    new_key: Option<PathBuf>,
}

impl Sign {
    pub(super) fn run(self) -> Result<(), Failure> {
        if let Some(path) = &self.new_key {
            let key = SigningKey::create(path).map_err(|error| Failure {
                message: format!("cannot make a key in `{}`: {error}", path.display()),
                code: 1,
            })?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            return print_line(&format!("# {name}\n{}", key.public().to_pem().trim_end()));
        }
        let (Some(VersionName { model, version }), Some(key)) = (&self.version, &self.key) else {
            return Err(Failure::usage("give a version and `--key FILE`, or `--new-key FILE`"));
        };
        let Some(models) = &self.models else {
            return Err(Failure::usage("say where the models are: --models URL"));
        };
        let key = SigningKey::read(key).map_err(Failure::usage)?;
        let repository = models.open()?;
        tokio::runtime::Runtime::new()?.block_on(repository.sign(model, *version, &key))?;
        print_line(&format!("{model}@{version} is signed with the key {}", key.public().id))
    }
}
