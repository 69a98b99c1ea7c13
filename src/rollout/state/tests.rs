//! Each rule of the state machine, and that no sequence of commands breaks what holds always.

use proptest::prelude::*;

use super::*;

/// Versions in these spaces, counted from 1.
fn versions(spaces: &str) -> Versions {
    (1..).zip(spaces.chars().map(|space| Ok(Space(space.to_string())))).collect()
}

fn known(stable: u32, previous: Option<u32>) -> State {
    State::Known(Roles { stable, previous })
}

fn rollout(version: u32) -> Change {
    Change::Rollout { version, force: false }
}

fn roles(state: State, change: Change, versions: &Versions) -> Roles {
    next(state, change, versions).unwrap().roles
}

#[test]
fn the_first_version_serves_and_the_next_keeps_it_at_hand() {
    let versions = versions("aa");
    for change in [Change::Begin { version: 1 }, rollout(1)] {
        assert_eq!(
            next(State::Empty, change, &versions),
            Ok(Step { roles: Roles { stable: 1, previous: None }, crossed: None })
        );
    }
    assert_eq!(roles(known(1, None), rollout(2), &versions), Roles { stable: 2, previous: Some(1) });
    let refused = next(known(1, None), Change::Begin { version: 2 }, &versions);
    assert_eq!(refused, Err(Refusal::AlreadyBegun { version: 2 }));
}

#[test]
fn a_second_rollback_does_not_bring_back_what_the_first_took_away() {
    let versions = versions("aaa");
    let back = Change::Rollback { to: None };
    let after = roles(known(2, Some(1)), back, &versions);
    assert_eq!(after, Roles { stable: 1, previous: None });
    let refused = next(State::Known(after), back, &versions).unwrap_err();
    assert_eq!(refused, Refusal::NoPrevious { published: vec![1, 2, 3] });
    assert!(refused.to_string().ends_with("there are: 1, 2, 3"), "{refused}");
    let to_three = Change::Rollback { to: Some(3) };
    assert_eq!(roles(State::Known(after), to_three, &versions), Roles { stable: 3, previous: None });
}

#[test]
fn only_force_and_a_rollback_leave_the_space_and_both_are_told() {
    let versions = versions("ab");
    let (a, b) = (Space("a".into()), Space("b".into()));
    let refused = next(known(1, None), rollout(2), &versions).unwrap_err();
    let expected = Refusal::SpaceConflict { version: 2, to: b.clone(), stable: 1, from: a.clone() };
    assert_eq!(refused, expected);
    let forced = Change::Rollout { version: 2, force: true };
    let step = next(known(1, None), forced, &versions).unwrap();
    assert_eq!(step.crossed, Some(Crossing { from: Some(a.clone()), to: b.clone() }));
    let step = next(State::Known(step.roles), Change::Rollback { to: None }, &versions).unwrap();
    assert_eq!(step.roles.stable, 1);
    assert_eq!(step.crossed, Some(Crossing { from: Some(b), to: a }));
}

#[test]
fn a_space_that_nobody_knows_is_no_ground_to_stand_on() {
    let mut versions = versions("aa");
    for unreadable in [None, Some(Err("bad".to_owned()))] {
        versions.remove(&1);
        versions.extend(unreadable.map(|reason| (1, reason)));
        for state in [known(1, None), State::Lost] {
            let refused = next(state, rollout(2), &versions).unwrap_err();
            assert!(matches!(refused, Refusal::SpaceUnknown { version: 2, .. }), "{refused}");
            for change in [Change::Rollout { version: 2, force: true }, Change::Rollback { to: Some(2) }] {
                let step = next(state, change, &versions).unwrap();
                assert_eq!(step.crossed, Some(Crossing { from: None, to: Space("a".into()) }));
            }
        }
    }
    let refused = next(known(2, Some(1)), Change::Rollback { to: None }, &versions);
    assert_eq!(refused, Err(Refusal::Damaged { version: 1, reason: "bad".to_owned() }));
}

#[test]
fn what_changes_nothing_or_cannot_serve_is_refused() {
    let versions = versions("a");
    let back = |to| Change::Rollback { to };
    let unknown = Refusal::UnknownVersion { version: 9, published: vec![1] };
    for (state, change, refusal) in [
        (known(1, None), rollout(1), Refusal::AlreadyStable { version: 1 }),
        (known(1, None), back(Some(1)), Refusal::AlreadyStable { version: 1 }),
        (known(1, None), rollout(9), unknown.clone()),
        (known(1, Some(9)), back(None), unknown),
        (State::Empty, back(Some(1)), Refusal::NothingServes),
        (State::Lost, back(None), Refusal::NoPrevious { published: vec![1] }),
        (State::Lost, Change::Begin { version: 1 }, Refusal::AlreadyBegun { version: 1 }),
    ] {
        assert_eq!(next(state, change, &versions), Err(refusal), "{state:?} {change:?}");
    }
}

const NUMBERS: std::ops::Range<u32> = 1..7;

fn any_versions() -> impl Strategy<Value = Versions> {
    let space = prop_oneof![
        4 => "[ab]".prop_map(|space| Ok(Space(space))),
        1 => Just(Err("bad".to_owned())),
    ];
    prop::collection::btree_map(NUMBERS, space, 0..6)
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        1 => NUMBERS.prop_map(|version| Change::Begin { version }),
        6 => (NUMBERS, any::<bool>()).prop_map(|(version, force)| Change::Rollout { version, force }),
        3 => prop::option::of(NUMBERS).prop_map(|to| Change::Rollback { to }),
    ]
}

proptest! {
    /// Draws versions, some of them damaged, and commands in any order, from an empty log and from a lost one.
    #[test]
    fn whatever_is_asked_the_roles_are_sound(
        versions in any_versions(),
        changes in prop::collection::vec(any_change(), 1..40),
        lost in any::<bool>(),
    ) {
        let mut state = if lost { State::Lost } else { State::Empty };
        for change in changes {
            let Ok(step) = next(state, change, &versions) else { continue };
            let Roles { stable, previous } = step.roles;
            let space = versions.get(&stable).and_then(|space| space.as_ref().ok());
            prop_assert!(space.is_some(), "a version serves that is published and whole");
            prop_assert_ne!(Some(stable), previous);
            let before = match state {
                State::Known(roles) => Some(roles.stable),
                State::Empty | State::Lost => None,
            };
            prop_assert_ne!(Some(stable), before, "a change changes something");
            let left = before.and_then(|before| versions[&before].as_ref().ok());
            let crosses = state != State::Empty && left != space;
            prop_assert_eq!(step.crossed, crosses.then(|| {
                Crossing { from: left.cloned(), to: space.unwrap().clone() }
            }));
            match change {
                Change::Begin { version } => {
                    prop_assert!(state == State::Empty && version == stable && previous.is_none());
                }
                Change::Rollout { version, force } => {
                    prop_assert!(version == stable && previous == before && (force || !crosses));
                    // Whatever else is the case, the way back is open.
                    if let Some(before) = before {
                        let back = next(State::Known(step.roles), Change::Rollback { to: None }, &versions);
                        prop_assert_eq!(back.unwrap().roles, Roles { stable: before, previous: None });
                    }
                }
                Change::Rollback { to } => {
                    prop_assert!(previous.is_none());
                    if let (None, State::Known(roles)) = (to, state) {
                        prop_assert_eq!(Some(stable), roles.previous);
                    }
                }
            }
            state = State::Known(step.roles);
        }
    }
}
