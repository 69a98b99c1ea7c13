//! Each rule of the state machine, and that no sequence of commands breaks what holds always.

use proptest::prelude::*;

use super::*;
use crate::rollout::Role;

/// Versions in these spaces, counted from 1.
fn versions(spaces: &str) -> Versions {
    (1..).zip(spaces.chars().map(|space| Ok(Space(space.to_string())))).collect()
}

fn known(stable: u32, previous: Option<u32>) -> State {
    State::Known(Roles { stable, previous, trial: None, ..Roles::alone(1) })
}

fn rollout(version: u32) -> Change {
    Change::Rollout { version, force: false }
}

/// By value, as most of the tests have both.
fn next(state: State, change: Change, versions: &Versions) -> Result<Step, Refusal> {
    super::next(&state, &change, versions)
}

fn roles(state: State, change: Change, versions: &Versions) -> Roles {
    next(state.clone(), change, versions).unwrap().roles
}

#[test]
fn the_first_version_serves_and_the_next_keeps_it_at_hand() {
    let versions = versions("aa");
    for change in [Change::Begin { version: 1 }, rollout(1)] {
        assert_eq!(
            next(State::Empty, change, &versions),
            Ok(Step {
                roles: Roles { stable: 1, previous: None, trial: None, ..Roles::alone(1) },
                crossed: None
            })
        );
    }
    assert_eq!(
        roles(known(1, None), rollout(2), &versions),
        Roles { stable: 2, previous: Some(1), trial: None, ..Roles::alone(1) }
    );
    let refused = next(known(1, None), Change::Begin { version: 2 }, &versions);
    assert_eq!(refused, Err(Refusal::AlreadyBegun { version: 2 }));
}

#[test]
fn a_second_rollback_does_not_bring_back_what_the_first_took_away() {
    let versions = versions("aaa");
    let back = Change::Rollback { of: None, to: None };
    let after = roles(known(2, Some(1)), back.clone(), &versions);
    assert_eq!(after, Roles { stable: 1, previous: None, trial: None, ..Roles::alone(1) });
    let refused = next(State::Known(after.clone()), back, &versions).unwrap_err();
    assert_eq!(refused, Refusal::NoPrevious { published: vec![1, 2, 3] });
    assert!(refused.to_string().ends_with("there are: 1, 2, 3"), "{refused}");
    let to_three = Change::Rollback { of: None, to: Some(3) };
    assert_eq!(
        roles(State::Known(after), to_three, &versions),
        Roles { stable: 3, previous: None, trial: None, ..Roles::alone(1) }
    );
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
    let step = next(State::Known(step.roles), Change::Rollback { of: None, to: None }, &versions).unwrap();
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
            let refused = next(state.clone(), rollout(2), &versions).unwrap_err();
            assert!(matches!(refused, Refusal::SpaceUnknown { version: 2, .. }), "{refused}");
            for change in
                [Change::Rollout { version: 2, force: true }, Change::Rollback { of: None, to: Some(2) }]
            {
                let step = next(state.clone(), change.clone(), &versions).unwrap();
                assert_eq!(step.crossed, Some(Crossing { from: None, to: Space("a".into()) }));
            }
        }
    }
    let refused = next(known(2, Some(1)), Change::Rollback { of: None, to: None }, &versions);
    assert_eq!(refused, Err(Refusal::Damaged { version: 1, reason: "bad".to_owned() }));
}

#[test]
fn what_changes_nothing_or_cannot_serve_is_refused() {
    let versions = versions("a");
    let back = |to| Change::Rollback { of: None, to };
    let unknown = Refusal::UnknownVersion { version: 9, published: vec![1] };
    for (state, change, refusal) in [
        (known(1, None), rollout(1), Refusal::AlreadyStable { version: 1 }),
        (known(1, None), back(Some(1)), Refusal::AlreadyStable { version: 1 }),
        (known(1, None), rollout(9), unknown.clone()),
        (known(1, Some(9)), back(None), unknown),
        (State::Empty, back(Some(1)), Refusal::NothingServes),
        (known(1, None), Change::Rollback { of: Some(1), to: Some(1) }, Refusal::OfIsTo { version: 1 }),
        (State::Lost, back(None), Refusal::NoPrevious { published: vec![1] }),
        (State::Lost, Change::Begin { version: 1 }, Refusal::AlreadyBegun { version: 1 }),
    ] {
        assert_eq!(next(state.clone(), change.clone(), &versions), Err(refusal), "{state:?} {change:?}");
    }
}

fn trial(version: u32, canary: u8, shadow: u8) -> Trial {
    Trial { version, canary_percent: canary.try_into().ok(), shadow_percent: shadow.try_into().ok() }
}

