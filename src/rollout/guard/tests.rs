use std::sync::Arc;
use std::time::{Duration, Instant};

use super::window::{Finding, Rows, Window};
use super::*;
use crate::drift::fixture::{Traffic, observed, scorer};

const RULES: Rules = Rules::DEFAULT;
const CALLERS: [&str; 3] = ["search", "import", "chat"];

/// A pair with that cosine whose run on the canary took so many times as long.
fn pair(cosine: f64, slowdown: f64) -> Pair {
    let sine = (1.0 - cosine * cosine).sqrt();
    let took = Duration::from_millis(10);
    Pair {
        stable: (vec![1.0, 0.0], took),
        candidate: (Some(vec![cosine as f32, sine as f32]), took.mul_f64(slowdown)),
    }
}

fn good_pair() -> Pair {
    pair(0.9999, 0.5)
}

/// Requests of each caller, the first of which fail so; 300 of the stable version, of which one fails; and these pairs.
fn window(requests: u64, failed: u64, outcome: Outcome, pairs: &[Pair]) -> Window {
    let mut window = Window::default();
    for caller in CALLERS.map(Arc::from) {
        let end = |number: u64, failed| if number < failed { outcome } else { Outcome::Answered };
        (0..requests).for_each(|number| window.answered(&caller, Side::Canary, end(number, failed)));
        (0..300).for_each(|number| {
            window.answered(
                &caller,
                Side::Stable,
                if number < 1 { Outcome::Failed } else { Outcome::Answered },
            );
        });
        for pair in pairs {
            window.compared(&caller, pair, &RULES);
        }
    }
    window
}

/// The causes that a row of such windows is.
fn found(window: &Window) -> Vec<Cause> {
    let (window, mut rows) = (Arc::new(window.clone()), Rows::default());
    let findings = (0..RULES.windows).filter_map(|_| rows.close(&window, &RULES));
    let shown = findings.filter_map(|finding| match finding {
        Finding::Shown(cause) => Some(cause),
        Finding::Doubted(_) => None,
    });
    shown.collect()
}

fn shifted(canary: impl Fn(&mut Traffic) -> Vec<f32>) -> Option<window::Shift> {
    let (scorer, mut traffic, sides) = (scorer(), Traffic::new(3), crate::drift::sides::Sides::default());
    for index in 0..3_000 {
        let is_canary = index % 2 == 0;
        let vector = if is_canary { canary(&mut traffic) } else { traffic.usual() };
        let caller = CALLERS[index / 2 % 3].into();
        sides.add(&caller, is_canary, &observed(&scorer, [vector])[0], &scorer);
    }
    window::Shift::of(&sides)
}

#[test]
fn a_good_window_breaches_nothing_and_chance_is_no_breach() {
    let good = vec![good_pair(); 7];
    assert!(found(&window(33, 0, Outcome::Failed, &good)).is_empty());
    assert!(found(&Window::default()).is_empty());
    let mut odd = vec![good_pair(); 40];
    (odd[3], odd[5]) = (pair(0.9, 40.0), pair(0.9999, 5.0));
    assert!(found(&window(100, 2, Outcome::Failed, &odd)).is_empty());
    let mut same = window(33, 0, Outcome::Failed, &good);
    same.shift = shifted(|traffic| traffic.usual());
    assert!(same.shift.is_some() && found(&same).is_empty());
    // The stable version fails as often: whatever it is, it is not the canary.
    let mut both = window(100, 30, Outcome::BadVector, &good);
    for caller in CALLERS.map(Arc::from) {
        (0..150).for_each(|_| both.answered(&caller, Side::Stable, Outcome::BadVector));
    }
    assert!(found(&both).is_empty());
}

