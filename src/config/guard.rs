//! The guard's rules as they are given.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::rollout::guard::Rules;

/// The guard's rules as given, all optional: as flags, as `SEXTANT_GUARD_*` variables, as keys of the TOML file's table `guard`.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardSettings {
    /// A canary is judged in windows of this length, longer until they have enough requests [default: 10s]
    #[arg(long = "guard-window", value_name = "TIME", env = "SEXTANT_GUARD_WINDOW")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// So many windows in a row with the same breach take it back [default: 3]
    #[arg(long = "guard-windows", value_name = "N", env = "SEXTANT_GUARD_WINDOWS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<u32>,
    /// Requests that it answers in a window [default: 30]
    #[arg(long = "guard-requests", value_name = "N", env = "SEXTANT_GUARD_REQUESTS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Callers, by key or else by address, that must each show the same breach; where fewer do, the server's own probes must show one,
    /// too [default: 3]
    #[arg(long = "guard-callers", value_name = "N", env = "SEXTANT_GUARD_CALLERS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callers: Option<u32>,
    /// Share of its requests that may fail, if the stable version's do not fail more often [default: 0.02]
    #[arg(long = "guard-max-error-share", value_name = "SHARE", env = "SEXTANT_GUARD_MAX_ERROR_SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_error_share: Option<f64>,
    /// Least cosine of its vector to the stable version's for the same input, one in a hundred excepted [default: 0.99]
    #[arg(long = "guard-min-cosine", value_name = "COSINE", env = "SEXTANT_GUARD_MIN_COSINE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_cosine: Option<f64>,
    /// So many times as long as the stable version's may its runs be, by the median of inputs that both ran [default: 3]
    #[arg(long = "guard-max-slowdown", value_name = "FACTOR", env = "SEXTANT_GUARD_MAX_SLOWDOWN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_slowdown: Option<f64>,
    /// Inputs a second that both run, at most [default: 2]
    #[arg(long = "guard-pairs-per-second", value_name = "N", env = "SEXTANT_GUARD_PAIRS_PER_SECOND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs_per_second: Option<f64>,
}

impl GuardSettings {
    /// Checks every value and fills in the defaults.
    ///
    /// # Errors
    /// All mistakes, a sentence each.
    pub fn validate(&self) -> Result<Rules, Vec<String>> {
        let (mut mistakes, default) = (Vec::new(), Rules::DEFAULT);
        let mut check = |name: &str, given: String, is_good: bool, expected: &str| {
            if !is_good {
                mistakes.push(format!("`guard.{name}` is `{given}`: expected {expected}"));
            }
        };
        let window = match &self.window {
            None => default.window,
            Some(text) => {
                let window = humantime::parse_duration(text).ok().filter(|window| !window.is_zero());
                check("window", text.clone(), window.is_some(), "a time above 0, as 10s");
                window.unwrap_or(default.window)
            }
        };
        let rules = Rules {
            window,
            windows: self.windows.unwrap_or(default.windows),
            requests: self.requests.unwrap_or(default.requests),
            callers: self.callers.unwrap_or(default.callers),
            max_error_share: self.max_error_share.unwrap_or(default.max_error_share),
            min_cosine: self.min_cosine.unwrap_or(default.min_cosine),
            max_slowdown: self.max_slowdown.unwrap_or(default.max_slowdown),
            pairs_per_second: self.pairs_per_second.unwrap_or(default.pairs_per_second),
        };
        check("windows", rules.windows.to_string(), rules.windows > 0, "a number above 0");
        check("requests", rules.requests.to_string(), rules.requests > 0, "a number above 0");
        check("callers", rules.callers.to_string(), rules.callers > 0, "a number above 0");
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        check(
            "max_error_share",
            rules.max_error_share.to_string(),
            is_share(rules.max_error_share),
            "0 to 1",
        );
        let is_cosine = (-1.0..=1.0).contains(&rules.min_cosine);
        check("min_cosine", rules.min_cosine.to_string(), is_cosine, "-1 to 1");
        let is_factor = rules.max_slowdown.is_finite() && rules.max_slowdown > 0.0;
        check("max_slowdown", rules.max_slowdown.to_string(), is_factor, "a number above 0");
        let is_rate = (1e-3..=1e3).contains(&rules.pairs_per_second);
        check("pairs_per_second", rules.pairs_per_second.to_string(), is_rate, "0.001 to 1000");
        if mistakes.is_empty() { Ok(rules) } else { Err(mistakes) }
    }

    /// Whether nothing is given.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Rules> for GuardSettings {
    fn from(rules: Rules) -> Self {
        let Rules {
            window,
            windows,
            requests,
            callers,
            max_error_share,
            min_cosine,
            max_slowdown,
            pairs_per_second,
        } = rules;
        let text = |time: Duration| humantime::format_duration(time).to_string();
        Self {
            window: Some(text(window)),
            windows: Some(windows),
            requests: Some(requests),
            callers: Some(callers),
            max_error_share: Some(max_error_share),
            min_cosine: Some(min_cosine),
            max_slowdown: Some(max_slowdown),
            pairs_per_second: Some(pairs_per_second),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_has_its_default_and_every_mistake_is_named() {
        assert_eq!(GuardSettings::default().validate(), Ok(Rules::DEFAULT));
        let given =
            GuardSettings { window: Some("200ms".into()), windows: Some(2), ..GuardSettings::default() };
        let expected = Rules { window: Duration::from_millis(200), windows: 2, ..Rules::DEFAULT };
        assert_eq!(given.validate(), Ok(expected));
        assert_eq!(GuardSettings::from(expected).validate(), Ok(expected));
        let wrong = GuardSettings {
            window: Some("0s".into()),
            windows: Some(0),
            callers: Some(0),
            max_error_share: Some(2.0),
            max_slowdown: Some(f64::NAN),
            ..GuardSettings::default()
        };
        assert_eq!(
            wrong.validate().unwrap_err(),
            [
                "`guard.window` is `0s`: expected a time above 0, as 10s",
                "`guard.windows` is `0`: expected a number above 0",
                "`guard.callers` is `0`: expected a number above 0",
                "`guard.max_error_share` is `2`: expected 0 to 1",
                "`guard.max_slowdown` is `NaN`: expected a number above 0",
            ]
        );
    }
}
