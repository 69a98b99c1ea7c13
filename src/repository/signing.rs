//! Ed25519 keys: one that signs manifests, and those whose signatures are trusted. In PEM (PKCS #8 and SubjectPublicKeyInfo, RFC 8410),
//! so that openssl can make them, sign and verify as well.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest, Sha256};

/// What stands before the 32 bytes of a private key in PKCS #8. Version 1, without the public key: openssl reads no other.
const PRIVATE_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// What stands before the 32 bytes of a public key.
const PUBLIC_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The lines around a public key in PEM.
const PUBLIC_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PUBLIC_END: &str = "-----END PUBLIC KEY-----";

/// Bytes of a signature.
pub(super) const SIGNATURE_BYTES: usize = 64;

/// A key that signs.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Reads a private key in PEM.
    ///
    /// # Errors
    /// In a sentence without anything of the key, if the file cannot be read or holds no ed25519 key.
    pub fn read(path: &Path) -> Result<Self, String> {
        let told =
            |reason: String| format!("the signing key in `{}` cannot be used: {reason}", path.display());
        let pem = fs::read(path).map_err(|error| told(error.to_string()))?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| {
            told("it holds no `PRIVATE KEY` in PEM; `sextant sign --new-key FILE` makes one".to_owned())
        })?;
        // "Maybe unchecked": openssl writes no public key beside the private one to check it against.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der());
        pair.map(Self).map_err(|_| told("it is no ed25519 key".to_owned()))
    }

    /// Makes a key and writes it to the new file `path`, for its owner alone.
    ///
    /// # Errors
    /// If the file is there, or cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut seed = [0; 32];
        let failed = |_| io::Error::other("the system gives no random numbers");
        SystemRandom::new().fill(&mut seed).map_err(failed)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed)
            .map_err(|_| io::Error::other("the random numbers make no key"))?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(pem("PRIVATE KEY", &[&PRIVATE_HEAD[..], &seed].concat()).as_bytes())?;
        file.sync_all()?;
        Ok(Self(pair))
    }

    /// The key that its signatures are verified with.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey::new(bytes, None)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

/// A key that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// The name in the file, if it has one there, else the id.
    pub name: String,
    /// The first 16 hexadecimal digits of the key's SHA-256: names the file of a signature, and proves nothing.
    pub id: String,
    bytes: [u8; 32],
}

impl PublicKey {
    fn new(bytes: [u8; 32], name: Option<&str>) -> Self {
        let mut id = hex::encode(Sha256::digest(bytes));
        id.truncate(16);
        Self { name: name.map_or_else(|| id.clone(), str::to_owned), id, bytes }
    }

    /// The key in PEM.
    pub fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &[&PUBLIC_HEAD[..], &self.bytes].concat())
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.bytes).verify(message, signature).is_ok()
    }
}

/// The key's name and id, as a person tells it from others.
impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name == self.id {
            write!(formatter, "{}", self.id)
        } else {
            write!(formatter, "{} ({})", self.name, self.id)
        }
    }
}

/// Keys of which one must have signed a version before it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKeys {
    file: PathBuf,
    keys: Arc<[PublicKey]>,
}

impl TrustedKeys {
    /// Reads a file of public keys in PEM. A line `# name` above a key names it.
    ///
    /// # Errors
    /// In a sentence, if the file cannot be read, or holds anything else, or no key.
    pub fn read(path: &Path) -> Result<Self, String> {
        let told =
            |reason: String| format!("the trusted keys in `{}` cannot be used: {reason}", path.display());
        let text = fs::read_to_string(path).map_err(|error| told(error.to_string()))?;
        let keys = Self::parse(&text).map_err(told)?;
        Ok(Self { file: path.to_owned(), keys: keys.into() })
    }

    pub(crate) fn parse(text: &str) -> Result<Vec<PublicKey>, String> {
        let mut keys: Vec<PublicKey> = Vec::new();
        let mut name = None;
        let mut lines = text.lines().map(str::trim_end);
        while let Some(line) = lines.next() {
            let number = keys.len() + 1;
            let no_key = || format!("key {number} is no `PUBLIC KEY` in PEM");
            if line == PUBLIC_BEGIN {
                let mut body = String::new();
                loop {
                    match lines.next() {
                        Some(PUBLIC_END) => break,
                        Some(line) => body += line,
                        None => return Err(no_key()),
                    }
                }
                let der = STANDARD.decode(body).map_err(|_| no_key())?;
                let bytes = der.strip_prefix(&PUBLIC_HEAD[..]).and_then(|bytes| bytes.try_into().ok());
                let bytes: [u8; 32] = bytes.ok_or_else(|| format!("key {number} is no ed25519 key"))?;
                keys.push(PublicKey::new(bytes, name.take()));
            } else if let Some(comment) = line.trim_start().strip_prefix('#') {
                // A key that somebody commented out is no name.
                name = Some(comment.trim()).filter(|name| !name.is_empty() && !name.starts_with("-----"));
            } else if line.trim_start().starts_with("-----BEGIN") {
                // A private key has no business here, and whoever put it here should hear of it.
                return Err(no_key());
            } else if !line.is_empty() {
                return Err(format!("`{line}` is neither a key in PEM nor a comment, as # name"));
            }
        }
        if keys.is_empty() { Err("there is no key in it".to_owned()) } else { Ok(keys) }
    }

