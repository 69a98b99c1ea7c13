//! Has the traffic moved outside? Bets on how often vectors fall into a tail, whose gains are evidence.
//!
//! A bet of stake `l` on a tail of share `a` multiplies its money by `e = 1 + l (1{in the tail} - a)`, whose mean is 1 while nothing
//! has changed. In the form of Shiryaev and Roberts, `M <- (1 + M) e`, a bet is opened at every vector, and the expected number of
//! vectors until `M` reaches a level is at least that level: Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework for
//! sequential change detection", 2022. No model of the traffic and no simulation is needed. The mean over several bets keeps that.
//!
//! `a` is the upper bound of the tail's share. Where `D` neighbours resemble each other (the design effect) the logarithm of each
//! factor is divided by `D`: the geometric mean of the D factors of a session is at most their arithmetic mean, whose expectation is 1
//! however they depend on each other. For streams whose dependence has no such borders that is an approximation.

use super::counts::Counts;
use super::reference::Facts;
use super::tail::InTails;

/// A bet on a tail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bet {
    /// Index in [`TAILS`](super::tail::TAILS).
    pub tail: usize,
    /// Share of the money at risk, in units of the tail's odds.
    pub stake: f64,
}

/// Bets that vectors lie outside. The outermost tail finds a few strange texts soonest, the widest finds a slight change of all.
pub const OUTSIDE: [Bet; 6] = [
    Bet { tail: 0, stake: 3.0 },
    Bet { tail: 0, stake: 10.0 },
    Bet { tail: 1, stake: 1.0 },
    Bet { tail: 1, stake: 4.0 },
    Bet { tail: 2, stake: 0.5 },
    Bet { tail: 2, stake: 1.5 },
];

/// Bets that vectors lie too near: traffic that collapses onto a few texts moves nothing outwards.
pub const NEAR: [Bet; 2] = [Bet { tail: 3, stake: 1.0 }, Bet { tail: 3, stake: 4.0 }];

impl Bet {
    /// Logarithms of the factors of a vector in the tail and of one that is not.
    fn gains(&self, facts: &Facts) -> (f64, f64) {
        let share = facts.tail_bounds[self.tail];
        // A calibration too small for the tail would stake more than all.
        let stake = self.stake.min(0.5 / share);
        (
            (stake * (1.0 - share)).ln_1p() / facts.design_effect,
            (-stake * share).ln_1p() / facts.design_effect,
        )
    }
}

/// Logarithm of the evidence in `counts` as a whole: what Prometheus computes from the sums of all replicas. Linear in the counts
/// but for the mean over the bets. Minus infinity for no bets.
pub fn log_evidence(counts: &Counts, facts: &Facts, bets: &[Bet]) -> f64 {
    let logarithms = bets.iter().map(|bet| {
        let (hit, miss) = bet.gains(facts);
        let hits = counts.tails[bet.tail];
        hits as f64 * hit + (counts.samples - hits) as f64 * miss
    });
    log_mean(logarithms)
}

/// Logarithm of the mean of numbers given by their logarithms.
fn log_mean(logarithms: impl ExactSizeIterator<Item = f64> + Clone) -> f64 {
    let largest = logarithms.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest.is_infinite() {
        return largest;
    }
    let count = logarithms.len() as f64;
    largest + (logarithms.map(|logarithm| (logarithm - largest).exp()).sum::<f64>() / count).ln()
}

/// Bets that are opened at every vector.
#[derive(Debug, Clone)]
pub struct Detector {
    bets: Vec<Running>,
    /// Evidence at which it alarms, as a logarithm.
    threshold: f64,
    /// An alarm stands until the evidence is the root of that: at the threshold itself it would come and go.
    stands: bool,
}

#[derive(Debug, Clone)]
struct Running {
    tail: usize,
    hit: f64,
    miss: f64,
    /// Logarithm of M.
    money: f64,
    /// The best gain of a bet opened at one vector only, and the mark of that vector: the likeliest beginning of the change.
    best: (f64, Option<u64>),
}

