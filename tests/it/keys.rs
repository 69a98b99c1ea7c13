//! Who may ask for what, with which key, how much of it, and who hears of it.

mod audit;
mod commands;
mod limits;
mod reload;
mod routes;
mod secrets;
mod series;

use std::fs::File;
use std::process::Stdio;

use reqwest::header::HeaderMap;
use sextant::keys::Digest;
use tempfile::TempDir;

use crate::command::{Server, path, sextant};

/// A key for tests, as long as a real one.
pub fn key(name: &str) -> String {
    format!("sxt_{name:-<32}")
}

/// An entry of the keys file: its name, its roles, and more lines.
pub fn entry(name: &str, roles: &[&str], more: &str) -> String {
    format!("[[keys]]\nname = '{name}'\nhash = '{}'\nroles = {roles:?}\n{more}\n", Digest::of(&key(name)))
}

/// The header that carries a key.
pub fn bearer(key: &str) -> HeaderMap {
    HeaderMap::from_iter([("authorization".parse().unwrap(), format!("Bearer {key}").parse().unwrap())])
}

/// A server of the models in `directory`, with the keys there, which logs into the file `log` there.
pub fn serve(directory: &TempDir, level: &str) -> Server {
    let [models, keys, log] = ["models", "keys", "log"].map(|name| path(directory, name));
    let mut command = sextant(&["serve", "--models", &models, "--keys-file", &keys, "--log", level]);
    command.args(["--sync-interval", "50ms", "--log-format", "json", "--drain-delay", "0s"]);
    Server::start_telling(command, Stdio::from(File::create(log).unwrap()))
}
