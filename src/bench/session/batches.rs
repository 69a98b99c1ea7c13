//! How rows are cut into batches, and which batches are the fastest.

use std::fmt;

use super::Row;
use crate::engine::{Batch, EngineError};

/// Candidates that are tried on all rows, after all were on half of them.
const FINALISTS: usize = 3;

/// How rows sorted by length are cut into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batches {
    /// So many rows each.
    Rows(usize),
    /// So many tokens each at most, or one row; with padding where the graph computes it.
    Tokens(usize),
}

impl Batches {
    /// At least one row each. Shuffled, so that all sessions have long and short ones all the time.
    pub(super) fn cut(self, rows: &[Row], packed: bool) -> Vec<Batch> {
        let mut rows = rows.to_vec();
        rows.sort_by_key(|row| row.len());
        let mut batches: Vec<Batch> = Vec::new();
        let mut tokens = 0;
        for row in rows {
            let last = batches.last().map_or(0, |batch| batch.rows.len());
            // The row is the longest of its batch so far.
            tokens = if packed { tokens + row.len() } else { (last + 1) * row.len() };
            let fits = match self {
                Self::Rows(most) => last < most,
                Self::Tokens(most) => tokens <= most,
            };
            match batches.last_mut() {
                Some(batch) if fits => batch.rows.push(row),
                _ => {
                    tokens = row.len();
                    batches.push(Batch { rows: vec![row], ..Batch::default() });
                }
            }
        }
        fastrand::Rng::with_seed(1).shuffle(&mut batches);
        batches
    }
}

impl fmt::Display for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(rows) => write!(f, "{rows} rows"),
            Self::Tokens(tokens) => write!(f, "{tokens} tokens"),
        }
    }
}

/// What the sessions run on, by which the batch sizes differ that are worth trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardware {
    /// The processor: large batches fall out of its caches.
    Cpu,
    /// A graphics processor: small batches leave it idle.
    Gpu,
}

impl Hardware {
    /// The batch sizes that are tried.
    pub fn candidates(self) -> &'static [Batches] {
        use Batches::{Rows, Tokens};
        match self {
            Self::Cpu => {
                &[Rows(4), Rows(8), Rows(16), Rows(32), Tokens(128), Tokens(256), Tokens(512), Tokens(1024)]
            }
            Self::Gpu => &[
                Rows(16),
                Rows(32),
                Rows(64),
                Rows(128),
                Rows(256),
                Rows(512),
                Rows(1024),
                Tokens(2048),
                Tokens(4096),
                Tokens(8192),
                Tokens(16_384),
                Tokens(32_768),
                Tokens(65_536),
            ],
        }
    }

    /// A fair size before any was tried.
    pub(super) fn usual(self) -> Batches {
        match self {
            Self::Cpu => Batches::Rows(8),
            Self::Gpu => Batches::Rows(128),
        }
    }
}

/// The batches that suit sessions best.
#[derive(Debug)]
pub struct Chosen {
    /// How they were cut.
    pub batches: Batches,
    /// When they were chosen.
    pub tokens_per_second: f64,
    /// Sizes that cannot be run, as when the memory does not suffice, and why.
    pub failed: Vec<(Batches, EngineError)>,
    pub(super) cut: Vec<Batch>,
}

