//! Which change of roles is allowed, and what it leads to: a pure function of the state and of what is known of the versions.
//! The log reads both and writes the outcome.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::repository::manifest::Space;

/// Which versions of a model have a role. Every other published version is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// The version that serves.
    pub stable: u32,
    /// The version that served before it and stays at hand; never the stable one itself. None after a rollback, see
    /// [`Change::Rollback`].
    pub previous: Option<u32>,
}

/// What a version does for its model now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It serves.
    Stable,
    /// It served before, and stays at hand.
    Previous,
    /// Nothing.
    Idle,
}

/// What the log says of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No version was ever rolled out.
    Empty,
    /// There were changes, and no document of them can be read: nobody knows what served, or in which space.
    Lost,
    /// These serve.
    Known(Roles),
}

impl State {
    /// What `version` does, if that is known.
    pub fn role(self, version: u32) -> Option<Role> {
        match self {
            Self::Lost => None,
            Self::Known(roles) if roles.stable == version => Some(Role::Stable),
            Self::Known(roles) if roles.previous == Some(version) => Some(Role::Previous),
            Self::Known(_) | Self::Empty => Some(Role::Idle),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Stable => "stable",
            Self::Previous => "previous",
            Self::Idle => "idle",
        })
    }
}

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Makes `version` stable if none ever was. Apart from `Rollout`, so that of two imports that both believe to be a model's
    /// first the later one does not take the place of the earlier.
    Begin {
        /// The version.
        version: u32,
    },
    /// Makes `version` stable at once.
    Rollout {
        /// The version.
        version: u32,
        /// Also across spaces.
        #[serde(default, skip_serializing_if = "is_not")]
        force: bool,
    },
    /// Makes the previous version stable, or `to`. Allowed across spaces: whoever rolls back has an incident to end, and the
    /// document says that it crossed.
    ///
    /// It leaves no previous version behind: the version that was taken back would be the one, and a second rollback, by an
    /// operator who has not seen the first, would bring back what had to go. Going on to another version needs its number.
    Rollback {
        /// Any version instead of the previous one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<u32>,
    },
}

fn is_not(flag: &bool) -> bool {
    !flag
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { version } => write!(formatter, "begin with {version}"),
            Self::Rollout { version, force: false } => write!(formatter, "rollout {version}"),
            Self::Rollout { version, force: true } => write!(formatter, "rollout {version}, forced"),
            Self::Rollback { to: None } => write!(formatter, "rollback"),
            Self::Rollback { to: Some(version) } => write!(formatter, "rollback to {version}"),
        }
    }
}

/// The published versions of a model, each with its space, or with the reason why its manifest cannot be read.
pub type Versions = BTreeMap<u32, Result<Space, String>>;

/// A change of the stable version that left the space: its vectors must not meet those made before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crossing {
    /// The space that was left, if that is known: it may have been the same then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Space>,
    /// The space that is written into now.
    pub to: Space,
}

/// An allowed change, carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Who serves now.
    pub roles: Roles,
    /// Whether that left the space.
    pub crossed: Option<Crossing>,
}

/// Why a change is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No such version.
    #[error("version {version} is not published; {}", there_are(published))]
    UnknownVersion {
        /// The version.
        version: u32,
        /// Those there are.
        published: Vec<u32>,
    },
    /// A version whose manifest cannot be read.
    #[error("version {version} cannot serve: {reason}")]
    Damaged {
        /// The version.
        version: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing would change.
    #[error("version {version} is the stable one already")]
    AlreadyStable {
        /// The version.
        version: u32,
    },
    /// It is not the first one.
    #[error("a version of this model was rolled out before: roll version {version} out by name")]
    AlreadyBegun {
        /// The version.
        version: u32,
    },
    /// Its vectors would meet others in the clients' indexes.
    #[error(
        "version {version} writes into the space {to}, and version {stable}, which is stable, into {from}: their vectors must \
         not meet in one index; when the index has been made anew with version {version}, force the rollout"
    )]
    SpaceConflict {
        /// The version.
        version: u32,
        /// Its space.
        to: Space,
        /// The stable version.
        stable: u32,
        /// Its space.
        from: Space,
    },
    /// Nobody can say whether its vectors would meet others.
    #[error(
        "version {version} writes into the space {to}, and which one the version before it wrote into cannot be read: if it \
         was the same, or the index has been made anew, force the rollout"
    )]
    SpaceUnknown {
        /// The version.
        version: u32,
        /// Its space.
        to: Space,
    },
    /// Nothing to take back.
    #[error("no version was ever rolled out, so there is none to go back to")]
    NothingServes,
    /// It is not said where to.
    #[error("there is no previous version to go back to: name the version; {}", there_are(published))]
    NoPrevious {
        /// Those there are.
        published: Vec<u32>,
    },
}

fn there_are(published: &[u32]) -> String {
    if published.is_empty() {
        return "none is published".to_owned();
    }
    format!("there are: {}", published.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))
}

/// What `change` makes of `state`.
///
/// # Errors
/// If it is not allowed; the state stays.
pub fn next(state: State, change: Change, versions: &Versions) -> Result<Step, Refusal> {
    let published = || versions.keys().copied().collect();
    let version = match (change, state) {
        (Change::Begin { version }, State::Empty) | (Change::Rollout { version, .. }, _) => version,
        (Change::Begin { version }, _) => return Err(Refusal::AlreadyBegun { version }),
        (Change::Rollback { .. }, State::Empty) => return Err(Refusal::NothingServes),
        (Change::Rollback { to: Some(version) }, _) => version,
        (Change::Rollback { to: None }, State::Known(Roles { previous: Some(version), .. })) => version,
        (Change::Rollback { to: None }, _) => return Err(Refusal::NoPrevious { published: published() }),
    };
    let to = match versions.get(&version) {
        None => return Err(Refusal::UnknownVersion { version, published: published() }),
        Some(Err(reason)) => return Err(Refusal::Damaged { version, reason: reason.clone() }),
        Some(Ok(space)) => space.clone(),
    };
    let stable = match state {
        State::Known(roles) if roles.stable == version => return Err(Refusal::AlreadyStable { version }),
        State::Known(roles) => Some(roles.stable),
        State::Empty | State::Lost => None,
    };
    let from = stable.and_then(|stable| versions.get(&stable)?.as_ref().ok());
    let stays = state == State::Empty || from == Some(&to);
    if let Change::Rollout { force: false, .. } = change
        && !stays
    {
        return Err(match (stable, from.cloned()) {
            (Some(stable), Some(from)) => Refusal::SpaceConflict { version, to, stable, from },
            _ => Refusal::SpaceUnknown { version, to },
        });
    }
    let previous = if matches!(change, Change::Rollback { .. }) { None } else { stable };
    let crossed = (!stays).then(|| Crossing { from: from.cloned(), to });
    Ok(Step { roles: Roles { stable: version, previous }, crossed })
}

#[cfg(test)]
mod tests {
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
                for change in [Change::Rollout { version: 2, force: true }, Change::Rollback { to: Some(2) }]
                {
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
}