/// Evidence is not counted beyond so many times what an alarm needs, or it would take as long to go as the change lasted.
const CAP: f64 = 100.0;

impl Detector {
    /// Alarms once in `run_time` vectors of unchanged traffic, or less often.
    pub fn new(bets: &[Bet], facts: &Facts, run_time: f64) -> Self {
        let running = |bet: &Bet| {
            let (hit, miss) = bet.gains(facts);
            Running { tail: bet.tail, hit, miss, money: f64::NEG_INFINITY, best: (0.0, None) }
        };
        Self { bets: bets.iter().map(running).collect(), threshold: run_time.max(1.0).ln(), stands: false }
    }

    /// Takes in a vector; `mark` is its time, or its place in a recorded stream.
    pub fn observe(&mut self, tails: &InTails, mark: u64) {
        let cap = self.threshold + CAP.ln();
        for bet in &mut self.bets {
            let gain = if tails[bet.tail] { bet.hit } else { bet.miss };
            // ln(1 + M): of a large M that is ln M.
            let with_new = if bet.money > 40.0 { bet.money } else { bet.money.exp().ln_1p() };
            bet.money = (with_new + gain).min(cap);
            bet.best = match bet.best {
                (best, since) if best + gain > 0.0 => ((best + gain).min(cap), since.or(Some(mark))),
                _ => (0.0, None),
            };
        }
        let evidence = self.log_evidence();
        self.stands = evidence >= self.threshold || (self.stands && evidence > self.threshold / 2.0);
    }

    /// Logarithm of the evidence, no less than 0.
    pub fn log_evidence(&self) -> f64 {
        log_mean(self.bets.iter().map(|bet| bet.money)).max(0.0)
    }

    /// Logarithm of the evidence at which it alarms.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Whether the evidence was enough, and has not gone since.
    pub fn is_alarmed(&self) -> bool {
        self.stands
    }

