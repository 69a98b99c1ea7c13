//! Limits of connections and bodies as they are given.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::http::body;
use crate::server::connection::Limits;

/// hyper's smallest buffer for a head.
const LEAST_HEADER_BYTES: usize = 8192;

/// Limits of connections and bodies as given, all optional: as flags, as `SEXTANT_*` variables, as keys of the TOML file's table
/// `connections`.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionsSettings {
    /// Most connections of each listener; one more takes the place of the one to which no answer is owed for longest [default: 8192]
    #[arg(long, value_name = "N", env = "SEXTANT_MAX_CONNECTIONS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<usize>,
    /// Most bytes of a request's head [default: 65536]
    #[arg(long, value_name = "BYTES", env = "SEXTANT_MAX_HEADER_BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_header_bytes: Option<usize>,
    /// Most headers of a request [default: 100]
    #[arg(long, value_name = "N", env = "SEXTANT_MAX_HEADERS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_headers: Option<usize>,
    /// Most requests at once on an HTTP/2 connection [default: 100]
    #[arg(long, value_name = "N", env = "SEXTANT_MAX_STREAMS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_streams: Option<u32>,
    /// Most bytes of all bodies and answers that are held at once, the first 16 KiB of each left out [default: 268435456]
    #[arg(long, value_name = "BYTES", env = "SEXTANT_MAX_HELD_BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_held_bytes: Option<usize>,
    /// For a TLS handshake [default: 10s]
    #[arg(long, value_name = "TIME", env = "SEXTANT_HANDSHAKE_TIMEOUT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake_timeout: Option<String>,
    /// For the head of a request, and until a connection has brought its first one [default: 10s]
    #[arg(long, value_name = "TIME", env = "SEXTANT_HEAD_TIMEOUT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_timeout: Option<String>,
    /// How long a body may stand still [default: 10s]
    #[arg(long, value_name = "TIME", env = "SEXTANT_BODY_STALL_TIMEOUT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_stall_timeout: Option<String>,
    /// For the whole of a body [default: 1m]
    #[arg(long, value_name = "TIME", env = "SEXTANT_BODY_TIMEOUT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_timeout: Option<String>,
    /// How long a client may take less than 64 KiB of its answer, or of what is left of it [default: 30s]
    #[arg(long, value_name = "TIME", env = "SEXTANT_WRITE_TIMEOUT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_timeout: Option<String>,
    /// How long a connection is kept without a request [default: 75s]
    #[arg(long, value_name = "TIME", env = "SEXTANT_IDLE_TIMEOUT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
}

impl ConnectionsSettings {
    /// Checks every value and fills in the defaults. `largest_body` is what one may have.
    ///
    /// # Errors
    /// All mistakes, a sentence each.
    pub fn validate(&self, largest_body: usize) -> Result<(Limits, body::Limits), Vec<String>> {
        let mut check = Check { mistakes: Vec::new() };
        let (default, bodies) = (Limits::DEFAULT, body::Limits::DEFAULT);
        let limits = Limits {
            max_connections: check.least("max_connections", self.max_connections, 1, default.max_connections),
            max_header_bytes: check.least(
                "max_header_bytes",
                self.max_header_bytes,
                LEAST_HEADER_BYTES,
                default.max_header_bytes,
            ),
            max_headers: check.least("max_headers", self.max_headers, 1, default.max_headers),
            max_streams: check.least("max_streams", self.max_streams, 1, default.max_streams),
            handshake_timeout: check.period(
                "handshake_timeout",
                self.handshake_timeout.as_ref(),
                default.handshake_timeout,
            ),
            head_timeout: check.period("head_timeout", self.head_timeout.as_ref(), default.head_timeout),
            write_timeout: check.period("write_timeout", self.write_timeout.as_ref(), default.write_timeout),
            idle_timeout: check.period("idle_timeout", self.idle_timeout.as_ref(), default.idle_timeout),
        };
        let held = bodies.max_held_bytes.max(largest_body);
        let bodies = body::Limits {
            max_held_bytes: check.least("max_held_bytes", self.max_held_bytes, largest_body, held),
            stall_timeout: check.period(
                "body_stall_timeout",
                self.body_stall_timeout.as_ref(),
                bodies.stall_timeout,
            ),
            timeout: check.period("body_timeout", self.body_timeout.as_ref(), bodies.timeout),
        };
        if check.mistakes.is_empty() { Ok((limits, bodies)) } else { Err(check.mistakes) }
    }

