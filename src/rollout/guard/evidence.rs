//! What callers show: how often something happened to each of them, and to how many of them too often to be chance.

use statrs::distribution::{Binomial, DiscreteCDF as _};

/// So rarely may chance alone look like a breach in one window of a version that just keeps its bound: one that keeps it well does
/// not come near, and it takes several windows in a row.
const CHANCE: f64 = 1e-2;
/// A caller shows something if chance alone would so rarely, if there are no more than 30 callers: those that show it are counted
/// over a whole row of windows, which one of them may have brought about.
const CHANCE_OF_EACH: f64 = 1e-3;
/// Callers that [`CHANCE_OF_EACH`] is for; of more each needs to be surer, or some of very many would show something by chance.
const FEW_CALLERS: f64 = 30.0;

/// Requests, or pairs, and those of them that tell against the version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) hits: u64,
    pub(super) trials: u64,
}

impl Count {
    pub(super) fn add(&mut self, other: Self) {
        self.hits += other.hits;
        self.trials += other.trials;
    }

    /// Counts one more.
    pub(super) fn saw(&mut self, is_hit: bool) {
        self.add(Self { hits: u64::from(is_hit), trials: 1 });
    }

    /// Hits as a share of the trials.
    pub(super) fn share(self) -> f64 {
        if self.trials == 0 { 0.0 } else { self.hits as f64 / self.trials as f64 }
    }

    /// Whether so many hits would come by chance less often than `chance`, if each did with `probability`.
    fn is_rarer_than(self, chance: f64, probability: f64) -> bool {
        let Some(fewer) = self.hits.checked_sub(1) else { return false };
        Binomial::new(probability.clamp(0.0, 1.0), self.trials)
            .is_ok_and(|binomial| binomial.sf(fewer) < chance)
    }

    /// Whether so many hits are more than chance, if each comes with `probability`.
    pub(super) fn is_more_than_chance(self, probability: f64) -> bool {
        self.is_rarer_than(CHANCE, probability)
    }
}

/// The counts of callers, one a vote. Callers with fewer trials than `least` are joined, so that thousands of callers with one request
/// each show something as well; into no fewer than `votes` counts, so that `votes` small callers are heard each by itself. A caller is
/// in one count only.
#[derive(Debug)]
pub(super) struct Votes(Vec<Count>);

impl Votes {
    pub(super) fn new(callers: impl Iterator<Item = Count>, votes: u32, least: u64) -> Self {
        let (small, mut counts): (Vec<_>, Vec<_>) =
            callers.filter(|count| count.trials > 0).partition(|count| count.trials < least);
        let trials: u64 = small.iter().map(|count| count.trials).sum();
        let groups = (trials / least.max(1)).max(u64::from(votes)).min(small.len() as u64) as usize;
        let mut joined = vec![Count::default(); groups];
        for (place, count) in small.into_iter().enumerate() {
            joined[place % groups].add(count);
        }
        counts.extend(joined);
        Self(counts)
    }

    /// How many show more than chance, if a hit comes with `probability`.
    pub(super) fn against(&self, probability: f64) -> u32 {
        let chance = CHANCE_OF_EACH * (FEW_CALLERS / self.0.len() as f64).min(1.0);
        self.0.iter().filter(|count| count.is_rarer_than(chance, probability)).count() as u32
    }

    /// The share of hits in the middle of the counts, the lower one of two: no caller can raise it above what half of the callers see.
    /// None if there are fewer than `votes`.
    pub(super) fn median_share(&self, votes: u32) -> Option<f64> {
        let mut shares: Vec<f64> = self.0.iter().map(|count| count.share()).collect();
        shares.sort_by(f64::total_cmp);
        if shares.len() < votes as usize {
            None
        } else {
            shares.get(shares.len().saturating_sub(1) / 2).copied()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(hits: u64, trials: u64) -> Count {
        Count { hits, trials }
    }

    fn votes(counts: &[(u64, u64)]) -> Votes {
        Votes::new(counts.iter().map(|(hits, trials)| count(*hits, *trials)), 3, 10)
    }

    #[test]
    fn a_caller_has_one_vote_however_much_it_sends() {
        assert_eq!(votes(&[(100_000, 100_000)]).against(0.02), 1);
        assert_eq!(votes(&[(100_000, 100_000), (0, 50), (0, 50)]).against(0.02), 1);
        // A million good requests hide nothing of what others see.
        assert_eq!(votes(&[(0, 1_000_000), (9, 30), (8, 30), (7, 30)]).against(0.02), 3);
    }

    #[test]
    fn three_small_callers_are_heard_each_by_itself_and_very_small_ones_together() {
        assert_eq!(votes(&[(3, 5), (3, 5), (3, 5)]).against(0.02), 3);
        let tiny: Vec<(u64, u64)> = (0..300).map(|number| (u64::from(number % 3 == 0), 1)).collect();
        let joined = votes(&tiny);
        assert_eq!(joined.0.len(), 30);
        assert!(joined.against(0.02) >= 3);
        let good = votes(&[(0, 1); 300]);
        assert_eq!((good.0.len(), good.against(0.02)), (30, 0));
    }

    #[test]
    fn of_very_many_callers_that_keep_the_bound_no_three_break_it_by_chance() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..20 {
            let callers: Vec<(u64, u64)> =
                (0..2_000).map(|_| ((0..100).filter(|_| random.f64() < 0.02).count() as u64, 100)).collect();
            assert!(votes(&callers).against(0.02) < 3);
        }
    }

    #[test]
    fn one_caller_does_not_move_the_median_share() {
        assert_eq!(votes(&[(1_000, 1_000), (1, 100), (2, 100)]).median_share(3), Some(0.02));
        assert_eq!(votes(&[(1_000, 1_000), (0, 100), (0, 100), (1, 100)]).median_share(3), Some(0.0));
        assert_eq!(votes(&[(1_000, 1_000), (0, 100)]).median_share(3), None);
        assert_eq!(votes(&[]).median_share(0), None);
    }
}
