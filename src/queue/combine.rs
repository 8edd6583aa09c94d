//! Decides how a new event combines with an older, related delay: a pure function.
//!
//! This is lsyncd's table as its manual intends it, with two intentional differences: for one path
//! lsyncd looks the result up and then ignores it, so events pile up; and here two Moves onto one
//! file name count as related.

use super::etype::{Etype, Policy, Status};

/// The relation of the new event's path to a path of the older delay. A newer Move is related if
/// either of its paths is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The paths are equal, and both or neither are directories.
    Same,
    /// The path equals the destination of an older Move.
    Destination,
    /// The path is inside a directory the older delay is about.
    Within,
    /// The path is a directory that contains the older delay's path.
    Around,
    /// The names are equal, but only one of the two is a directory. This is a relation only if one
    /// of the events is a Move and the policy is Coalesce.
    Namesake,
}

/// The action that a combination asks the queue to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combination {
    /// The event and the delay do not affect each other.
    Unrelated,
    /// The event is appended and blocked until the older delay has left the queue.
    Block,
    /// The event is dropped: the older delay covers it.
    Absorb,
    /// The event replaces the older delay in place.
    Replace,
    /// The Move is queued as a Delete of its origin and a Create of its destination.
    Split,
    /// The older Move becomes a Delete of its origin, and the new event is blocked by it.
    ToDelete,
}

/// Returns how a `newer` event combines with an `older` delay that has this `status`. `dir` is true
/// if the event's path is a directory.
///
/// An active delay is never changed: its action may have read the disk already.
pub fn combine(
    policy: Policy,
    (older, status): (Etype, Status),
    (newer, dir): (Etype, bool),
    relation: Relation,
) -> Combination {
    if newer.is_special() || older == Etype::Full {
        return Combination::Unrelated;
    }
    if older.is_special() && (newer != Etype::Move || policy == Policy::PerEvent) {
        return Combination::Block;
    }
    // Under Coalesce a Move is split behind an Init as well: the Init makes the target like the
    // source, and a Move carried out after it would be repeated.
    if newer == Etype::Move {
        return Combination::Split;
    }
    if status == Status::Active {
        return Combination::Block;
    }
    match relation {
        Relation::Same if older != Etype::Move => same_path(policy, older, newer, dir),
        Relation::Destination if turns_move(newer, dir) => Combination::ToDelete,
        _ => Combination::Block,
    }
}

/// Returns true if the event turns a pending Move into a Delete. A Create of a directory does not
/// cover its contents, so it must not undo the Move that brought them.
fn turns_move(newer: Etype, dir: bool) -> bool {
    newer == Etype::Delete || newer == Etype::Create && !dir
}

fn same_path(policy: Policy, older: Etype, newer: Etype, dir: bool) -> Combination {
    match policy {
        Policy::Coalesce => coalesce(older, newer, dir),
        Policy::PerEvent if older == newer => Combination::Absorb,
        Policy::PerEvent if older == Etype::Delete && newer == Etype::Create && !dir => {
            Combination::Replace
        }
        Policy::PerEvent => Combination::Block,
    }
}

/// Returns the combination of two events of one path under Coalesce. The stronger kind stays:
/// Delete and Create over Modify over Attrib. A directory that was deleted and created again stays
/// a Delete, because the target may hold the contents of the old one.
fn coalesce(older: Etype, newer: Etype, dir: bool) -> Combination {
    use Etype::{Attrib, Create, Delete, Modify};
    match (older, newer) {
        (Delete, Create) if dir => Combination::Absorb,
        (Delete, Create) => Combination::Replace,
        (Create | Modify | Attrib, Delete) => Combination::Replace,
        (Modify | Attrib, Create) | (Attrib, Modify) => Combination::Replace,
        _ => Combination::Absorb,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Etype::*;
    use Status::*;

    const PLAIN: [Etype; 4] = [Create, Modify, Attrib, Delete];

    fn same(policy: Policy, older: Etype, newer: Etype, dir: bool) -> Combination {
        combine(policy, (older, Wait), (newer, dir), Relation::Same)
    }

    #[test]
    fn coalescing_follows_the_table() {
        let rows = ["AAAR", "RAAR", "RRAR", "RAAA"];
        for (older, row) in PLAIN.iter().zip(rows) {
            for (newer, want) in PLAIN.iter().zip(row.chars()) {
                let want = match want {
                    'A' => Combination::Absorb,
                    _ => Combination::Replace,
                };
                assert_eq!(same(Policy::Coalesce, *older, *newer, false), want);
            }
        }
        assert_eq!(
            same(Policy::Coalesce, Delete, Create, true),
            Combination::Absorb
        );
    }

    #[test]
    fn per_event_keeps_each_kind() {
        for older in PLAIN {
            for newer in PLAIN {
                let want = match (older, newer) {
                    (Delete, Create) => Combination::Replace,
                    _ if older == newer => Combination::Absorb,
                    _ => Combination::Block,
                };
                assert_eq!(same(Policy::PerEvent, older, newer, false), want);
            }
        }
        assert_eq!(
            same(Policy::PerEvent, Delete, Create, true),
            Combination::Block
        );
    }

    #[test]
    fn an_active_delay_is_never_changed() {
        for policy in [Policy::Coalesce, Policy::PerEvent] {
            for older in [Create, Modify, Attrib, Delete, Move] {
                for newer in PLAIN {
                    for relation in [Relation::Same, Relation::Destination] {
                        let verdict = combine(policy, (older, Active), (newer, false), relation);
                        assert_eq!(verdict, Combination::Block);
                    }
                }
            }
        }
    }

    #[test]
    fn what_comes_to_a_destination_turns_the_move() {
        let at = |newer, dir| {
            let older = (Move, Block);
            combine(Policy::Coalesce, older, (newer, dir), Relation::Destination)
        };
        assert_eq!(at(Create, false), Combination::ToDelete);
        assert_eq!(at(Delete, false), Combination::ToDelete);
        assert_eq!(at(Delete, true), Combination::ToDelete);
        assert_eq!(at(Create, true), Combination::Block);
        assert_eq!(at(Modify, false), Combination::Block);
    }

    #[test]
    fn special_delays() {
        let on = |older, newer| {
            combine(
                Policy::PerEvent,
                (older, Wait),
                (newer, false),
                Relation::Within,
            )
        };
        assert_eq!(on(Init, Modify), Combination::Block);
        assert_eq!(on(Blanket, Move), Combination::Block);
        assert_eq!(on(Full, Modify), Combination::Unrelated);
        assert_eq!(on(Init, Blanket), Combination::Unrelated);
        assert_eq!(on(Create, Move), Combination::Split);
        let settle = combine(
            Policy::Coalesce,
            (Init, Wait),
            (Move, false),
            Relation::Within,
        );
        assert_eq!(settle, Combination::Split);
    }
}