    /// The settings that give these limits.
    pub fn of(limits: &Limits, bodies: &body::Limits) -> Self {
        let text = |time: Duration| Some(humantime::format_duration(time).to_string());
        Self {
            max_connections: Some(limits.max_connections),
            max_header_bytes: Some(limits.max_header_bytes),
            max_headers: Some(limits.max_headers),
            max_streams: Some(limits.max_streams),
            max_held_bytes: Some(bodies.max_held_bytes),
            handshake_timeout: text(limits.handshake_timeout),
            head_timeout: text(limits.head_timeout),
            body_stall_timeout: text(bodies.stall_timeout),
            body_timeout: text(bodies.timeout),
            write_timeout: text(limits.write_timeout),
            idle_timeout: text(limits.idle_timeout),
        }
    }

    /// Whether nothing is given.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

struct Check {
    mistakes: Vec<String>,
}

impl Check {
    fn least<N: Copy + PartialOrd + std::fmt::Display>(
        &mut self,
        name: &str,
        given: Option<N>,
        least: N,
        default: N,
    ) -> N {
        let number = given.unwrap_or(default);
        if number < least {
            self.mistakes.push(format!("`connections.{name}` is `{number}`: expected at least {least}"));
        }
        number
    }

    fn period(&mut self, name: &str, given: Option<&String>, default: Duration) -> Duration {
        let Some(text) = given else { return default };
        let time = humantime::parse_duration(text).ok().filter(|time| !time.is_zero());
        time.unwrap_or_else(|| {
            self.mistakes.push(format!("`connections.{name}` is `{text}`: expected a time above 0, as 10s"));
            default
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_has_its_default_and_every_mistake_is_named() {
        let defaults = (Limits::DEFAULT, body::Limits::DEFAULT);
        assert_eq!(ConnectionsSettings::default().validate(1), Ok(defaults));
        let given = ConnectionsSettings {
            max_streams: Some(7),
            idle_timeout: Some("2m".into()),
            max_held_bytes: Some(100),
            ..ConnectionsSettings::default()
        };
        let (limits, bodies) = given.validate(100).unwrap();
        assert_eq!((limits.max_streams, limits.idle_timeout.as_secs(), bodies.max_held_bytes), (7, 120, 100));
        assert_eq!(ConnectionsSettings::of(&limits, &bodies).validate(100), Ok((limits, bodies)));
        let wrong = ConnectionsSettings {
            max_connections: Some(0),
            max_header_bytes: Some(100),
            body_timeout: Some("0s".into()),
            write_timeout: Some("soon".into()),
            ..given
        };
        assert_eq!(
            wrong.validate(101).unwrap_err(),
            [
                "`connections.max_connections` is `0`: expected at least 1",
                "`connections.max_header_bytes` is `100`: expected at least 8192",
                "`connections.write_timeout` is `soon`: expected a time above 0, as 10s",
                "`connections.max_held_bytes` is `100`: expected at least 101",
                "`connections.body_timeout` is `0s`: expected a time above 0, as 10s",
            ]
        );
    }

    #[test]
    fn a_body_may_be_as_large_as_the_server_is_told() {
        let most = body::Limits::DEFAULT.max_held_bytes * 2;
        let (_, bodies) = ConnectionsSettings::default().validate(most).unwrap();
        assert_eq!(bodies.max_held_bytes, most);
    }
}
