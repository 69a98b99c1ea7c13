//! Where a repository is: a directory, or a bucket by URL whose credentials and endpoint the environment names.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use reqwest::Url;

use super::{RepositoryError, Result};
use crate::tls;

/// What `url` names, before anything of it is looked at.
pub(super) enum Place {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A bucket.
    Bucket(Bucket),
}

/// A bucket and the prefix of everything in it that is the repository's.
pub(super) struct Bucket {
    kind: Kind,
    url: Url,
    prefix: Key,
}

#[derive(Clone, Copy)]
enum Kind {
    S3,
    Google,
    Azure,
}

/// Without an answer or a piece of one for that long, a request is tried again. The whole of one may take longer: a file
/// of two gigabytes does, and object_store's own 30 seconds would cut it off.
const STALL: &str = "60s";
const WHOLE_REQUEST: &str = "1h";

/// A store that hiccups is asked again; one that refuses connections is told of within a quarter of a minute, one that takes them and
/// says nothing within three.
const RETRY: RetryConfig = RetryConfig {
    backoff: BackoffConfig {
        init_backoff: Duration::from_millis(200),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    },
    max_retries: 8,
    retry_timeout: Duration::from_secs(180),
};

impl Place {
    /// Reads `url`.
    ///
    /// # Errors
    /// If it is of another kind, or a bucket's with more in it than the bucket and a prefix.
    pub(super) fn parse(url: &str) -> Result<Self> {
        let (scheme, path) = match url.split_once("://") {
            None => return Ok(Self::Directory(PathBuf::from(url))),
            Some(parts) => parts,
        };
        let kind = match scheme {
            "file" => return Ok(Self::Directory(PathBuf::from(path))),
            "s3" => Kind::S3,
            "gs" => Kind::Google,
            "az" => Kind::Azure,
            _ => return Err(RepositoryError::UnsupportedUrl(url.to_owned())),
        };
        let bad = || RepositoryError::BadBucketUrl { scheme: scheme.to_owned() };
        let url = Url::parse(url).map_err(|_| bad())?;
        let plain = url.host_str().is_some_and(|bucket| !bucket.is_empty())
            && url.username().is_empty()
            && url.password().is_none()
            && url.port().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        let prefix = Key::from_url_path(url.path()).map_err(|_| bad())?;
        if plain { Ok(Self::Bucket(Bucket { kind, url, prefix })) } else { Err(bad()) }
    }
}

impl Bucket {
    /// As errors name it.
    pub(super) fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The repository's part of the bucket, as `variables` say that it is to be reached. Asks nobody yet.
    ///
    /// # Errors
    /// If they do not go together.
    pub(super) fn connect(&self, variables: &[(String, String)]) -> Result<Arc<dyn ObjectStore>> {
        tls::install_provider();
        let store = match self.kind {
            Kind::S3 => self.amazon(variables)?,
            Kind::Google => self.google(variables)?,
            Kind::Azure => self.azure(variables)?,
        };
        Ok(Arc::new(PrefixStore::new(store, self.prefix.clone())))
    }

    fn amazon(&self, variables: &[(String, String)]) -> Result<Arc<dyn ObjectStore>> {
        let builder = AmazonS3Builder::new()
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), WHOLE_REQUEST)
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ReadTimeout), STALL);
        let builder = settings(variables, "AWS_", "")
            .fold(builder, |builder, (key, value)| builder.with_config(key, value))
            .with_url(self.url())
            .with_retry(RETRY)
            // After the variables: without it nothing keeps two imports from one number.
            .with_conditional_put(S3ConditionalPut::ETagMatch);
        // Here, because the client would only say "builder error", and not before it is used.
        let set = |key| builder.get_config_value(&key).unwrap_or_default();
        let plain = [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint]
            .into_iter()
            .any(|key| set(key).starts_with("http://"));
        if plain && set(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp)) == "false" {
            return Err(RepositoryError::PlainHttp { url: self.url().to_owned() });
        }
        self.built(builder.build())
    }

    fn google(&self, variables: &[(String, String)]) -> Result<Arc<dyn ObjectStore>> {
        let builder = GoogleCloudStorageBuilder::new()
            .with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), WHOLE_REQUEST)
            .with_config(GoogleConfigKey::Client(ClientConfigKey::ReadTimeout), STALL);
        let builder = settings(variables, "GOOGLE_", "SERVICE_ACCOUNT")
            .fold(builder, |builder, (key, value)| builder.with_config(key, value))
            .with_url(self.url())
            .with_retry(RETRY);
        self.built(builder.build())
    }

    fn azure(&self, variables: &[(String, String)]) -> Result<Arc<dyn ObjectStore>> {
        let builder = MicrosoftAzureBuilder::new()
            .with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), WHOLE_REQUEST)
            .with_config(AzureConfigKey::Client(ClientConfigKey::ReadTimeout), STALL);
        let builder = settings(variables, "AZURE_", "IDENTITY_ENDPOINT")
            .fold(builder, |builder, (key, value)| builder.with_config(key, value))
            .with_url(self.url())
            .with_retry(RETRY);
        self.built(builder.build())
    }

    fn built<S: ObjectStore>(&self, store: object_store::Result<S>) -> Result<Arc<dyn ObjectStore>> {
        match store {
            Ok(store) => Ok(Arc::new(store)),
            Err(source) => Err(RepositoryError::of_store(self.url(), source)),
        }
    }
}