#[test]
fn a_version_on_trial_leaves_the_others_where_they_are_until_it_is_promoted_or_taken_back() {
    let versions = versions("aaa");
    let begun = roles(known(2, Some(1)), Change::Trial(trial(3, 10, 0)), &versions);
    assert_eq!(
        begun,
        Roles { stable: 2, previous: Some(1), trial: Some(trial(3, 10, 0)), ..Roles::alone(1) }
    );
    let state = State::Known(begun.clone());
    assert_eq!(
        [1, 2, 3, 4].map(|version| state.role(version)),
        [Role::Previous, Role::Stable, Role::Canary, Role::Idle].map(Some)
    );
    let widened = roles(state.clone(), Change::Trial(trial(3, 50, 5)), &versions);
    assert_eq!(widened, Roles { trial: Some(trial(3, 50, 5)), ..begun.clone() });
    assert_eq!(
        next(state.clone(), Change::Trial(trial(3, 10, 0)), &versions),
        Err(Refusal::SameTrial { version: 3 })
    );

    let promote = |version| Change::Promote { version, force: false };
    let promoted = Roles { stable: 3, previous: Some(2), trial: None, ..Roles::alone(1) };
    assert_eq!(roles(state.clone(), promote(None), &versions), promoted);
    assert_eq!(roles(state.clone(), promote(Some(3)), &versions), promoted);
    assert_eq!(
        next(state.clone(), promote(Some(1)), &versions),
        Err(Refusal::OtherTrial { asked: 1, trial: 3 })
    );
    assert_eq!(next(known(2, None), promote(None), &versions), Err(Refusal::NoTrial));

    let without = Roles { trial: None, ..begun.clone() };
    for (of, to) in [(None, None), (Some(3), None), (None, Some(2))] {
        assert_eq!(roles(state.clone(), Change::Rollback { of, to }, &versions), without, "{of:?} {to:?}");
    }
    // The stable one by name, or another: the trial ends as well.
    for (of, to) in [(Some(2), None), (None, Some(1))] {
        let expected = Roles { stable: 1, previous: None, trial: None, ..Roles::alone(1) };
        assert_eq!(roles(state.clone(), Change::Rollback { of, to }, &versions), expected);
    }
    assert_eq!(
        roles(state.clone(), rollout(1), &versions),
        Roles { stable: 1, previous: Some(2), trial: None, ..Roles::alone(1) }
    );
}

#[test]
fn of_two_who_take_back_the_same_version_the_second_takes_nothing() {
    let versions = versions("aaa");
    let back = Change::Rollback { of: Some(3), to: None };
    let on_trial =
        State::Known(Roles { stable: 2, previous: Some(1), trial: Some(trial(3, 10, 0)), ..Roles::alone(1) });
    let after = State::Known(roles(on_trial, back.clone(), &versions));
    assert_eq!(after, known(2, Some(1)));
    assert_eq!(next(after, back.clone(), &versions), Err(Refusal::NotServing { version: 3 }));
    let after = State::Known(roles(known(3, Some(2)), back.clone(), &versions));
    assert_eq!(after, known(2, None));
    assert_eq!(next(after, back.clone(), &versions), Err(Refusal::NotServing { version: 3 }));
}

#[test]
fn only_a_shadow_is_tried_across_spaces() {
    let versions = versions("ab");
    let (a, b) = (Space("a".into()), Space("b".into()));
    let crosses = Refusal::CanaryAcrossSpaces { version: 2, to: b.clone(), stable: 1, from: Some(a.clone()) };
    for shares in [trial(2, 10, 0), trial(2, 10, 10)] {
        assert_eq!(next(known(1, None), Change::Trial(shares), &versions), Err(crosses.clone()));
    }
    let shadow = State::Known(roles(known(1, None), Change::Trial(trial(2, 0, 10)), &versions));
    assert_eq!(shadow.role(2), Some(Role::Shadow));
    let promote = |force| Change::Promote { version: None, force };
    assert!(matches!(next(shadow.clone(), promote(false), &versions), Err(Refusal::SpaceConflict { .. })));
    let forced = next(shadow, promote(true), &versions).unwrap();
    assert_eq!(forced.crossed, Some(Crossing { from: Some(a), to: b }));
}

