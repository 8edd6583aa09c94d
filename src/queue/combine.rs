//! How a new event combines with an older delay it is related to: a pure function.
//!
//! This is lsyncd's table as its manual intends it. Two differences are wilful: for one
//! path lsyncd looks the verdict up and then forgets it, so events pile up; and two
//! Moves onto one file name count as related.

use super::delay::{Etype, Policy, Status};

/// How the new event's path lies to a path of the older delay. (A newer Move is related
/// through whichever of its paths is.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same path, also in being a directory or not.
    Same,
    /// The same path as the destination of an older Move.
    Destination,
    /// Inside a directory the older delay is about.
    Within,
    /// A directory around what the older delay is about.
    Around,
    /// The same name, but only one of the two is a directory. Counts if one of the events
    /// is a Move and the policy Settle; else such two are unrelated.
    Namesake,
}

/// What becomes of the new event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The two have nothing to do with each other.
    Unrelated,
    /// Appended; blocked until the older delay has left.
    Stack,
    /// Dropped: the older delay covers it.
    Absorb,
    /// Takes the older delay's place.
    Replace,
    /// The Move is queued as a Delete of its origin and a Create of its destination.
    Split,
    /// The older Move becomes a Delete of its origin; the new event is stacked on it.
    ToDelete,
}

/// Decides for an `older` delay of this `status` and a `newer` event whose path is, or
/// is not, a directory (`dir`).
///
/// An active delay is never changed: what it runs may have looked at the disk already.
pub fn combine(
    policy: Policy,
    (older, status): (Etype, Status),
    (newer, dir): (Etype, bool),
    relation: Relation,
) -> Verdict {
    if newer.is_special() || older == Etype::Full {
        return Verdict::Unrelated;
    }
    if older.is_special() && (newer != Etype::Move || policy == Policy::Deliver) {
        return Verdict::Stack;
    }
    // Under Settle also behind an Init: that makes the target like the source, and a
    // Move done after it would do what is done already.
    if newer == Etype::Move {
        return Verdict::Split;
    }
    if status == Status::Active {
        return Verdict::Stack;
    }
    match relation {
        Relation::Same if older != Etype::Move => same_path(policy, older, newer, dir),
        Relation::Destination if turns_move(newer, dir) => Verdict::ToDelete,
        _ => Verdict::Stack,
    }
}

/// A Create of a directory does not stand for what is in it, so it must not undo the
/// Move that brought the content.
fn turns_move(newer: Etype, dir: bool) -> bool {
    newer == Etype::Delete || newer == Etype::Create && !dir
}

fn same_path(policy: Policy, older: Etype, newer: Etype, dir: bool) -> Verdict {
    match policy {
        Policy::Settle => settle(older, newer, dir),
        Policy::Deliver if older == newer => Verdict::Absorb,
        Policy::Deliver if older == Etype::Delete && newer == Etype::Create && !dir => {
            Verdict::Replace
        }
        Policy::Deliver => Verdict::Stack,
    }
}

/// The stronger kind stays: Delete and Create over Modify over Attrib. A directory that
/// was deleted and made anew stays a Delete, because the target may hold what the old
/// one held.
fn settle(older: Etype, newer: Etype, dir: bool) -> Verdict {
    use Etype::{Attrib, Create, Delete, Modify};
    match (older, newer) {
        (Delete, Create) if dir => Verdict::Absorb,
        (Delete, Create) => Verdict::Replace,
        (Create | Modify | Attrib, Delete) => Verdict::Replace,
        (Modify | Attrib, Create) | (Attrib, Modify) => Verdict::Replace,
        _ => Verdict::Absorb,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Etype::*;
    use Status::*;

    const PLAIN: [Etype; 4] = [Create, Modify, Attrib, Delete];

    fn same(policy: Policy, older: Etype, newer: Etype, dir: bool) -> Verdict {
        combine(policy, (older, Wait), (newer, dir), Relation::Same)
    }

    #[test]
    fn settle_follows_the_table() {
        let rows = ["AAAR", "RAAR", "RRAR", "RAAA"];
        for (older, row) in PLAIN.iter().zip(rows) {
            for (newer, want) in PLAIN.iter().zip(row.chars()) {
                let want = match want {
                    'A' => Verdict::Absorb,
                    _ => Verdict::Replace,
                };
                assert_eq!(same(Policy::Settle, *older, *newer, false), want);
            }
        }
        assert_eq!(same(Policy::Settle, Delete, Create, true), Verdict::Absorb);
    }

    #[test]
    fn deliver_keeps_each_kind() {
        for older in PLAIN {
            for newer in PLAIN {
                let want = match (older, newer) {
                    (Delete, Create) => Verdict::Replace,
                    _ if older == newer => Verdict::Absorb,
                    _ => Verdict::Stack,
                };
                assert_eq!(same(Policy::Deliver, older, newer, false), want);
            }
        }
        assert_eq!(same(Policy::Deliver, Delete, Create, true), Verdict::Stack);
    }

    #[test]
    fn an_active_delay_is_never_changed() {
        for policy in [Policy::Settle, Policy::Deliver] {
            for older in [Create, Modify, Attrib, Delete, Move] {
                for newer in PLAIN {
                    for relation in [Relation::Same, Relation::Destination] {
                        let verdict = combine(policy, (older, Active), (newer, false), relation);
                        assert_eq!(verdict, Verdict::Stack);
                    }
                }
            }
        }
    }

    #[test]
    fn what_comes_to_a_destination_turns_the_move() {
        let at = |newer, dir| {
            let older = (Move, Block);
            combine(Policy::Settle, older, (newer, dir), Relation::Destination)
        };
        assert_eq!(at(Create, false), Verdict::ToDelete);
        assert_eq!(at(Delete, false), Verdict::ToDelete);
        assert_eq!(at(Delete, true), Verdict::ToDelete);
        assert_eq!(at(Create, true), Verdict::Stack);
        assert_eq!(at(Modify, false), Verdict::Stack);
    }

    #[test]
    fn special_delays() {
        let on = |older, newer| {
            combine(
                Policy::Deliver,
                (older, Wait),
                (newer, false),
                Relation::Within,
            )
        };
        assert_eq!(on(Init, Modify), Verdict::Stack);
        assert_eq!(on(Blanket, Move), Verdict::Stack);
        assert_eq!(on(Full, Modify), Verdict::Unrelated);
        assert_eq!(on(Init, Blanket), Verdict::Unrelated);
        assert_eq!(on(Create, Move), Verdict::Split);
        let settle = combine(
            Policy::Settle,
            (Init, Wait),
            (Move, false),
            Relation::Within,
        );
        assert_eq!(settle, Verdict::Split);
    }
}
