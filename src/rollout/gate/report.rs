//! What the gate found: a list of checks, each with its figure, its bound and a sentence.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What was checked of a version on this machine, in the order it was done. A check that fails ends the list if the next
/// ones would say nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateReport {
    /// `name@version`.
    pub version: String,
    /// Whether the version may serve.
    pub passed: bool,
    /// What was checked.
    pub checks: Vec<Check>,
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Which.
    pub name: Name,
    /// How it went.
    pub verdict: Verdict,
    /// What was measured, where it is a number. Not a number, `null` in JSON, where the vectors are none.
    pub figure: Option<f64>,
    /// What the figure must keep.
    pub bound: Option<Bound>,
    /// What was found, for a person.
    pub sentence: String,
}

/// The checks, in the order they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// A trusted key signed the manifest.
    Signature,
    /// Manifest and files are those that were published.
    Digests,
    /// Tokenizer and graph can be loaded, and fit the manifest.
    Loads,
    /// The graph runs at the shapes that it will see.
    Runs,
    /// There are texts to check with, and their vectors are finite and not zero.
    Outputs,
    /// The least cosine of a probe's vector to the one that the version came with.
    ProbeCosine,
    /// The largest difference of a probe's length to the one that the version came with, as a share of it.
    ProbeLength,
    /// The largest difference of a component of a probe's unit vector between alone and in a batch.
    BatchDifference,
    /// The version whose space is claimed is there, and takes its texts alike.
    Claim,
    /// The least cosine of a vector to the one of the version whose space is claimed.
    ClaimCosine,
    /// The share of nearest neighbours that queries keep among the vectors of the version whose space is claimed.
    ClaimOverlap,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// Not as it should be, and no reason to refuse the version: its manifest says so, or does not deny it.
    Warning,
    /// The version may not serve.
    Failed,
}

/// What a figure must keep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// It must not be less.
    AtLeast(f64),
    /// It must not be more.
    AtMost(f64),
}

impl Bound {
    /// The number.
    pub fn value(self) -> f64 {
        let (Self::AtLeast(value) | Self::AtMost(value)) = self;
        value
    }

    /// Whether `figure` keeps it. What is no number keeps none.
    pub fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(least) => figure >= least,
            Self::AtMost(most) => figure <= most,
        }
    }
}

impl Check {
    /// A figure held against its bound.
    pub fn measured(name: Name, figure: f64, bound: Bound, sentence: String) -> Self {
        let verdict = if bound.holds(figure) { Verdict::Passed } else { Verdict::Failed };
        Self { name, verdict, figure: Some(figure), bound: Some(bound), sentence }
    }

    /// A check without a figure.
    pub fn stated(name: Name, verdict: Verdict, sentence: impl ToString) -> Self {
        Self { name, verdict, figure: None, bound: None, sentence: sentence.to_string() }
    }
}

impl GateReport {
    /// A report on `name@version` of which nothing is checked yet.
    pub(super) fn new(version: String) -> Self {
        Self { version, passed: true, checks: Vec::new() }
    }

    /// Adds a check. Whether the version may still pass.
    pub(super) fn add(&mut self, check: Check) -> bool {
        self.passed &= check.verdict != Verdict::Failed;
        self.checks.push(check);
        self.passed
    }

    /// The report with a check that failed.
    pub(super) fn failed(mut self, name: Name, reason: impl ToString) -> Self {
        self.add(Check::stated(name, Verdict::Failed, reason));
        self
    }

    /// What was measured in a check, if it was made and has a figure.
    pub fn figure(&self, name: Name) -> Option<f64> {
        self.checks.iter().find(|check| check.name == name)?.figure
    }

    /// Every figure, by the name of its check. What is no number is left out: JSON has no word for it.
    pub fn figures(&self) -> BTreeMap<String, f64> {
        let figures = self.checks.iter().filter_map(|check| Some((check.name.to_string(), check.figure?)));
        figures.filter(|(_, figure)| figure.is_finite()).collect()
    }

    /// The checks that went so.
    pub fn with_verdict(&self, verdict: Verdict) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(move |check| check.verdict == verdict)
    }

    /// The checks that failed with their sentences, on one line.
    pub fn failures(&self) -> String {
        let failed: Vec<String> = self.with_verdict(Verdict::Failed).map(Check::to_string).collect();
        failed.join("; ")
    }
}

