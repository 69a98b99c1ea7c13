//! The keys file, budgets on a clock that stands still, and the comparison.

use std::cell::Cell;
use std::time::Duration;

use subtle::Choice;

use super::follow::{Current, Follower, Look};
use super::*;

const A: &str = "sxt_aaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "sxt_bbbbbbbbbbbbbbbbbbbbbb";

fn entry(name: &str, key: &str, more: &str) -> String {
    format!("[[keys]]\nname = '{name}'\nhash = '{}'\nroles = ['embed']\n{more}\n", Digest::of(key))
}

fn keys(text: &str) -> Keys {
    text.parse().unwrap()
}

#[test]
fn a_key_has_the_name_it_was_given() {
    let keys = keys(&[entry("alice", A, "models = ['minilm']"), entry("bob", B, "")].concat());
    let name = |key: &str| keys.find(key).map(|key| key.name().to_owned());
    assert_eq!((name(A).as_deref(), name(B).as_deref()), (Some("alice"), Some("bob")));
    for wrong in ["", "alice", &A[1..], &format!("{A}a"), &Digest::of(A).to_string()] {
        assert_eq!(name(wrong), None, "{wrong}");
    }
    assert_eq!(format!("{keys:?}"), r#"["alice", "bob"]"#);
    let alice = keys.find(A).unwrap();
    assert_eq!(
        (alice.models(), alice.has(Role::Embed), alice.has(Role::Admin)),
        (Some(&["minilm".to_owned()][..]), true, false)
    );
}

#[test]
fn a_file_that_is_wrong_is_told_how_and_not_what_is_in_it() {
    let hash = Digest::of(A);
    let wrong = |line: &str| format!("[[keys]]\n{line}\n");
    let with = |more: &str| wrong(&format!("name = 'a'\nhash = '{hash}'\nroles = ['embed']\n{more}"));
    for (text, expected) in [
        (String::new(), "no key in it"),
        ("keys = []".into(), "no key in it"),
        (format!("alice:{A}"), "line 1 is not TOML"),
        (wrong(&format!("name = 'a'\nkey = '{A}'")), "line 3 is not TOML, or no part"),
        (
            wrong(&format!("name = 'a'\nhash = '{A}'\nroles = ['embed']")),
            "key 1 (`a`): `hash` is not sha256:",
        ),
        (
            wrong(&format!("name = 'a'\nhash = '{}'\nroles = ['embed']", &hash.to_string()[..70])),
            "`hash` is not",
        ),
        (
            wrong(&format!("name = 'a'\nhash = '{}'\nroles = ['embed']", Digest::of(""))),
            "`hash` is that of an empty key",
        ),
        (wrong(&format!("name = 'a'\nhash = '{hash}'\nroles = []")), "`roles` is empty"),
        (wrong(&format!("name = 'a'\nhash = '{hash}'\nroles = ['{A}']")), "line 4"),
        (wrong(&format!("name = '{A} '\nhash = '{hash}'\nroles = ['embed']")), "key 1: expected a `name`"),
        (wrong(&format!("name = 'none'\nhash = '{hash}'\nroles = ['embed']")), "that name is taken"),
        (with("models = []"), "`models` is empty"),
        (with("models = ['minilm@2']"), "`models` has a name"),
        (with("models = ['*', 'minilm']"), "beside names"),
        (with("model = ['minilm']"), "line 5"),
        (with("limits = { tokens_per_second = 0 }"), "line 5"),
        (with("limits = { tokens_per_minute = 5 }"), "line 5"),
        (with("limits = { tokens_burst = 5 }"), "`tokens_burst` is there without"),
        (
            with("").replace("embed", "admin") + "limits = { requests_per_second = 5 }",
            "limits are for the role embed",
        ),
        (with("models = ['m']").replace("'embed'", "'metrics'"), "metrics shows every model"),
        (with("") + &entry("a", B, ""), "key 2 (`a`): the name is there twice"),
        (with("") + &entry("b", A, ""), "the same key is there under another name"),
    ] {
        let error = text.parse::<Keys>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(!error.contains(&A[4..]) && !error.contains(&hash.to_string()[7..]), "{error}");
    }
}

#[test]
fn what_is_written_as_an_entry_is_read_again() {
    let limits =
        Limits { tokens_per_second: 5.try_into().ok(), tokens_burst: 7.try_into().ok(), ..Limits::default() };
    let full = Entry {
        name: "a".into(),
        hash: Digest::of(A).to_string(),
        roles: vec![Role::Embed, Role::Admin],
        models: Some(vec!["minilm".into()]),
        limits,
    };
    let plain = Entry {
        name: "b".into(),
        hash: Digest::of(B).to_string(),
        models: None,
        limits: Limits::default(),
        ..full.clone()
    };
    let keys = keys(&[full.to_toml().unwrap(), plain.to_toml().unwrap()].concat());
    assert_eq!(keys.keys.iter().map(|key| &key.entry).collect::<Vec<_>>(), [&full, &plain]);
}

fn generated() -> String {
    let limits = Limits { requests_per_second: 50.try_into().ok(), tokens_burst: None, ..Limits::default() };
    let limits = Limits { tokens_per_second: 20_000.try_into().ok(), ..limits };
    let narrow = Entry {
        name: "narrow".into(),
        hash: Digest::of(A).to_string(),
        roles: vec![Role::Embed, Role::Admin],
        models: Some(vec!["minilm".into()]),
        limits,
    };
    let (name, hash, models) = ("wide".into(), Digest::of(B).to_string(), Some(vec!["*".into()]));
    let wide = Entry { name, hash, models, ..narrow.clone() };
    [narrow.to_toml().unwrap(), wide.to_toml().unwrap()].concat()
}

#[test]
fn a_generated_file_cut_at_any_byte_is_refused_or_has_only_keys_as_they_were() {
    let text = generated();
    let whole = keys(&text);
    let mut refused = 0;
    for cut in 0..=text.len() {
        match text[..cut].parse::<Keys>() {
            Ok(left) => {
                let pairs = left.keys.iter().zip(&whole.keys);
                assert!(pairs.clone().all(|(left, whole)| left.entry == whole.entry), "{}", &text[..cut]);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > text.len() - 10, "all but those between the entries: {refused} of {}", text.len());
}

#[test]
fn a_file_of_any_order_cut_under_a_running_server_lets_no_key_do_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.toml");
    let limits = "[keys.limits]\nrequests_per_second = 50\nrequests_burst = 60\ntokens_per_second = 700\ntokens_burst = 800";
    let text = entry("b", B, "models = ['m']") + &entry("a", A, &format!("models = ['m']\n{limits}"));
    let whole = keys(&text);
    let most = |keys: &Keys, name: &str| {
        keys.keys.iter().find(|key| key.name() == name).map(|key| key.entry.clone())
    };
    for cut in 0..=text.len() {
        std::fs::write(&path, &text[..cut]).unwrap();
        let current = Current::new(whole.clone());
        Follower::new(path.clone()).look(&current);
        for key in &current.get().keys {
            let before = most(&whole, key.name()).unwrap();
            assert_eq!(key.models(), before.models.as_deref(), "{}", &text[..cut]);
            let figures = |limits: &Limits| {
                [
                    limits.requests_per_second,
                    limits.requests_burst,
                    limits.tokens_per_second,
                    limits.tokens_burst,
                ]
            };
            for (now, before) in figures(&key.entry.limits).into_iter().zip(figures(&before.limits)) {
                assert!(now.is_some() == before.is_some() && now <= before, "{}", &text[..cut]);
            }
        }
    }
}

#[test]
fn what_a_cut_file_would_open_is_refused_unless_the_file_says_that_it_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.toml");
    let current = Current::new(keys(&entry("a", A, "models = ['m']")));
    let mut follower = Follower::new(path.clone());
    let mut look = |text: String| {
        std::fs::write(&path, text).unwrap();
        let look = follower.look(&current);
        (look, current.get().find(A).unwrap().models().map(<[String]>::len))
    };
    let (refused, models) = look(entry("a", A, ""));
    let Look::Failed { error, .. } = refused else { panic!("{refused:?}") };
    assert_eq!((error.clone(), models), (KeysError::Widened { name: "a".into() }, Some(1)));
    assert!(
        error.to_string().contains("models = [\"*\"]") && error.to_string().contains("`# end`"),
        "{error}"
    );
    let changed = || Look::Changed { added: Vec::new(), removed: Vec::new(), changed: vec!["a".into()] };
    assert_eq!(look(entry("a", A, "models = ['*']")), (changed(), None), "said in so many words");
    assert_eq!(look(entry("a", A, "models = ['m']\n# end\n")), (changed(), Some(1)));
    // From now on a file without its last line is no whole one, whatever is in it.
    let (refused, _) = look(entry("a", A, "models = ['m', 'n']"));
    assert_eq!(refused, Look::Failed { error: KeysError::EndLost, known: false });
    assert_eq!(look(entry("a", A, "") + "# end\n\n"), (changed(), None));
}

#[test]
fn keys_that_are_for_every_model_without_saying_so_are_named() {
    let metrics = entry("scraper", "sxt_cccccccccccccccccccccc", "").replace("embed", "metrics");
    let keys = keys(&[entry("said", A, "models = ['*']"), entry("open", B, ""), metrics].concat());
    assert_eq!(keys.without_models().collect::<Vec<_>>(), ["open"]);
    assert_eq!(keys.find(A).unwrap().models(), None);
}

#[test]
fn a_new_key_is_long_and_random_and_known_by_its_digest() {
    let (one, other) = (Secret::random().unwrap(), Secret::random().unwrap());
    assert_ne!(one.text(), other.text());
    assert_eq!(one.text().len(), "sxt_".len() + 43, "256 bits");
    let keys = keys(&entry("a", one.text(), ""));
    assert!(keys.find(one.text()).is_some() && keys.find(other.text()).is_none());
}

/// A byte that counts how often it is compared.
struct Counted<'a>(u8, &'a Cell<usize>);

