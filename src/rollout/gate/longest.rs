//! Whether the longest row fits into memory, said before it runs: from rows of growing length, whose memory is extrapolated.
//!
//! A processor's attention makes a matrix of tokens by tokens for each head, so a row's memory grows with the square of its length: 1.29 GB
//! for 8,192 tokens of 4 heads, 16 times as much for 32,768.

/// Shorter rows are run without a look at memory: 64 heads of 1,024 tokens take 270 MB.
pub(super) const UNASKED: usize = 1024;
/// The first row that is measured.
const FIRST: usize = 512;
/// Of what is available, for all else that the process does: bodies, answers, other models.
const USABLE: f64 = 0.8;
/// What is suggested is a multiple of this.
const ROUND: usize = 256;

/// A row that ran.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    /// Its tokens.
    pub(super) tokens: usize,
    /// Bytes that the process took for it.
    pub(super) bytes: u64,
}

/// Which rows may run together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// Tokens of the longest row.
    pub(super) longest: usize,
    /// Padded tokens of a batch of several rows.
    pub(super) batch_tokens: usize,
    /// Sessions that run at once.
    pub(super) sessions: usize,
}

/// The memory of rows, by what was measured.
pub(super) struct Growth {
    /// Bytes for each token.
    linear: f64,
    /// Bytes for each pair of tokens.
    quadratic: f64,
}

/// The lengths to measure: doubled up to, but without, the longest.
pub(super) fn lengths(longest: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(FIRST), |length| Some(length * 2)).take_while(move |length| *length < longest)
}

impl Growth {
    /// From the last two steps; of one alone all is taken for quadratic, which cannot be too little.
    pub(super) fn of(steps: &[Step]) -> Self {
        let share = |step: &Step| step.bytes as f64 / step.tokens.max(1) as f64;
        match steps {
            [] => Self { linear: 0.0, quadratic: 0.0 },
            [only] => Self { linear: 0.0, quadratic: share(only) / only.tokens.max(1) as f64 },
            [.., before, last] => {
                let distance = last.tokens.saturating_sub(before.tokens).max(1) as f64;
                let quadratic = ((share(last) - share(before)) / distance).max(0.0);
                let linear = (share(last) - quadratic * last.tokens as f64).max(0.0);
                Self { linear, quadratic: quadratic.max((share(last) - linear) / last.tokens.max(1) as f64) }
            }
        }
    }

    /// Bytes of a row.
    fn row(&self, tokens: usize) -> f64 {
        let tokens = tokens as f64;
        tokens * (self.linear + self.quadratic * tokens)
    }

    /// Bytes of the largest batches that may run at once. Rows of a batch have `batch_tokens` together, so where several long rows
    /// fit into one it takes as much as they do.
    fn all(&self, load: Load) -> f64 {
        let rows = (load.batch_tokens / load.longest.max(1)).max(1);
        self.row(load.longest) * rows as f64 * load.sessions.max(1) as f64
    }
}

/// Refuses a load that does not fit into `available` bytes, with the longest row that would as the remedy.
///
/// # Errors
/// A sentence with the figures.
pub(super) fn check(growth: &Growth, load: Load, available: u64) -> Result<(), String> {
    let usable = available as f64 * USABLE;
    let needed = growth.all(load);
    if needed <= usable {
        return Ok(());
    }
    let fits = (1..=load.longest / ROUND).rev().map(|part| part * ROUND);
    let fits = fits.filter(|longest| *longest < load.longest);
    let fits = fits.into_iter().find(|longest| growth.all(Load { longest: *longest, ..load }) <= usable);
    let remedy = match fits {
        Some(fits) => format!("import it with `--max-tokens {fits}`"),
        None => format!("rows of {ROUND} tokens do not fit either: it needs a machine with more memory"),
    };
    let fewer = if load.sessions > 1 { ", or serve it with fewer `--sessions`" } else { "" };
    Err(format!(
        "a row of {} tokens on {} sessions at once would take about {:.1} GB for attention, and {:.1} GB may be taken of the {:.1} GB \
         available: {remedy}{fewer}",
        load.longest,
        load.sessions,
        needed / 1e9,
        usable / 1e9,
        available as f64 / 1e9
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: u64 = 4;

    /// What attention alone takes.
    fn step(tokens: usize) -> Step {
        Step { tokens, bytes: HEADS * (tokens * tokens * 4) as u64 }
    }

    fn load(longest: usize) -> Load {
        Load { longest, batch_tokens: 512, sessions: 1 }
    }

    #[test]
    fn measured_lengths_double_and_end_below_the_longest() {
        assert_eq!(lengths(4096).collect::<Vec<_>>(), [512, 1024, 2048]);
        assert_eq!(lengths(5000).collect::<Vec<_>>(), [512, 1024, 2048, 4096]);
    }

    #[test]
    fn the_longest_row_that_fits_is_the_remedy() {
        let growth = Growth::of(&[step(1024), step(2048)]);
        let bytes = HEADS * 32_768 * 32_768 * 4;
        assert_eq!(growth.all(load(32_768)), bytes as f64);
        assert!(check(&growth, load(32_768), bytes * 10 / 8 + 1).is_ok());
        let refused = check(&growth, load(32_768), bytes * 10 / 8 / 4).unwrap_err();
        assert!(
            refused.contains("--max-tokens 16128") || refused.contains("--max-tokens 16384"),
            "{refused}"
        );
        assert!(refused.contains("17.2 GB"), "{refused}");
        assert!(check(&growth, load(16_128), bytes * 10 / 8 / 4).is_ok(), "the remedy is one");
        assert!(check(&growth, load(32_768), 1000).unwrap_err().contains("more memory"));
    }

    #[test]
    fn sessions_and_rows_of_one_batch_add_up() {
        let growth = Growth::of(&[step(1024), step(2048)]);
        let one = growth.all(load(2048));
        assert_eq!(growth.all(Load { sessions: 3, ..load(2048) }), 3.0 * one);
        assert_eq!(growth.all(Load { batch_tokens: 8192, ..load(2048) }), 4.0 * one);
        let two = Load { sessions: 2, ..load(32_768) };
        assert!(check(&growth, two, 1 << 30).unwrap_err().contains("--sessions"));
    }

    #[test]
    fn linear_memory_is_not_taken_for_quadratic_and_one_step_is() {
        let line = |tokens: usize| Step { tokens, bytes: tokens as u64 * 1000 };
        assert_eq!(Growth::of(&[line(512), line(1024)]).row(32_768), 32_768.0 * 1000.0);
        assert_eq!(Growth::of(&[line(512)]).row(1024), 4.0 * 512.0 * 1000.0);
        assert_eq!(Growth::of(&[]).row(1024), 0.0);
    }

    #[test]
    fn a_step_that_took_nothing_new_does_not_make_less_of_the_next() {
        // The allocator reused what the step before had left.
        let growth = Growth::of(&[step(1024), Step { tokens: 2048, bytes: step(1024).bytes }]);
        assert!(growth.row(4096) >= step(1024).bytes as f64 * 2.0);
    }
}