    /// Where they were read.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether this key is one of them, by whatever name.
    pub fn has(&self, key: &PublicKey) -> bool {
        self.keys.iter().any(|known| known.bytes == key.bytes)
    }

    /// All of them, in the order of the file.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }
}

/// PEM of lines of 64 characters (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text += line;
        text.push('\n');
        rest = after;
    }
    text + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 8410, 10.1 and 10.3.
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    #[test]
    fn the_keys_of_the_standard_are_read_and_written() {
        let (_directory, path) = file(PRIVATE);
        let key = SigningKey::read(&path).unwrap();
        assert_eq!(key.public().to_pem(), PUBLIC);
        let read = TrustedKeys::parse(PUBLIC).unwrap();
        assert_eq!(read, [key.public()]);
        let signature = key.sign(b"a");
        assert!(read[0].verifies(b"a", &signature) && !read[0].verifies(b"b", &signature));
        assert!(!read[0].verifies(b"a", &signature[..63]) && !read[0].verifies(b"a", b""));
    }

    #[test]
    fn a_new_key_is_its_owners_alone_and_no_file_is_overwritten() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new.pem");
        let made = SigningKey::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SigningKey::read(&path).unwrap().public(), made.public());
        let text = fs::read(&path).unwrap();
        assert_eq!(SigningKey::create(&path).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), text);
        let other = SigningKey::create(&directory.path().join("other.pem")).unwrap();
        assert_ne!(other.public(), made.public());
    }

    #[test]
    fn the_comment_above_a_key_is_its_name() {
        let keys =
            TrustedKeys::parse(&format!("# old\n# release 2026\n{PUBLIC}\n\n#\n{PUBLIC}# end\n")).unwrap();
        let id = &keys[0].id;
        assert_eq!((id.len(), keys[0].to_string()), (16, format!("release 2026 ({id})")));
        assert_eq!(keys[1].to_string(), *id);
        let retired = format!("# retired\n# {}\n{PUBLIC}", PUBLIC.trim_end().replace('\n', "\n# "));
        let keys = TrustedKeys::parse(&retired.replace('\n', "\r\n")).unwrap();
        assert_eq!((keys.len(), &keys[0].name), (1, id));
    }

    #[test]
    fn what_is_no_key_is_refused_by_its_place_and_no_secret_is_told() {
        let rsa =
            "-----BEGIN PUBLIC KEY-----\nMDwwDQYJKoZIhvcNAQEBBQADKwAwKAIhAA==\n-----END PUBLIC KEY-----\n";
        for (text, expected) in [
            ("", "no key in it"),
            ("# only a comment\n", "no key in it"),
            ("release\n", "`release` is neither"),
            (rsa, "key 1 is no ed25519 key"),
            (PRIVATE, "key 1 is no `PUBLIC KEY`"),
            ("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n", "key 1 is no `PUBLIC KEY`"),
            (&PUBLIC[..60], "key 1 is no `PUBLIC KEY`"),
            (&format!("{PUBLIC}{PRIVATE}"), "key 2 is no `PUBLIC KEY`"),
            (&format!("{PRIVATE}{PUBLIC}"), "key 1 is no `PUBLIC KEY`"),
            (&PUBLIC.replacen('\n', &format!("\n{PRIVATE}"), 1), "key 1 is no `PUBLIC KEY`"),
            (&format!(" {PUBLIC}"), "key 1 is no `PUBLIC KEY`"),
            (&PUBLIC.replace('\n', ""), "key 1 is no `PUBLIC KEY`"),
            (&PUBLIC.replacen("PUBLIC KEY", "CERTIFICATE", 1), "key 1 is no `PUBLIC KEY`"),
            (&PUBLIC.replacen("-----B", "x-----B", 1), "` is neither a key in PEM nor a comment"),
            // Commented out is not trusted: as a whole, and by its first line alone.
            (&format!("# {}", PUBLIC.trim_end().replace('\n', "\n# ")), "no key in it"),
            (&format!("# {PUBLIC}"), "` is neither a key in PEM nor a comment"),
        ] {
            let error = TrustedKeys::parse(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("MC4C"), "{error}");
        }
        for text in ["", PUBLIC, rsa, &PRIVATE.replace("BCIEI", "BCIEJ")] {
            let (_directory, path) = file(text);
            let error = SigningKey::read(&path).err().unwrap();
            assert!(error.contains("key.pem` cannot be used: it ") && !error.contains("MC4C"), "{error}");
        }
        assert!(TrustedKeys::read(Path::new("/nowhere")).unwrap_err().contains("/nowhere"));
        assert!(SigningKey::read(Path::new("/nowhere")).err().unwrap().contains("/nowhere"));
    }
}