impl ConstantTimeEq for Counted<'_> {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.1.set(self.1.get() + 1);
        self.0.ct_eq(&other.0)
    }
}

/// The digest of zeros, but for the byte at `other`.
fn counted(other: Option<usize>, compared: &Cell<usize>) -> Digest<Counted<'_>> {
    Digest(std::array::from_fn(|byte| Counted(u8::from(other == Some(byte)), compared)))
}

/// The work must depend neither on where two digests differ nor on which of the known ones is given. Nothing is timed: what a comparison of
/// two bytes costs is the same for all bytes by `subtle`'s own promise, so it is enough that their number is.
#[test]
fn a_look_up_compares_every_byte_of_every_digest_wherever_the_first_difference_is() {
    let compared = Cell::new(0);
    let known: Vec<_> = (0..10).map(|place| counted(Some(place), &compared)).collect();
    let bytes = known.len() * 32;
    for differing in (0..32).map(Some).chain([None]) {
        compared.set(0);
        let found = place(known.iter(), &counted(differing, &compared));
        assert_eq!(found, differing.filter(|place| *place < 10).map_or(u64::MAX, |place| place as u64));
        assert_eq!(compared.get(), bytes, "{differing:?}");
    }
    // What stops at the first difference is seen by the same count.
    compared.set(0);
    let given = counted(Some(20), &compared);
    let is_same = |digest: &Digest<Counted<'_>>| {
        digest.0.iter().zip(&given.0).all(|(one, other)| one.ct_eq(other).into())
    };
    assert!(!known.iter().any(is_same) && compared.get() < bytes / 2, "{compared:?}");
}

