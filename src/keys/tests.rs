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
    assert_eq!(keys.0.iter().map(|key| &key.entry).collect::<Vec<_>>(), [&full, &plain]);
}

#[test]
fn a_new_key_is_long_and_random_and_known_by_its_digest() {
    let (one, other) = (Secret::random().unwrap(), Secret::random().unwrap());
    assert_ne!(one.text(), other.text());
    assert_eq!(one.text().len(), "sxt_".len() + 43, "256 bits");
    let keys = keys(&entry("a", one.text(), ""));
    assert!(keys.find(one.text()).is_some() && keys.find(other.text()).is_none());
}

/// A digest that counts how often it is compared.
struct Counted<'a>(u8, &'a Cell<usize>);

impl ConstantTimeEq for Counted<'_> {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.1.set(self.1.get() + 1);
        self.0.ct_eq(&other.0)
    }
}

#[test]
fn every_key_is_compared_whichever_it_is_and_when_it_is_none() {
    let compared = Cell::new(0);
    let known: Vec<_> = (0..10).map(|number| Counted(number, &compared)).collect();
    for (given, expected) in [(0, 0), (5, 5), (9, 9), (10, u64::MAX)] {
        compared.set(0);
        assert_eq!(place(known.iter(), &Counted(given, &compared)), expected);
        assert_eq!(compared.get(), 10, "{given}");
    }
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
async fn what_was_used_up_stays_used_up_when_the_file_is_touched_and_limits_stay() {
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
    assert!(may(A));

    write("[[keys]]".into());
    let failed = |known| Look::Failed { error: KeysError::Syntax { line: 1 }, known };
    assert_eq!((follower.look(&current), follower.look(&current)), (failed(false), failed(true)));
    assert!(current.get().find(A).is_some());
    write(entry("b", B, ""));
    assert_eq!(follower.look(&current), changed(&["b"], &["a"], &[]));
}

mod timing;