    /// Where the change most likely began, by the bet with the most gain.
    pub fn since(&self) -> Option<u64> {
        self.bets.iter().max_by(|left, right| left.best.0.total_cmp(&right.best.0))?.best.1
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        for bet in &mut self.bets {
            (bet.money, bet.best) = (f64::NEG_INFINITY, (0.0, None));
        }
        self.stands = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::inputs::InputCounts;
    use crate::drift::tail::TAILS;

    fn facts(design_effect: f64) -> Facts {
        Facts {
            fitted: 10_000,
            calibrated: 5_000,
            design_effect,
            tail_bounds: TAILS.map(|tail| tail.bound(5_000)),
            bin_shares: vec![1.0],
            inputs: InputCounts::default(),
        }
    }

    /// The tails of a vector whose place in the reference is `place`, 0 to 1.
    fn tails(place: f64) -> InTails {
        TAILS.map(|tail| if tail.low { place < tail.share } else { place > 1.0 - tail.share })
    }

    #[test]
    fn factors_have_mean_one_at_the_bound_and_less_below_it() {
        let facts = facts(1.0);
        for bet in OUTSIDE.iter().chain(&NEAR) {
            let (hit, miss) = bet.gains(&facts);
            let share = facts.tail_bounds[bet.tail];
            let mean = |share: f64| share * hit.exp() + (1.0 - share) * miss.exp();
            assert!((mean(share) - 1.0).abs() < 1e-12 && mean(TAILS[bet.tail].share) < 1.0, "{bet:?}");
        }
    }

    #[test]
    fn evidence_of_counts_is_the_product_of_the_factors() {
        let facts = facts(2.5);
        let mut counts = Counts::none(1, 1);
        let mut products = [0.0; OUTSIDE.len()];
        let mut random = fastrand::Rng::with_seed(4);
        for _ in 0..500 {
            let tails = tails(random.f64());
            counts.samples += 1;
            counts.tails.iter_mut().zip(tails).for_each(|(count, is_in)| *count += u64::from(is_in));
            for (product, bet) in products.iter_mut().zip(OUTSIDE) {
                let (hit, miss) = bet.gains(&facts);
                *product += if tails[bet.tail] { hit } else { miss };
            }
        }
        let mean = products.iter().map(|product| product.exp()).sum::<f64>() / products.len() as f64;
        assert!((log_evidence(&counts, &facts, &OUTSIDE) - mean.ln()).abs() < 1e-9);
        assert!(log_evidence(&Counts::none(1, 1), &facts, &OUTSIDE).abs() < 1e-12);
    }

    /// Vectors until an alarm, again and again, of a stream that `place` draws.
    fn run_times(facts: &Facts, run_time: f64, vectors: u64, mut place: impl FnMut() -> f64) -> Vec<u64> {
        let (mut found, mut since) = (Vec::new(), 0);
        let mut detector = Detector::new(&OUTSIDE, facts, run_time);
        for mark in 0..vectors {
            detector.observe(&tails(place()), mark);
            if detector.is_alarmed() {
                found.push(mark + 1 - since);
                since = mark + 1;
                detector.reset();
            }
        }
        found
    }

    #[test]
    fn false_alarms_are_no_closer_than_promised_and_a_change_is_found_soon() {
        // The worst that the calibration allows: as many in each tail as its bound.
        let mut random = fastrand::Rng::with_seed(11);
        let mut at_bounds = facts(1.0);
        at_bounds.tail_bounds = TAILS.map(|tail| tail.share);
        let found = run_times(&at_bounds, 500.0, 400_000, || random.f64());
        let mean = 400_000.0 / found.len() as f64;
        assert!(mean > 500.0 && found.len() > 50, "{mean}");

        // Sessions of four equal vectors: the guarantee is lost without the design effect, and holds with it.
        let mut sessions = |facts: &Facts| {
            let (mut place, mut left) = (0.0, 0);
            let found = run_times(facts, 500.0, 400_000, || {
                if left == 0 {
                    (place, left) = (random.f64(), 4);
                }
                left -= 1;
                place
            });
            400_000.0 / found.len().max(1) as f64
        };
        assert!(sessions(&at_bounds) < 300.0);
        assert!(sessions(&Facts { design_effect: 4.0, ..at_bounds.clone() }) > 500.0);

        // One in five lies farther out than all that was held out.
        let mut random = fastrand::Rng::with_seed(12);
        let found =
            run_times(&facts(1.0), 1e8, 20_000, || if random.u8(..5) == 0 { 1.0 } else { random.f64() });
        assert!(20_000 / found.len() < 120, "{}", found.len());
    }

    #[test]
    fn the_beginning_of_a_change_is_known_and_old_evidence_goes() {
        let facts = facts(1.0);
        let mut detector = Detector::new(&OUTSIDE, &facts, 1e6);
        let mut random = fastrand::Rng::with_seed(5);
        for mark in 0..3_000 {
            detector.observe(&tails(random.f64()), mark);
        }
        assert!(!detector.is_alarmed());
        for mark in 3_000..9_000 {
            detector.observe(&tails(if random.bool() { 1.0 } else { random.f64() }), mark);
        }
        assert!(detector.is_alarmed());
        assert!(
            detector.since().is_some_and(|since| (2_900..3_100).contains(&since)),
            "{:?}",
            detector.since()
        );
        // An alarm that goes does so once: the evidence has far to fall.
        let mut changes = 0;
        // Six thousand vectors of change are not paid off one by one.
        for mark in 9_000..9_900 {
            let before = detector.is_alarmed();
            detector.observe(&tails(random.f64()), mark);
            changes += usize::from(before != detector.is_alarmed());
        }
        assert!(!detector.is_alarmed() && changes == 1, "{changes}");
    }

    #[test]
    fn traffic_that_repeats_what_is_known_is_found() {
        let (mut detector, mut random) =
            (Detector::new(&NEAR, &facts(1.0), 1e6), fastrand::Rng::with_seed(6));
        let vectors = (0..).find(|mark| {
            detector.observe(&tails(if random.u8(..3) == 0 { 0.01 } else { random.f64() }), *mark);
            detector.is_alarmed()
        });
        assert!(vectors.unwrap() < 200, "{vectors:?}");
    }
}
