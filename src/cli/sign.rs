//! `sextant sign`.

use std::path::PathBuf;

use clap::Args;

use super::arguments::VersionName;
use super::{Failure, print_line};
use crate::repository::Repository;
use crate::repository::signing::SigningKey;

#[derive(Debug, Args)]
pub(super) struct Sign {
    /// The version, as minilm@2
    #[arg(required_unless_present = "new_key")]
    version: Option<VersionName>,
    /// Directory of the models, or a bucket: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix
    #[arg(long, value_name = "URL", env = "SEXTANT_MODELS", required_unless_present = "new_key")]
    models: Option<String>,
    /// The private key, in PEM
    #[arg(long, value_name = "FILE", env = "SEXTANT_SIGN", required_unless_present = "new_key")]
    key: Option<PathBuf>,
    /// Sign only a manifest of this SHA-256, as `sextant verify` prints it [default: the one that lies there]
    #[arg(long, value_name = "DIGEST", conflicts_with = "new_key", value_parser = parse_sha256)]
    sha256: Option<String>,
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
        let (Some(VersionName { model, version }), Some(models), Some(key)) =
            (&self.version, &self.models, &self.key)
        else {
            return Err(Failure::usage(
                "give a version, `--models URL` and `--key FILE`, or `--new-key FILE`",
            ));
        };
        let key = SigningKey::read(key).map_err(Failure::usage)?;
        let repository = Repository::open(models, false)?;
        let signed = repository.sign(model, *version, &key, self.sha256.as_deref());
        let sha256 = tokio::runtime::Runtime::new()?.block_on(signed)?;
        print_line(&format!(
            "{model}@{version} is signed with the key {}: the SHA-256 of its manifest is {sha256}",
            key.public().id
        ))
    }
}

fn parse_sha256(text: &str) -> Result<String, String> {
    let digest = text.to_ascii_lowercase();
    let is_one = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_one { Ok(digest) } else { Err("expected a SHA-256, 64 hexadecimal digits".to_owned()) }
}