#[test]
fn what_cannot_be_tried_is_refused() {
    let versions = versions("aa");
    let unknown = Refusal::UnknownVersion { version: 9, published: vec![1, 2] };
    for (state, trial, refusal) in [
        (State::Empty, trial(1, 10, 0), Refusal::NoStable { version: 1 }),
        (State::Lost, trial(1, 10, 0), Refusal::NoStable { version: 1 }),
        (known(1, None), trial(1, 10, 0), Refusal::AlreadyStable { version: 1 }),
        (known(1, None), trial(2, 0, 0), Refusal::NoShare { version: 2 }),
        (known(1, None), trial(9, 10, 0), unknown),
    ] {
        assert_eq!(next(state.clone(), Change::Trial(trial), &versions), Err(refusal));
    }
    let from_previous = roles(known(1, Some(2)), Change::Trial(trial(2, 1, 0)), &versions);
    assert_eq!(
        from_previous,
        Roles { stable: 1, previous: None, trial: Some(trial(2, 1, 0)), ..Roles::alone(1) }
    );
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
        4 => (NUMBERS, 0..3_u8, 0..3_u8).prop_map(|(version, canary, shadow)| Change::Trial(trial(version, canary, shadow))),
        2 => (prop::option::of(NUMBERS), any::<bool>()).prop_map(|(version, force)| Change::Promote { version, force }),
        4 => (prop::option::of(NUMBERS), prop::option::of(NUMBERS)).prop_map(|(of, to)| Change::Rollback { of, to }),
        4 => NUMBERS.prop_map(|version| Change::Standby { version }),
        2 => NUMBERS.prop_map(|version| Change::Retire { version }),
        2 => ("[ab]|A/b|a@1|a/b/c", any::<bool>()).prop_map(|(name, remove)| Change::Alias { name, remove }),
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
            let Ok(step) = next(state.clone(), change.clone(), &versions) else { continue };
            let Roles { stable, previous, trial, standby, .. } = step.roles.clone();
            let space = versions.get(&stable).and_then(|space| space.as_ref().ok());
            prop_assert!(space.is_some(), "a version serves that is published and whole");
            let tried = trial.map(|trial| trial.version);
            prop_assert!(Some(stable) != previous && tried != Some(stable) && (tried.is_none() || tried != previous));
            let roles = match state.clone() {
                State::Known(roles) => Some(roles),
                State::Empty | State::Lost => None,
            };
            let (aliases, standby_before) = match &roles {
                Some(roles) => (roles.aliases.clone(), roles.standby.clone()),
                None => Default::default(),
            };
            prop_assert!(standby.is_sorted_by(|one, next| one < next));
            prop_assert!(standby.iter().all(|version| {
                *version != stable && Some(*version) != previous && Some(*version) != tried
            }), "a version has one role");
            // A standby begins and ends by name, or with another role: no rollback takes one away or brings one back.
            let expected: Vec<u32> = match change {
                Change::Standby { version } => standby_before.iter().copied().chain([version]).collect::<std::collections::BTreeSet<_>>().into_iter().collect(),
                Change::Retire { version } => standby_before.iter().copied().filter(|one| *one != version).collect(),
                _ => standby_before.iter().copied().filter(|one| *one != stable && Some(*one) != tried).collect(),
            };
            prop_assert_eq!(&standby, &expected);
            let is_alias = matches!(change, Change::Alias { .. });
            prop_assert!(is_alias || step.roles.aliases == aliases, "no other change touches the aliases");
            prop_assert_ne!(Some(step.roles.clone()), roles.clone(), "a change changes something");
            let before = roles.as_ref().map(|roles| roles.stable);
            let left = before.and_then(|before| versions[&before].as_ref().ok());
            let crosses = state != State::Empty && left != space;
            prop_assert_eq!(step.crossed, crosses.then(|| {
                Crossing { from: left.cloned(), to: space.unwrap().clone() }
            }));
            if let Some(trial) = trial.filter(|trial| trial.canary_percent.is_some()) {
                prop_assert_eq!(versions[&trial.version].as_ref().ok(), space, "a canary is in the stable one's space");
            }
            match change {
                Change::Begin { version } => {
                    prop_assert!(state == State::Empty && version == stable && previous.is_none() && trial.is_none());
                }
                Change::Rollout { force, .. } | Change::Promote { force, .. } => {
                    prop_assert!(previous == before && trial.is_none() && (force || !crosses));
                    // Whatever else is the case, the way back is open.
                    if let Some(before) = before {
                        let back = Change::Rollback { of: Some(stable), to: None };
                        let back = next(State::Known(step.roles.clone()), back, &versions).unwrap().roles;
                        prop_assert_eq!(back, Roles { stable: before, previous: None, ..step.roles.clone() });
                    }
                }
                Change::Trial(asked) => {
                    prop_assert!(trial == Some(asked) && before == Some(stable));
                    let back = Change::Rollback { of: tried, to: None };
                    let back = next(State::Known(step.roles.clone()), back, &versions).unwrap().roles;
                    prop_assert_eq!(back, Roles { trial: None, ..step.roles.clone() });
                }
                Change::Standby { .. } | Change::Retire { .. } | Change::Alias { .. } => {
                    let roles = roles.unwrap();
                    prop_assert!(roles.stable == stable && roles.previous == previous && roles.trial == trial);
                    prop_assert!(!crosses || left == space);
                    if let Change::Alias { name, remove } = &change {
                        prop_assert!(super::is_alias(name) && step.roles.aliases.contains(name) != *remove);
                    }
                }
                Change::Rollback { of, to } => {
                    let roles = roles.unwrap_or_else(|| step.roles.clone());
                    prop_assert!(trial.is_none() && of != Some(stable) && to.is_none_or(|to| to == stable));
                    prop_assert!(previous.is_none() || (roles.trial.is_some() && roles.stable == stable));
                }
            }
            state = State::Known(step.roles);
        }
    }
}