#[test]
fn each_fault_is_found_by_its_own_figure() {
    let good = vec![good_pair(); 7];
    let half: Vec<Pair> =
        (0..8).map(|number| if number % 2 == 0 { pair(0.5, 0.5) } else { good_pair() }).collect();
    let hangs = Pair { candidate: (None, Duration::from_secs(10)), ..good_pair() };
    let elsewhere = |traffic: &mut Traffic| {
        let mut vector = traffic.usual();
        vector.iter_mut().step_by(2).for_each(|value| *value += 0.7);
        vector
    };
    let moved = |shift| {
        let mut window = window(33, 0, Outcome::Failed, &good);
        window.shift = shift;
        window
    };
    for (window, figure, value) in [
        (window(100, 30, Outcome::Failed, &good), Figure::Errors, Some(0.3)),
        (window(100, 1, Outcome::BadVector, &good), Figure::Vectors, Some(0.01)),
        (window(33, 0, Outcome::Failed, &half), Figure::Cosine, Some(0.5)),
        (window(33, 0, Outcome::Failed, &vec![pair(f64::NAN, 0.5); 7]), Figure::Cosine, None),
        (window(33, 0, Outcome::Failed, &vec![pair(0.9999, 5.0); 7]), Figure::Latency, Some(5.0)),
        (window(33, 0, Outcome::Failed, &vec![hangs; 7]), Figure::Latency, None),
        (moved(shifted(elsewhere)), Figure::Shift, Some(0.0)),
        (moved(shifted(Traffic::strange)), Figure::Shift, Some(0.0)),
    ] {
        let causes = found(&window);
        assert_eq!(causes.iter().map(|cause| cause.figure).collect::<Vec<_>>(), [figure], "{causes:?}");
        let (cause, bound) = (&causes[0], causes[0].bound.unwrap());
        assert!(cause.sentence.contains("3 callers show it"), "{cause:?}");
        match (figure, value, cause.value) {
            (Figure::Shift, ..) => assert!(cause.value.unwrap() > bound, "{cause:?}"),
            (_, Some(expected), Some(value)) => assert!((value - expected).abs() < 1e-6, "{cause:?}"),
            (_, expected, value) => assert_eq!(value, expected),
        }
    }
}

#[test]
fn only_a_breach_in_every_window_of_a_row_is_a_cause() {
    let good_pairs = vec![good_pair(); 7];
    let bad = Arc::new(window(100, 30, Outcome::Failed, &good_pairs));
    let other = Arc::new(window(100, 1, Outcome::BadVector, &good_pairs));
    let good = Arc::new(window(100, 0, Outcome::Failed, &good_pairs));
    let mut rows = Rows::default();
    for (window, expected) in [
        (&bad, None),
        (&bad, None),
        (&good, None),
        (&bad, None),
        (&other, None),
        (&bad, None),
        (&bad, None),
        (&bad, Some(Figure::Errors)),
    ] {
        let figure = rows.close(window, &RULES).map(|finding| match finding {
            Finding::Shown(cause) | Finding::Doubted(cause) => cause.figure,
        });
        assert_eq!(figure, expected);
    }
}

/// What one caller sees and does in a tenth of a second, at the time of the trial.
type Acts<'a> = &'a dyn Fn(&Watch, &Arc<str>, Instant, &mut fastrand::Rng);

