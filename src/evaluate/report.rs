//! What was measured, for people and as JSON.

use std::fmt;

use serde::Serialize;

use super::statistics::Interval;

/// Whether a version is as good as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// With 95 % confidence it loses less than the margin.
    NoWorse,
    /// With 95 % confidence it loses something, and perhaps more than the margin.
    Worse,
    /// More items would tell.
    Undecided,
}

impl Verdict {
    fn of(interval: Interval, margin: f64) -> Self {
        if interval.low > -margin {
            Self::NoWorse
        } else if interval.high < 0.0 {
            Self::Worse
        } else {
            Self::Undecided
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::NoWorse => "no worse",
            Self::Worse => "WORSE",
            Self::Undecided => "undecided",
        })
    }
}

/// One figure of a version, more is better.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// Pairs, queries or texts that it is made of.
    pub items: usize,
    /// Of the version.
    pub value: f64,
    /// Beside the other version.
    pub against: Option<Against>,
}

/// A figure of the other version, and what lies between them.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Against {
    /// Of the other version.
    pub value: f64,
    /// The version's figure less the other's, by a paired bootstrap.
    pub difference: Interval,
    /// Whether the version is as good.
    pub verdict: Verdict,
}

impl Figure {
    pub(super) fn new(
        name: &'static str,
        items: usize,
        value: f64,
        against: Option<(f64, Interval)>,
        margin: f64,
    ) -> Self {
        let against = against.map(|(value, difference)| Against {
            value,
            difference,
            verdict: Verdict::of(difference, margin),
        });
        Self { name, items, value, against }
    }
}

/// The vectors of two versions beside each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// How many texts.
    pub texts: usize,
    /// Share of a text's ten nearest texts that both versions agree on, each among its own vectors.
    pub overlap_within: f64,
    /// The same, for queries of the version among stored vectors of the other: what an index sees. `None` if they differ in width.
    pub overlap_across: Option<f64>,
    /// Mean cosine of a text's two vectors.
    pub cosine_mean: Option<f64>,
    /// The texts whose two vectors are the least alike, and their cosines.
    pub worst: Vec<(f64, String)>,
}

/// Everything that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The version, as `minilm@2`.
    pub version: String,
    /// The other one.
    pub against: Option<String>,
    /// A figure may fall by so much before it is called worse.
    pub margin: f64,
    /// Each of them.
    pub figures: Vec<Figure>,
    /// Where there is another version.
    pub comparison: Option<Comparison>,
}

impl Report {
    pub(super) fn new(version: &str, against: Option<&str>, margin: f64) -> Self {
        let against = against.map(str::to_owned);
        Self { version: version.to_owned(), against, margin, figures: Vec::new(), comparison: None }
    }

    /// Worse if any figure is, no worse if none can be; `None` without another version.
    pub fn verdict(&self) -> Option<Verdict> {
        let mut verdicts = self.figures.iter().map(|figure| figure.against.map(|against| against.verdict));
        let first = verdicts.next()??;
        verdicts.try_fold(first, |all, next| {
            Some(match (all, next?) {
                (Verdict::Worse, _) | (_, Verdict::Worse) => Verdict::Worse,
                (Verdict::NoWorse, Verdict::NoWorse) => Verdict::NoWorse,
                _ => Verdict::Undecided,
            })
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(against) = &self.against else {
            writeln!(f, "{:28} {:>7}  {:>8}", "", "items", self.version)?;
            for Figure { name, items, value, .. } in &self.figures {
                writeln!(f, "{name:28} {items:>7}  {value:>8.4}")?;
            }
            return Ok(());
        };
        let version = &self.version;
        writeln!(
            f,
            "{:28} {:>7}  {version:>10}  {against:>10}  {:>10}  {:19}",
            "", "items", "difference", "95 % interval"
        )?;
        for Figure { name, items, value, against } in &self.figures {
            let Some(Against { value: other, difference, verdict }) = against else { continue };
            let Interval { difference, low, high } = difference;
            writeln!(
                f,
                "{name:28} {items:>7}  {value:>10.4}  {other:>10.4}  {difference:>+10.4}  {low:>+8.4} .. {high:>+7.4}  {verdict}"
            )?;
        }
        if let Some(comparison) = &self.comparison {
            let Comparison { texts, overlap_within, overlap_across, cosine_mean, worst } = comparison;
            writeln!(
                f,
                "\n{texts} texts, of whose ten nearest both agree on {overlap_within:.4}, each among its own vectors"
            )?;
            if let (Some(across), Some(mean)) = (overlap_across, cosine_mean) {
                writeln!(
                    f,
                    "queries of {version} among vectors of {against}: {across:.4}; cosine of a text's two vectors: {mean:.4} in the mean"
                )?;
                writeln!(f, "least alike:")?;
                for (cosine, text) in worst {
                    let start: String = text.chars().take(60).collect();
                    writeln!(f, "  {cosine:.4}  {start:?}")?;
                }
            }
        }
        let Some(verdict) = self.verdict() else { return Ok(()) };
        writeln!(f, "\n{version} against {against}, at a margin of {}: {verdict}", self.margin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(low: f64, high: f64) -> Figure {
        let difference = Interval { difference: f64::midpoint(low, high), low, high };
        Figure::new("f", 10, 0.5, Some((0.5, difference)), 0.01)
    }

    fn report(figures: Vec<Figure>) -> Report {
        Report { figures, ..Report::new("m@2", Some("m@1"), 0.01) }
    }

    #[test]
    fn a_verdict_needs_the_whole_interval() {
        let of = |low, high| figure(low, high).against.unwrap().verdict;
        assert_eq!(of(-0.009, 0.002), Verdict::NoWorse);
        assert_eq!(of(-0.009, -0.002), Verdict::NoWorse, "a loss within the margin");
        assert_eq!(of(-0.05, -0.002), Verdict::Worse);
        assert_eq!(of(-0.05, 0.04), Verdict::Undecided);
        assert_eq!(of(f64::NAN, f64::NAN), Verdict::Undecided);
    }

    #[test]
    fn one_figure_that_is_worse_decides() {
        let (good, bad, open) = (figure(-0.001, 0.001), figure(-0.05, -0.02), figure(-0.05, 0.05));
        assert_eq!(report(vec![good.clone(), bad, open.clone()]).verdict(), Some(Verdict::Worse));
        assert_eq!(report(vec![good.clone(), open]).verdict(), Some(Verdict::Undecided));
        assert_eq!(report(vec![good.clone(), good]).verdict(), Some(Verdict::NoWorse));
        assert_eq!(report(vec![]).verdict(), None);
    }
}
