//! Whether bytes are those that the hub lists, found out while they arrive.

use std::fmt;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// What a file's bytes must hash to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digest {
    /// Of the bytes: large files.
    Sha256([u8; 32]),
    /// SHA-1 of `blob {length}\0` and the bytes, as git names its objects: small files.
    GitBlob([u8; 20]),
}

impl Digest {
    /// Reads 64 hexadecimal digits.
    pub fn sha256(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok().map(|()| Self::Sha256(bytes))
    }

    /// Reads 40 hexadecimal digits.
    pub fn git_blob(text: &str) -> Option<Self> {
        let mut bytes = [0; 20];
        hex::decode_to_slice(text, &mut bytes).ok().map(|()| Self::GitBlob(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(bytes) => write!(formatter, "SHA-256 {}", hex::encode(bytes)),
            Self::GitBlob(bytes) => write!(formatter, "git blob {}", hex::encode(bytes)),
        }
    }
}

/// A digest in the making, of the kind that it will be compared with.
#[derive(Debug, Clone)]
pub(super) enum Checksum {
    Sha256(Sha256),
    GitBlob(Sha1),
    /// The hub gives none for this file.
    Unchecked,
}

impl Checksum {
    /// Of no bytes yet, for a file that will have `size` of them.
    pub fn new(digest: Option<Digest>, size: u64) -> Self {
        match digest {
            Some(Digest::Sha256(_)) => Self::Sha256(Sha256::new()),
            Some(Digest::GitBlob(_)) => {
                Self::GitBlob(Sha1::new().chain_update(format!("blob {size}\0").as_bytes()))
            }
            None => Self::Unchecked,
        }
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::GitBlob(hasher) => hasher.update(bytes),
            Self::Unchecked => {}
        }
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Option<Digest> {
        match self {
            Self::Sha256(hasher) => Some(Digest::Sha256(hasher.finalize().into())),
            Self::GitBlob(hasher) => Some(Digest::GitBlob(hasher.finalize().into())),
            Self::Unchecked => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `printf hello | git hash-object --stdin` and `printf hello | sha256sum` print.
    #[test]
    fn digests_are_those_of_git_and_sha256sum() {
        for digest in [
            Digest::git_blob("b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"),
            Digest::sha256("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
        ] {
            assert!(digest.is_some());
            let mut checksum = Checksum::new(digest, 5);
            checksum.update(b"hel");
            checksum.update(b"lo");
            assert_eq!(checksum.finish(), digest);
        }
    }
}