/// The check on one line: its name, its figure beside its bound, its sentence.
impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.name)?;
        if let (Some(figure), Some(bound)) = (self.figure, self.bound) {
            write!(formatter, " is {}, must be {bound}", bound.figure(figure))?;
        }
        write!(formatter, ": {}", self.sentence)
    }
}

/// A table with a line for each check.
impl fmt::Display for GateReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = if self.passed { "passes the gate" } else { "does not pass the gate" };
        write!(formatter, "{} {result}\n\n{}", self.version, line("check", "result", "figure", "bound", ""))?;
        for check in &self.checks {
            let bound = check.bound.map(|bound| bound.to_string()).unwrap_or_default();
            let figure = check.bound.zip(check.figure).map(|(bound, figure)| bound.figure(figure));
            let (name, verdict) = (check.name.to_string(), check.verdict.to_string());
            let line = line(&name, &verdict, &figure.unwrap_or_default(), &bound, &check.sentence);
            write!(formatter, "\n{line}")?;
        }
        Ok(())
    }
}

fn line(name: &str, verdict: &str, figure: &str, bound: &str, sentence: &str) -> String {
    format!("{name:<16}  {verdict:<7}  {figure:>8}  {bound:<16}  {sentence}").trim_end().to_owned()
}

impl Bound {
    /// A figure in as many digits as say something against this bound.
    fn figure(self, figure: f64) -> String {
        match self {
            Self::AtLeast(_) => format!("{figure:.6}"),
            Self::AtMost(_) => format!("{figure:.1e}"),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(formatter, "at least {least}"),
            Self::AtMost(most) => write!(formatter, "at most {most}"),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Signature => "signature",
            Self::Digests => "digests",
            Self::Loads => "loads",
            Self::Runs => "runs",
            Self::Outputs => "outputs",
            Self::ProbeCosine => "probe_cosine",
            Self::ProbeLength => "probe_length",
            Self::BatchDifference => "batch_difference",
            Self::Claim => "claim",
            Self::ClaimCosine => "claim_cosine",
            Self::ClaimOverlap => "claim_overlap",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Passed => "passed",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> GateReport {
        let mut report = GateReport::new("m@2".to_owned());
        assert!(report.add(Check::stated(Name::Digests, Verdict::Passed, "6 files")));
        let sentence = || "`a cat`".to_owned();
        assert!(report.add(Check::measured(Name::ProbeCosine, 0.999_95, Bound::AtLeast(0.9999), sentence())));
        report
    }

    #[test]
    fn a_bound_is_kept_at_its_very_figure_and_by_no_number_that_is_none() {
        for (bound, kept, broken) in
            [(Bound::AtLeast(0.99), 0.99, 0.989_999), (Bound::AtMost(1e-4), 1e-4, 1.000_1e-4)]
        {
            assert!(bound.holds(kept) && !bound.holds(broken) && !bound.holds(f64::NAN));
        }
    }

    #[test]
    fn one_failure_fails_the_version_and_a_warning_does_not() {
        let mut report = report();
        assert!(report.add(Check::stated(Name::BatchDifference, Verdict::Warning, "marked")));
        assert!(report.passed && report.failures().is_empty());
        let nan = Check::measured(Name::ClaimCosine, f64::NAN, Bound::AtLeast(0.99), "`a dog`".to_owned());
        assert!(!report.add(nan));
        assert!(!report.add(Check::stated(Name::ClaimOverlap, Verdict::Passed, "fine")));
        assert!(!report.passed);
        assert_eq!(report.failures(), "claim_cosine is NaN, must be at least 0.99: `a dog`");
        assert_eq!(report.figure(Name::ProbeCosine), Some(0.999_95));
        assert_eq!(report.figure(Name::Digests), None);
    }

    #[test]
    fn the_table_has_a_line_for_each_check() {
        let report = report().failed(Name::Claim, "no parent");
        assert_eq!(
            report.to_string(),
            "m@2 does not pass the gate\n\n\
             check             result     figure  bound\n\
             digests           passed                               6 files\n\
             probe_cosine      passed   0.999950  at least 0.9999   `a cat`\n\
             claim             FAILED                               no parent"
        );
    }

    #[test]
    fn in_json_names_and_bounds_are_words() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["passed"], true);
        assert_eq!(json["checks"][1]["name"], "probe_cosine");
        assert_eq!(json["checks"][1]["verdict"], "passed");
        assert_eq!(json["checks"][1]["bound"]["at_least"], 0.9999);
        assert_eq!(json["checks"][0]["bound"], serde_json::Value::Null);
    }
}
