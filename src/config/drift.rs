//! How drift is watched, as it is given.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::drift::monitor::Settings;
use crate::drift::reference::LEAST_VECTORS;

/// Vectors that are held in memory until a reference is made of them: 300 MB at 384 dimensions.
const MOST_LEARNED: usize = 200_000;

/// How drift is watched, as given, all optional: as flags, as `SEXTANT_*` variables, as keys of the TOML file's table `drift`.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftSettings {
    /// Learn a drift reference of so many live vectors where there is none, and store it [default: learn none]
    #[arg(long = "learn", value_name = "VECTORS", env = "SEXTANT_LEARN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learn: Option<usize>,
    /// Vectors that count between two false alarms of drift, at least [default: 100000000]
    #[arg(long = "drift-expected-run-time", value_name = "VECTORS", env = "SEXTANT_DRIFT_EXPECTED_RUN_TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_run_time: Option<f64>,
    /// Vectors a second of each version that count at most, 0 for none [default: 200]
    #[arg(long = "drift-per-second", value_name = "N", env = "SEXTANT_DRIFT_PER_SECOND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u32>,
}

impl DriftSettings {
    /// Checks every value and fills in the defaults.
    ///
    /// # Errors
    /// All mistakes, a sentence each.
    pub fn validate(&self) -> Result<Settings, Vec<String>> {
        let default = Settings::DEFAULT;
        let settings = Settings {
            run_time: self.expected_run_time.unwrap_or(default.run_time),
            per_second: self.per_second.unwrap_or(default.per_second),
            learn: self.learn,
        };
        let mut mistakes = Vec::new();
        if let Some(learn) = settings.learn.filter(|learn| !(LEAST_VECTORS..=MOST_LEARNED).contains(learn)) {
            mistakes.push(format!("`drift.learn` is `{learn}`: expected {LEAST_VECTORS} to {MOST_LEARNED}"));
        }
        if settings.learn.is_some() && settings.per_second == 0 {
            mistakes
                .push("`drift.per_second` is `0`: with `drift.learn`, expected a number above 0".to_owned());
        }
        if !(settings.run_time.is_finite() && settings.run_time >= 1.0) {
            let given = settings.run_time;
            mistakes.push(format!("`drift.expected_run_time` is `{given}`: expected a number from 1 up"));
        }
        if mistakes.is_empty() { Ok(settings) } else { Err(mistakes) }
    }

    /// Whether nothing is given.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Settings> for DriftSettings {
    fn from(settings: Settings) -> Self {
        let Settings { run_time, per_second, learn } = settings;
        Self { learn, expected_run_time: Some(run_time), per_second: Some(per_second) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_has_its_default_and_every_mistake_is_named() {
        assert_eq!(DriftSettings::default().validate(), Ok(Settings::DEFAULT));
        let given = DriftSettings { learn: Some(5_000), ..DriftSettings::default() };
        let expected = Settings { learn: Some(5_000), ..Settings::DEFAULT };
        assert_eq!(given.validate(), Ok(expected));
        assert_eq!(DriftSettings::from(expected).validate(), Ok(expected));
        let wrong = DriftSettings { learn: Some(10), expected_run_time: Some(f64::NAN), per_second: Some(0) };
        assert_eq!(
            wrong.validate().unwrap_err(),
            [
                "`drift.learn` is `10`: expected 3000 to 200000",
                "`drift.per_second` is `0`: with `drift.learn`, expected a number above 0",
                "`drift.expected_run_time` is `NaN`: expected a number from 1 up",
            ]
        );
    }
}
