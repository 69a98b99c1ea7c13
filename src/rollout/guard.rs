//! The guard: the rule that takes a canary back by itself.
//!
//! While a canary runs, time is cut into windows. In each the canary is held against its stable version: the share of its requests
//! that fail, vectors that are none, and pairs, inputs that both versions ran one after the other, by their cosines and their run
//! times. What is found must be more than chance, in several windows in a row. Times are compared in pairs because those of requests
//! tell of the two queues, which hold different shares of the traffic, and not of the versions. Where there is a drift reference, all
//! vectors of both versions are compared as well: what moves with the traffic cancels out.
//!
//! All of it is counted by caller, because a caller chooses its inputs and when it hangs up. A canary is taken back if several callers
//! show the same breach, each by itself, so that one caller has one vote however much it sends. Where fewer callers show it, the
//! server runs its own probe texts on both versions, and the canary is taken back only if these show a breach as well.

mod evidence;
mod probes;
#[cfg(test)]
mod tests;
mod watch;
mod window;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use probes::Probed;
pub use watch::{Outcome, Pair, Side, Summary, Watch};

/// What a canary must keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Shortest window. It is open until it has [`Rules::requests`].
    pub window: Duration,
    /// Windows in a row with the same breach.
    pub windows: u32,
    /// Requests that the canary answers in a window.
    pub requests: u64,
    /// Callers that must show a breach, each by itself. Where fewer do, the server's own probes must show one.
    pub callers: u32,
    /// Share of its requests that may fail, if the stable version's do not fail more often.
    pub max_error_share: f64,
    /// Least cosine of its vector to the stable version's for the same input, but for one pair in a hundred.
    pub min_cosine: f64,
    /// So many times as long as the stable version's may its runs be, by the median of pairs.
    pub max_slowdown: f64,
    /// Pairs a second, at most.
    pub pairs_per_second: f64,
}

impl Rules {
    /// What holds where nothing else is said.
    pub const DEFAULT: Self = Self {
        window: Duration::from_secs(10),
        windows: 3,
        requests: 30,
        callers: 3,
        max_error_share: 0.02,
        // The gate's bound for a claim to the stable version's space.
        min_cosine: super::gate::Bounds::DEFAULT.min_claim_cosine,
        // Fp32 after int8 takes twice as long.
        max_slowdown: 3.0,
        pairs_per_second: 2.0,
    };
}

/// What the guard looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// A check of the gate, before it answered anybody.
    Gate,
    /// Share of requests that failed.
    Errors,
    /// Vectors that are not finite or zero.
    Vectors,
    /// Least cosine of the pairs.
    Cosine,
    /// Median of the pairs' run times, as a multiple of the stable version's.
    Latency,
    /// Of the vectors of both versions on the same traffic, in standard errors.
    Shift,
}

impl Figure {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::Gate, Self::Errors, Self::Vectors, Self::Cosine, Self::Latency, Self::Shift];

    /// Those that windows are held against.
    const WATCHED: [Self; 5] = [Self::Vectors, Self::Errors, Self::Cosine, Self::Latency, Self::Shift];
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Gate => "gate",
            Self::Errors => "errors",
            Self::Vectors => "vectors",
            Self::Cosine => "cosine",
            Self::Latency => "latency",
            Self::Shift => "shift",
        })
    }
}

/// Why a canary was taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cause {
    /// What was out of bounds.
    pub figure: Figure,
    /// What was measured; none for a check of the gate that has no figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// What it must keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<f64>,
    /// For a person.
    pub sentence: String,
}
