//! Who may change what is served: keys with names, or whoever is on this machine where there are none.

use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderName, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::http::App;
use crate::http::error::{ApiError, Kind};

/// Shorter keys can be guessed.
const SHORTEST_KEY: usize = 16;
/// As the log names whoever has no key.
const LOOPBACK: &str = "loopback";

/// Address of the other end of a connection, put beside each request when its connection is accepted.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The keys of the administrators. No key is ever printed.
#[derive(Clone, Default)]
pub struct AdminKeys {
    file: Option<PathBuf>,
    /// Names, and the digests of their keys: all of one length, whatever the keys are.
    keys: Arc<[(String, [u8; 32])]>,
}

impl AdminKeys {
    /// Reads a file of lines `name:key`; empty lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// What is wrong with it, without a key.
    pub fn read(path: &Path) -> Result<Self, String> {
        let told = |reason: String| format!("`admin_keys_file` is `{}`: {reason}", path.display());
        let text = fs::read_to_string(path).map_err(|error| told(error.to_string()))?;
        let mut keys: Vec<(String, [u8; 32])> = Vec::new();
        let lines = (1..).zip(text.lines().map(str::trim));
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let wrong = |reason: &str| Err(told(format!("line {number}: {reason}")));
            let Some((name, key)) = line.split_once(':').map(|(name, key)| (name.trim(), key.trim())) else {
                return wrong("expected name:key");
            };
            if name.is_empty() || key.len() < SHORTEST_KEY {
                return wrong(&format!("expected a name and a key of at least {SHORTEST_KEY} characters"));
            }
            if keys.iter().any(|(known, _)| known == name) {
                return wrong(&format!("the name `{name}` is there twice"));
            }
            keys.push((name.to_owned(), Sha256::digest(key).into()));
        }
        if keys.is_empty() {
            return Err(told("there is no key in it".to_owned()));
        }
        Ok(Self { file: Some(path.to_owned()), keys: keys.into() })
    }

    /// Where they were read.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The name of the key, found in a time that says nothing of the keys.
    fn name(&self, key: &str) -> Option<&str> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let mut found = None;
        for (name, known) in &*self.keys {
            if bool::from(known.ct_eq(&digest)) {
                found = Some(name.as_str());
            }
        }
        found
    }
}

impl fmt::Debug for AdminKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.keys.iter().map(|(name, _)| name)).finish()
    }
}

/// Whoever asks is an administrator: a handler that takes this answers nobody else.
pub(in crate::http) struct Administrator {
    /// For the rollout log.
    pub(in crate::http) name: String,
}

impl FromRequestParts<App> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let keys = &app.0.config.admin_keys;
        if keys.keys.is_empty() {
            let peer = parts.extensions.get::<Peer>();
            return if peer.is_some_and(|Peer(address)| is_local(address.ip())) && !came_from_elsewhere(parts)
            {
                Ok(Self { name: LOOPBACK.to_owned() })
            } else {
                let message = "no admin key is set, so only this machine may ask: see --admin-keys-file";
                Err(ApiError::new(Kind::Forbidden, message))
            };
        }
        let given = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = given.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
        match key.and_then(|key| keys.name(key)) {
            Some(name) => Ok(Self { name: name.to_owned() }),
            None => {
                Err(ApiError::new(Kind::Unauthorized, "this needs an admin key: authorization: Bearer KEY"))
            }
        }
    }
}

fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether a proxy on this machine passed it on, or a page in a browser on it had it sent: what says so, or another host's name.
/// A proxy that says nothing is not seen: behind one, set a key.
fn came_from_elsewhere(parts: &Parts) -> bool {
    let tells = |name: &HeaderName| {
        ["forwarded", "via", "x-real-ip", "origin"].contains(&name.as_str())
            || name.as_str().starts_with("x-forwarded-")
    };
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let named = parts.uri.authority().cloned().or(host);
    let is_here = |authority: &Authority| {
        let host = authority.host().trim_matches(['[', ']']);
        host == "localhost" || host.parse().is_ok_and(is_local)
    };
    parts.headers.keys().any(tells) || !named.as_ref().is_some_and(is_here)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn read(text: &str) -> Result<AdminKeys, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        AdminKeys::read(file.path())
    }

    #[test]
    fn a_key_has_the_name_it_was_given() {
        let keys =
            read("# who\n #mallory:0123456789abcdeg\nalice: 0123456789abcdef\n\nbob:fedcba9876543210\n")
                .unwrap();
        assert_eq!(keys.name("0123456789abcdef"), Some("alice"));
        assert_eq!(keys.name("fedcba9876543210"), Some("bob"));
        for wrong in ["", "0123456789abcdeg", "0123456789abcde", "0123456789abcdef0", "alice"] {
            assert_eq!(keys.name(wrong), None);
        }
        assert_eq!(format!("{keys:?}"), r#"["alice", "bob"]"#);
    }

    #[test]
    fn a_file_that_is_wrong_is_told_how_and_not_what_is_in_it() {
        for (text, expected) in [
            ("", "no key"),
            ("alice 0123456789abcdef", "line 1: expected name:key"),
            ("# \nalice:secret", "line 2: expected a name and a key of at least 16"),
            (":0123456789abcdef", "line 1: expected a name"),
            ("a:0123456789abcdef\na:0123456789abcdeg", "line 2: the name `a` is there twice"),
        ] {
            let error = read(text).unwrap_err();
            assert!(
                error.contains(expected) && !error.contains("secret") && !error.contains("01234"),
                "{error}"
            );
        }
        assert!(AdminKeys::read(Path::new("/nowhere")).unwrap_err().contains("/nowhere"));
    }

    #[test]
    fn this_machine_is_itself_by_either_protocol() {
        for (address, local) in [
            ("127.0.0.1", true),
            ("127.8.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("::2", false),
        ] {
            assert_eq!(is_local(address.parse().unwrap()), local, "{address}");
        }
    }
}