/// Runs a trial in simulated time: until it is over, or the canary is taken back at the second that is returned with the cause.
/// `probes` is what the server's own probes find.
fn run(seconds: u32, callers: &[(&str, Acts<'_>)], probes: &Pair) -> Option<(u32, Cause)> {
    let (start, mut random) = (Instant::now(), fastrand::Rng::with_seed(7));
    let watch = Watch::new(RULES, start);
    for tenth in 0..seconds * 10 {
        let now = start + Duration::from_millis(100) * tenth;
        for (caller, act) in callers {
            act(&watch, &Arc::from(*caller), now, &mut random);
        }
        if let Some(cause) = watch.look(now) {
            return Some((tenth / 10, cause.clone()));
        }
        if watch.is_in_doubt() {
            let mut probed = watch.probing(48);
            (0..48).for_each(|_| probed.ran(probes));
            watch.probed(&probed);
            assert!(!watch.is_in_doubt(), "not again before the next windows");
        }
    }
    assert!(watch.summary().windows >= u64::from(seconds) / 20);
    None
}

/// Requests of an honest caller: three a second of the canary, which fail so often, and a pair where it is time.
fn honest(
    watch: &Watch,
    caller: &Arc<str>,
    now: Instant,
    random: &mut fastrand::Rng,
    fails: f64,
    seen: Pair,
) {
    let end = |fails: bool| if fails { Outcome::Failed } else { Outcome::Answered };
    if random.f64() < 0.3 {
        watch.answered(caller, Side::Canary, end(random.f64() < fails));
        if watch.wants_pair(caller, now) {
            watch.compared(caller, seen);
        }
    }
    watch.answered(caller, Side::Stable, end(random.f64() < 0.005));
}

/// An honest caller of an identical canary: five of a thousand requests fail, and run times scatter.
fn content(watch: &Watch, caller: &Arc<str>, now: Instant, random: &mut fastrand::Rng) {
    let slowdown = 0.5 + random.f64() * 2.0;
    honest(watch, caller, now, random, 0.005, pair(0.9995, slowdown));
}

fn hang_up(watch: &Watch, caller: &Arc<str>, _: Instant, _: &mut fastrand::Rng) {
    (0..5).for_each(|_| watch.answered(caller, Side::Canary, Outcome::Failed));
}

fn find_bad_vectors(watch: &Watch, caller: &Arc<str>, _: Instant, _: &mut fastrand::Rng) {
    (0..5).for_each(|_| watch.answered(caller, Side::Canary, Outcome::BadVector));
}

/// Inputs whose vectors lie far apart, and that take long on the canary.
fn send_odd_inputs(watch: &Watch, caller: &Arc<str>, now: Instant, _: &mut fastrand::Rng) {
    for _ in 0..5 {
        watch.answered(caller, Side::Canary, Outcome::Answered);
        if watch.wants_pair(caller, now) {
            watch.compared(caller, pair(0.2, 50.0));
        }
    }
}

/// Hides what is wrong: many good requests of the canary, and as many given up on the stable version.
fn mask(watch: &Watch, caller: &Arc<str>, now: Instant, _: &mut fastrand::Rng) {
    for _ in 0..100 {
        watch.answered(caller, Side::Canary, Outcome::Answered);
        watch.answered(caller, Side::Stable, Outcome::Failed);
        if watch.wants_pair(caller, now) {
            watch.compared(caller, good_pair());
        }
    }
}

#[test]
fn an_identical_canary_survives_ten_minutes_of_one_hostile_caller() {
    let everything: Acts<'_> = &|watch, caller, now, random| {
        hang_up(watch, caller, now, random);
        find_bad_vectors(watch, caller, now, random);
        send_odd_inputs(watch, caller, now, random);
    };
    for hostile in [&hang_up as Acts<'_>, &find_bad_vectors, &send_odd_inputs, everything] {
        let [search, import, chat] = CALLERS.map(|name| (name, &content as Acts<'_>));
        for callers in [
            &[("hostile", hostile), search, import, chat][..],
            &[search, ("hostile", hostile)],
            &[("hostile", hostile)],
        ] {
            assert_eq!(run(600, callers, &good_pair()), None, "{} callers", callers.len());
        }
    }
}

#[test]
fn a_bad_canary_goes_within_its_windows_on_evidence_of_three_callers() {
    let errors: Acts<'_> = &|watch, caller, now, random| honest(watch, caller, now, random, 0.3, good_pair());
    let wrong_pooling: Acts<'_> =
        &|watch, caller, now, random| honest(watch, caller, now, random, 0.005, pair(0.5, 1.0));
    for (act, figure) in [(errors, Figure::Errors), (wrong_pooling, Figure::Cosine)] {
        // The probes find nothing: three callers are enough.
        let callers = CALLERS.map(|name| (name, act));
        let (second, cause) = run(120, &callers, &good_pair()).unwrap();
        assert_eq!(cause.figure, figure);
        assert!(second <= 41 && cause.sentence.contains("3 callers show it"), "{second}: {cause:?}");
        // Beside somebody who hides it as well as one caller can.
        let [search, import, chat] = callers;
        let masked = [("hostile", &mask as Acts<'_>), search, import, chat];
        let (second, cause) = run(600, &masked, &good_pair()).unwrap();
        assert!(second <= 120 && cause.figure == figure, "{second}: {cause:?}");
    }
}

#[test]
fn thousands_of_callers_with_a_request_each_show_a_bad_canary_together() {
    let names: Vec<String> =
        (0..3_000).map(|number| format!("10.0.{}.{}", number / 250, number % 250)).collect();
    let seldom: Acts<'_> = &|watch, caller, now, random| {
        if random.f64() < 0.003 {
            honest(watch, caller, now, random, 0.3, good_pair());
        }
    };
    let callers: Vec<_> = names.iter().map(|name| (name.as_str(), seldom)).collect();
    let (second, cause) = run(60, &callers, &good_pair()).unwrap();
    assert!(second <= 41 && cause.figure == Figure::Errors, "{second}: {cause:?}");
}

#[test]
fn what_one_caller_shows_takes_a_canary_back_if_the_servers_own_probes_show_it() {
    let errors: Acts<'_> = &|watch, caller, now, random| honest(watch, caller, now, random, 0.3, good_pair());
    let fails = Pair { candidate: (None, Duration::ZERO), ..good_pair() };
    for (probes, figure) in
        [(fails, Figure::Errors), (pair(0.5, 1.0), Figure::Cosine), (pair(1.0, 9.0), Figure::Latency)]
    {
        let (second, cause) = run(120, &[("only", errors)], &probes).unwrap();
        assert_eq!(cause.figure, figure);
        assert!(second <= 51 && cause.sentence.contains("own probes, asked because of errors"), "{cause:?}");
    }
    assert_eq!(run(120, &[("only", errors)], &good_pair()), None, "and stays if they do not");
}

#[test]
fn an_outage_of_both_versions_is_no_fault_of_the_canary() {
    let outage: Acts<'_> = &|watch, caller, _, random| {
        for side in [Side::Canary, Side::Stable] {
            let fails = random.f64() < 0.3;
            watch.answered(caller, side, if fails { Outcome::Failed } else { Outcome::Answered });
        }
    };
    assert_eq!(run(300, &CALLERS.map(|name| (name, outage)), &good_pair()), None);
}

#[test]
fn probes_that_cannot_be_run_end_early_and_say_so() {
    let watch = Watch::new(RULES, Instant::now());
    let mut probed = watch.probing(48);
    let fails = Pair { candidate: (None, Duration::from_secs(10)), ..good_pair() };
    let ran = (1..=48).find(|_| {
        probed.ran(&fails);
        probed.is_decided()
    });
    assert!(ran.is_some_and(|ran| ran < 8), "{ran:?}");
}

#[test]
fn a_caller_that_sends_much_leaves_half_of_the_pairs_to_the_others() {
    let (start, mut pairs) = (Instant::now(), [0, 0]);
    let watch = Watch::new(RULES, start);
    for tenth in 0..1_000 {
        let now = start + Duration::from_millis(100) * tenth;
        for (name, place, asks) in [("much", 0, true), ("little", 1, tenth % 7 == 0)] {
            pairs[place] += u32::from(asks && watch.wants_pair(&name.into(), now));
        }
    }
    assert!(pairs[1] > 60 && pairs[0] > 20, "{pairs:?}");
}
