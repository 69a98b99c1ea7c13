//! A key itself, for the moment in which it is made, and the digest by which it is known ever after.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// Characters of a key at least: 128 random bits take so many in base64.
pub const SHORTEST_KEY: usize = 22;
/// Tells whoever finds a key, and the programs that look for such, whose it is.
const PREFIX: &str = "sxt_";
const ALGORITHM: &str = "sha256:";

/// A key that was just made. It is shown once, by whoever asks for its text; it is never printed by accident.
pub struct Secret(String);

impl Secret {
    /// 256 random bits of the operating system.
    ///
    /// # Errors
    /// If the system gives none.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits)?;
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bits))))
    }

    /// What a client sends.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// SHA-256 of a key, written `sha256:` and 64 hexadecimal digits.
///
/// A slow or salted hash is for passwords, which can be guessed. Of 128 random bits nobody guesses one, however fast each try is, and a
/// slow one would let every request with a wrong key take as long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest<B = u8>(pub(super) [B; 32]);

impl Digest {
    /// Of what a client sends.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }
}

/// Generic over the byte, so that a test can count the comparisons. For slices `subtle` promises one comparison for each pair of elements,
/// without a branch on what it finds.
impl<B: ConstantTimeEq> ConstantTimeEq for Digest<B> {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{ALGORITHM}{}", hex::encode(self.0))
    }
}

impl FromStr for Digest {
    /// Nothing: what is wrong may be a key that was put in the digest's place, so nobody repeats it.
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut digest = [0; 32];
        let digits = text.strip_prefix(ALGORITHM).ok_or(())?;
        hex::decode_to_slice(digits, &mut digest).map_err(|_| ())?;
        Ok(Self(digest))
    }
}