fn limited(limits: &str) -> Keys {
    keys(&entry("a", A, &format!("limits = {{ {limits} }}")))
}

fn budget(limits: &str) -> Arc<Budget> {
    Arc::clone(limited(limits).find(A).unwrap().budget())
}

#[tokio::test(start_paused = true)]
async fn requests_come_back_at_the_rate_and_after_a_pause_as_many_as_the_burst() {
    let budget = budget("requests_per_second = 2, requests_burst = 3");
    let left = || (0..10).take_while(|_| budget.take_request().is_ok()).count();
    assert_eq!(left(), 3);
    let wait = budget.take_request().unwrap_err();
    assert!(wait <= Duration::from_millis(500) && wait > Duration::from_millis(400), "{wait:?}");
    tokio::time::advance(wait).await;
    assert_eq!(left(), 1);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(left(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_request_larger_than_the_burst_gets_in_and_is_paid_in_full() {
    let budget = budget("tokens_per_second = 100, tokens_burst = 200");
    assert_eq!(budget.take_tokens(150), Ok(()));
    assert_eq!(budget.take_tokens(1000), Ok(()), "50 are left, so it gets in");
    // 950 are owed, and one must be left.
    assert_eq!(budget.take_tokens(1).unwrap_err().as_millis(), 9510);
    assert_eq!(budget.take_request().unwrap_err().as_millis(), 9510, "nobody counts tokens meanwhile");
    tokio::time::advance(Duration::from_millis(9500)).await;
    assert!(budget.take_tokens(1).is_err());
    tokio::time::advance(Duration::from_millis(10)).await;
    assert_eq!(budget.take_tokens(1), Ok(()));
    // A pause gives no more than the burst.
    tokio::time::advance(Duration::from_secs(1000)).await;
    let single = (0..1000).take_while(|_| budget.take_tokens(1).is_ok()).count();
    assert!((199..=200).contains(&single), "{single}");
}

#[tokio::test(start_paused = true)]
async fn in_the_long_run_the_rate_holds_whatever_the_sizes() {
    let budget = budget("tokens_per_second = 1000, tokens_burst = 100");
    let (mut taken, mut random) = (0, fastrand::Rng::with_seed(7));
    for _ in 0..10_000 {
        tokio::time::advance(Duration::from_millis(10)).await;
        let count = random.usize(1..200);
        if budget.take_tokens(count).is_ok() {
            taken += count;
        }
    }
    assert!((99_000..100_500).contains(&taken), "{taken} in 100 s at 1000 a second");
}

#[tokio::test(start_paused = true)]
async fn other_limits_neither_refill_a_budget_nor_forget_its_debt() {
    let limits = |text: &str| limited(text).find(A).unwrap().entry.limits;
    let all =
        budget("tokens_per_second = 100, tokens_burst = 200, requests_per_second = 1, requests_burst = 2");
    assert_eq!((all.take_request(), all.take_tokens(1200)), (Ok(()), Ok(())), "1000 are owed");
    all.change(&limits(
        "tokens_per_second = 500, tokens_burst = 1000, requests_per_second = 10, requests_burst = 20",
    ));
    assert_eq!(
        all.take_tokens(1).unwrap_err().as_millis(),
        2002,
        "1000 are owed at the new rate, and one must be left"
    );
    tokio::time::advance(Duration::from_millis(2002)).await;
    assert_eq!(all.take_tokens(1), Ok(()));
    let requests = budget("requests_per_second = 1, requests_burst = 20");
    let left = || (0..50).take_while(|_| requests.take_request().is_ok()).count();
    for _ in 0..5 {
        requests.take_request().unwrap();
    }
    requests.change(&limits("requests_per_second = 1, requests_burst = 10"));
    assert_eq!(left(), 10, "15 were left, and the burst is 10");
    requests.change(&limits("requests_per_second = 2, requests_burst = 40"));
    assert_eq!(left(), 0, "a larger burst comes empty");
    requests.change(&limits(""));
    assert_eq!(left(), 50, "no limit");
}

#[tokio::test(start_paused = true)]
async fn what_was_used_up_stays_used_up_when_the_file_is_touched_or_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.toml");
    let write = |text: String| std::fs::write(&path, text).unwrap();
    let limits = "limits = { requests_per_second = 1 }";
    write(entry("a", A, limits));
    let current = Current::new(Keys::read(&path).unwrap());
    let mut follower = Follower::new(path.clone());
    let may = |key: &str| current.get().find(key).unwrap().budget().take_request().is_ok();
    assert_eq!((may(A), may(A), follower.look(&current)), (true, false, Look::Same));

    write(entry("b", B, "") + &entry("a", A, limits));
    let changed = |added: &[&str], removed: &[&str], changed: &[&str]| {
        let [added, removed, changed] =
            [added, removed, changed].map(|names| names.iter().map(|&name| name.into()).collect());
        Look::Changed { added, removed, changed }
    };
    assert_eq!(follower.look(&current), changed(&["b"], &[], &[]));
    assert!(!may(A) && may(B));
    // Another key of the same name: who rotates a key gains no tokens by it.
    write(entry("a", "sxt_cccccccccccccccccccccc", limits));
    assert_eq!(follower.look(&current), changed(&[], &["b"], &["a"]));
    assert!(current.get().find(A).is_none() && !may("sxt_cccccccccccccccccccccc"));
    write(entry("a", A, "limits = { requests_per_second = 2 }"));
    assert_eq!(follower.look(&current), changed(&[], &[], &["a"]));
    assert!(!may(A), "the request of the second is gone");
    tokio::time::advance(Duration::from_millis(500)).await;
    assert!(may(A), "two a second now");

    write("[[keys]]".into());
    let failed = |known| Look::Failed { error: KeysError::Syntax { line: 1 }, known };
    assert_eq!((follower.look(&current), follower.look(&current)), (failed(false), failed(true)));
    assert!(current.get().find(A).is_some());
    write(entry("b", B, ""));
    assert_eq!(follower.look(&current), changed(&["b"], &["a"], &[]));
}