/// The fastest of `candidates` by `speed_of`, in tokens per second. One that cuts `rows` as an earlier one does is left out.
///
/// Tried twice: all on half of the rows, then the best on all of them, so that a disturbed moment does not choose.
pub(super) fn choose(
    candidates: &[Batches],
    rows: &[Row],
    packed: bool,
    mut speed_of: impl FnMut(Batches, &[Batch]) -> Result<f64, EngineError>,
) -> Result<Chosen, EngineError> {
    let mut cuts: Vec<(Batches, Vec<Batch>)> = Vec::new();
    for candidate in candidates {
        let cut = candidate.cut(rows, packed);
        let sizes = |cut: &[Batch]| cut.iter().map(|batch| batch.rows.len()).collect::<Vec<_>>();
        if cuts.iter().all(|(_, other)| sizes(other) != sizes(&cut)) {
            cuts.push((*candidate, cut));
        }
    }
    let half = &rows[..rows.len().div_ceil(2)];
    let (mut tried, mut failed) = (Vec::new(), Vec::new());
    for (candidate, cut) in cuts {
        match speed_of(candidate, &candidate.cut(half, packed)) {
            Ok(speed) => tried.push((speed, candidate, cut)),
            Err(error) => failed.push((candidate, error)),
        }
    }
    tried.sort_by(|left, right| right.0.total_cmp(&left.0));
    let mut finalists: Vec<(f64, Batches, Vec<Batch>)> = Vec::new();
    for (_, candidate, cut) in tried {
        if finalists.len() == FINALISTS {
            break;
        }
        match speed_of(candidate, &cut) {
            Ok(speed) => finalists.push((speed, candidate, cut)),
            Err(error) => failed.push((candidate, error)),
        }
    }
    match finalists.into_iter().max_by(|left, right| left.0.total_cmp(&right.0)) {
        Some((tokens_per_second, batches, cut)) => Ok(Chosen { batches, tokens_per_second, failed, cut }),
        None => Err(failed.into_iter().next().map_or(EngineError::Stopped, |(_, error)| error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of these lengths, each with ids of its own.
    fn rows(lengths: &[usize]) -> Vec<Row> {
        (0_u32..).zip(lengths).map(|(row, length)| vec![row; *length].into()).collect()
    }

    /// The lengths in each batch, by the shortest.
    fn cut(batches: Batches, lengths: &[usize], packed: bool) -> Vec<Vec<usize>> {
        let cut = batches.cut(&rows(lengths), packed);
        let lengths = |batch: &Batch| batch.rows.iter().map(|row| row.len()).collect();
        let mut lengths: Vec<Vec<usize>> = cut.iter().map(lengths).collect();
        lengths.sort();
        lengths
    }

    #[test]
    fn neighbours_in_length_run_together_and_no_row_is_lost() {
        let lengths = [9, 2, 30, 4, 7];
        assert_eq!(cut(Batches::Rows(2), &lengths, true), [vec![2, 4], vec![7, 9], vec![30]]);
        // 2 + 4 + 7 are 13 tokens, 9 more would be 22. The longest is too long for any batch, and has its own.
        assert_eq!(cut(Batches::Tokens(16), &lengths, true), [vec![2, 4, 7], vec![9], vec![30]]);
        // With padding 2 and 4 take 8 places, 7 more would make it 21.
        assert_eq!(cut(Batches::Tokens(16), &lengths, false), [vec![2, 4], vec![7], vec![9], vec![30]]);
        assert_eq!(cut(Batches::Tokens(13), &lengths, true)[0], [2, 4, 7], "exactly as many as may be");
        let mut random = fastrand::Rng::with_seed(1);
        let lengths: Vec<usize> = (0..500).map(|_| random.usize(1..200)).collect();
        for batches in Hardware::Cpu.candidates().iter().chain(Hardware::Gpu.candidates()) {
            for packed in [true, false] {
                let mut cut: Vec<usize> = cut(*batches, &lengths, packed).concat();
                cut.sort_unstable();
                let mut all = lengths.clone();
                all.sort_unstable();
                assert_eq!(cut, all, "{batches}");
            }
        }
    }

    #[test]
    fn each_hardware_has_its_sizes() {
        let largest = |hardware: Hardware| {
            let sizes = hardware.candidates().iter();
            sizes.fold((0, 0), |(rows, tokens), size| match size {
                Batches::Rows(size) => (rows.max(*size), tokens),
                Batches::Tokens(size) => (rows, tokens.max(*size)),
            })
        };
        assert_eq!(largest(Hardware::Cpu), (32, 1024));
        assert_eq!(largest(Hardware::Gpu), (1024, 65_536));
    }

    const THREE: [Batches; 3] = [Batches::Rows(1), Batches::Rows(2), Batches::Rows(4)];

    fn rows_of(batches: &[Batch]) -> usize {
        batches.iter().map(|batch| batch.rows.len()).sum()
    }

    #[test]
    fn the_fastest_on_all_rows_is_kept_whatever_it_was_on_half_of_them() {
        let rows = rows(&[5; 20]);
        let mut tries = Vec::new();
        let chosen = choose(&THREE, &rows, true, |candidate, batches| {
            tries.push((candidate, rows_of(batches)));
            let half = rows_of(batches) < rows.len();
            Ok(match candidate {
                Batches::Rows(2) if half => 1.0,
                Batches::Rows(2) => 30.0,
                Batches::Rows(size) => 10.0 + size as f64,
                Batches::Tokens(_) => unreachable!(),
            })
        });
        let chosen = chosen.unwrap();
        assert_eq!((chosen.batches, chosen.tokens_per_second), (Batches::Rows(2), 30.0));
        assert_eq!((rows_of(&chosen.cut), chosen.cut.len()), (20, 10));
        assert!(chosen.failed.is_empty());
        let [one, two, four] = THREE;
        assert_eq!(tries, [(one, 10), (two, 10), (four, 10), (four, 20), (one, 20), (two, 20)]);
    }

    #[test]
    fn a_size_that_cannot_be_run_is_left_out_and_named() {
        let rows = rows(&[5; 20]);
        let chosen = choose(&THREE, &rows, true, |candidate, batches| match candidate {
            Batches::Rows(1) => Ok(1.0),
            // Runs out of memory on the longest rows only.
            Batches::Rows(2) if rows_of(batches) < rows.len() => Ok(2.0),
            _ => Err(EngineError::NoTokenOutput),
        });
        let chosen = chosen.unwrap();
        assert_eq!(chosen.batches, Batches::Rows(1));
        let failed: Vec<Batches> = chosen.failed.iter().map(|(batches, _)| *batches).collect();
        assert_eq!(failed, [Batches::Rows(4), Batches::Rows(2)]);
        let none = choose(&THREE, &rows, true, |_, _| Err(EngineError::NoTokenOutput));
        assert!(matches!(none, Err(EngineError::NoTokenOutput)));
    }

    #[test]
    fn sizes_that_cut_few_rows_alike_are_one() {
        let mut tried = Vec::new();
        let chosen = choose(Hardware::Cpu.candidates(), &rows(&[5; 5]), true, |candidate, _| {
            tried.push(candidate);
            Ok(1.0)
        });
        assert_eq!(chosen.unwrap().failed.len(), 0);
        let (four, all) = (Batches::Rows(4), Batches::Rows(8));
        assert_eq!(tried.iter().filter(|tried| ![four, all].contains(tried)).count(), 0, "{tried:?}");
    }
}
