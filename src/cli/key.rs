//! `sextant key`.

use std::io::{self, Read as _, Write as _};

use clap::{Args, Subcommand};

use super::{Failure, print_line};
use crate::keys::{Digest, Entry, Limits, Role, SHORTEST_KEY, Secret};

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Make a key: it goes to standard error, once and alone, and its entry for the keys file to standard output
    ///
    /// As `sextant key new search --role embed >> keys.toml`, and `2> FILE` for whoever is to have the key.
    New(Box<New>),
    /// Print the hash of a key on standard input, for the keys file
    Hash,
}

#[derive(Debug, Args)]
pub(super) struct New {
    /// The key's name, as logs and metrics show it
    name: String,
    /// What it is for; more than once for several
    #[arg(long, value_enum, required = true)]
    role: Vec<Role>,
    /// A model that it may use; more than once for several [default: all]
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Requests a second in the long run [default: no limit]
    #[arg(long, value_name = "N")]
    requests_per_second: Option<std::num::NonZeroU32>,
    /// Requests at once after a pause [default: those of a second]
    #[arg(long, value_name = "N")]
    requests_burst: Option<std::num::NonZeroU32>,
    /// Tokens a second in the long run [default: no limit]
    #[arg(long, value_name = "N")]
    tokens_per_second: Option<std::num::NonZeroU32>,
    /// Tokens at once after a pause [default: those of a second]
    #[arg(long, value_name = "N")]
    tokens_burst: Option<std::num::NonZeroU32>,
}

impl Key {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::New(new) => new.run(),
            Self::Hash => hash(),
        }
    }
}

impl New {
    fn run(self) -> Result<(), Failure> {
        let secret = Secret::random()?;
        let entry = Entry {
            name: self.name,
            hash: Digest::of(secret.text()).to_string(),
            roles: self.role,
            // Said in any case: an entry without it may have lost it.
            models: Some(if self.model.is_empty() { vec!["*".to_owned()] } else { self.model }),
            limits: Limits {
                requests_per_second: self.requests_per_second,
                requests_burst: self.requests_burst,
                tokens_per_second: self.tokens_per_second,
                tokens_burst: self.tokens_burst,
            },
        };
        entry.check().map_err(Failure::usage)?;
        // The key first: an entry whose key nobody saw is of no use, and may be in the file already.
        writeln!(io::stderr(), "{}", secret.text())?;
        print_line(&entry.to_toml()?)
    }
}

fn hash() -> Result<(), Failure> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let key = text.trim();
    if key.len() < SHORTEST_KEY || key.contains(char::is_whitespace) {
        return Err(Failure::usage(format!(
            "expected one key of at least {SHORTEST_KEY} characters on standard input: a shorter one can be guessed from its hash"
        )));
    }
    print_line(&Digest::of(key).to_string())
}