/// What the variables that begin with `prefix`, and the one named `other`, set. These are those that the builders' own
/// `from_env` reads; but a variable that is empty is not set, as many deployments mean it.
fn settings<K: FromStr>(
    variables: &[(String, String)],
    prefix: &str,
    other: &str,
) -> impl Iterator<Item = (K, String)> {
    let meant = variables
        .iter()
        .filter(move |(name, value)| (name.starts_with(prefix) || name == other) && !value.trim().is_empty());
    meant.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(url: &str) -> Bucket {
        match Place::parse(url) {
            Ok(Place::Bucket(bucket)) => bucket,
            _ => panic!("{url} is no bucket"),
        }
    }

    fn variables(set: &[(&str, &str)]) -> Vec<(String, String)> {
        set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn urls_are_directories_or_buckets_with_a_prefix() {
        for (url, path) in [("models", "models"), ("/a/b", "/a/b"), ("file:///a/b", "/a/b")] {
            assert!(matches!(Place::parse(url), Ok(Place::Directory(found)) if found.as_os_str() == path));
        }
        for (url, prefix) in [
            ("s3://bucket", ""),
            ("s3://bucket/", ""),
            ("gs://my_bucket/models/", "models"),
            ("az://container/a%20b/c", "a b/c"),
        ] {
            assert_eq!(bucket(url).prefix.as_ref(), prefix, "{url}");
        }
        assert!(matches!(Place::parse("ftp://host/a"), Err(RepositoryError::UnsupportedUrl(_))));
    }

    #[test]
    fn what_is_no_bucket_is_refused_and_no_secret_told() {
        for url in [
            "s3://",
            "s3:///prefix",
            "s3://key:SECRET@bucket/a",
            "s3://SECRET@b",
            "gs://b/a?token=SECRET",
            "az://b:1/a",
        ] {
            let Err(error) = Place::parse(url) else { panic!("{url} was taken") };
            assert!(matches!(error, RepositoryError::BadBucketUrl { .. }), "{url}: {error}");
            assert!(!error.to_string().contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn buckets_of_all_kinds_are_connected_to_without_a_panic() {
        let azure = [
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            // Base64, as all such keys are.
            ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5"),
        ];
        bucket("s3://bucket/a").connect(&[]).unwrap();
        bucket("gs://bucket/a").connect(&[]).unwrap();
        bucket("az://container/a").connect(&variables(&azure)).unwrap();
        let error = bucket("az://container/a").connect(&[]).unwrap_err().to_string();
        assert!(
            error.contains("`az://container/a` failed") && error.to_lowercase().contains("account"),
            "{error}"
        );
    }

    #[test]
    fn a_plain_endpoint_has_to_be_allowed() {
        for name in ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"] {
            let endpoint = (name, "http://127.0.0.1:1");
            let error = bucket("s3://bucket/a").connect(&variables(&[endpoint])).unwrap_err().to_string();
            assert!(error.contains("`s3://bucket/a`") && error.contains("AWS_ALLOW_HTTP=true"), "{error}");
            bucket("s3://bucket/a").connect(&variables(&[endpoint, ("AWS_ALLOW_HTTP", "true")])).unwrap();
        }
    }

    #[test]
    fn variables_set_what_they_name_and_empty_ones_nothing() {
        let given = variables(&[
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ENDPOINT_URL", " "),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_NONSENSE", "1"),
            ("REGION", "elsewhere"),
        ]);
        let set: Vec<(AmazonS3ConfigKey, String)> = settings(&given, "AWS_", "").collect();
        assert_eq!(
            set,
            [
                (AmazonS3ConfigKey::Region, "eu-central-1".to_owned()),
                (AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), "true".to_owned()),
            ]
        );
        let given = variables(&[("SERVICE_ACCOUNT", "/key.json"), ("GOOGLE_BUCKET", "b")]);
        let set: Vec<(GoogleConfigKey, String)> = settings(&given, "GOOGLE_", "SERVICE_ACCOUNT").collect();
        assert_eq!(set.len(), 2);
        let given = variables(&[("IDENTITY_ENDPOINT", "http://127.0.0.1/msi")]);
        let set: Vec<(AzureConfigKey, String)> = settings(&given, "AZURE_", "IDENTITY_ENDPOINT").collect();
        assert_eq!(set[0].0, AzureConfigKey::MsiEndpoint);
    }
}
