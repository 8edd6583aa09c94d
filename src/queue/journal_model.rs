//! Tests of the journal: against a naive model, and of single steps.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap as Map;

#[derive(Clone, Debug)]
enum Step {
    Change(u8),
    Pull(usize, usize),
    Join,
    Leave(usize),
    Succeed(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            6 => (0u8..8).prop_map(Step::Change),
            5 => (0usize..4, 1usize..5).prop_map(|(t, n)| Step::Pull(t, n)),
            1 => Just(Step::Join),
            1 => (0usize..4).prop_map(Step::Leave),
            1 => (0usize..4).prop_map(Step::Succeed),
        ],
        1..120,
    )
}

/// The model: for each target the paths it lacks, and if it exceeded its bound.
type Model = Vec<(TargetId, Map<u8, Time>, bool)>;

const BOUND: usize = 6;
const DELAY: Time = 10;

fn agrees(journal: &Journal, model: &Model) -> Result<(), TestCaseError> {
    let mut all = Vec::new();
    for (id, lacks, gave_up) in model {
        let mut theirs: Vec<u8> = journal.lacks(*id).map(|(_, path)| path[0]).collect();
        theirs.sort_unstable();
        let ours: Vec<u8> = lacks.keys().copied().collect();
        prop_assert_eq!(&theirs, &ours);
        prop_assert_eq!(journal.behind(*id), ours.len());
        prop_assert_eq!(journal.overran(*id), *gave_up);
        // No change waits longer than in a queue of its own by more than one delay.
        if let Some(first) = lacks.values().min() {
            prop_assert!(journal.due(*id).is_some_and(|due| due <= first + DELAY));
        } else {
            prop_assert_eq!(journal.due(*id), None);
        }
        all.extend(ours);
    }
    all.sort_unstable();
    all.dedup();
    // Each path is present once; a path that all targets have is absent.
    prop_assert_eq!(journal.len(), all.len());
    prop_assert_eq!(journal.positions.len(), all.len());
    Ok(())
}

proptest! {
    #[test]
    fn every_target_gets_what_it_lacks(steps in steps()) {
        let mut journal = Journal::default();
        let mut model: Model = Vec::new();
        for _ in 0..3 {
            model.push((journal.add_target(BOUND), Map::new(), false));
        }
        for (now, step) in (1..).zip(steps) {
            match step {
                Step::Change(path) => {
                    journal.push(Etype::Modify, &[path], now + DELAY);
                    for (_, lacks, gave_up) in &mut model {
                        lacks.entry(path).or_insert(now + DELAY);
                        if lacks.len() > BOUND {
                            lacks.clear();
                            *gave_up = true;
                        }
                    }
                }
                Step::Pull(which, most) => {
                    let count = model.len();
                    let Some((id, lacks, gave_up)) = model.get_mut(which % count.max(1)) else {
                        continue;
                    };
                    prop_assert_eq!(journal.take_overran(*id), std::mem::take(gave_up));
                    match journal.pull(*id, now, (100, most), false) {
                        Pull::Take(taken) => {
                            prop_assert_eq!(taken.len(), most.min(lacks.len()));
                            for (_, path, _) in taken {
                                prop_assert!(lacks.remove(&path[0]).is_some());
                            }
                        }
                        Pull::At(due) => prop_assert!(due > now && !lacks.is_empty()),
                        Pull::Nothing => prop_assert!(lacks.is_empty()),
                    }
                }
                Step::Join if model.len() < 6 => {
                    model.push((journal.add_target(BOUND), Map::new(), false));
                }
                Step::Join => {}
                Step::Leave(which) if which < model.len() => {
                    journal.remove_target(model.remove(which).0);
                }
                Step::Leave(_) => {}
                Step::Succeed(which) => {
                    let Some((id, _, gave_up)) = model.get_mut(which) else {
                        continue;
                    };
                    let heir = journal.replace_target(*id, BOUND);
                    journal.remove_target(*id);
                    // The replacement handles the excess itself.
                    (*id, *gave_up) = (heir, false);
                }
            }
            agrees(&journal, &model)?;
        }
    }
}

fn taken(pull: Pull) -> Vec<(Etype, Vec<u8>)> {
    match pull {
        Pull::Take(list) => list
            .into_iter()
            .map(|(e, path, _)| (e, path.to_vec()))
            .collect(),
        _ => Vec::new(),
    }
}

#[test]
fn a_target_that_had_the_delete_gets_the_create_only() {
    let mut journal = Journal::default();
    let (fast, slow) = (journal.add_target(100), journal.add_target(100));
    journal.push(Etype::Delete, b"/d/", 5);
    assert_eq!(journal.pull(fast, 4, (100, 100), false), Pull::At(5));
    let first = taken(journal.pull(fast, 5, (100, 100), false));
    assert_eq!(first, [(Etype::Delete, b"/d/".to_vec())]);
    journal.completed(fast);
    journal.push(Etype::Create, b"/d/", 50);
    // The path was due for the slow target before.
    let both = taken(journal.pull(slow, 6, (100, 100), false));
    assert_eq!(both, [(Etype::Delete, b"/d/".to_vec())]);
    assert_eq!(journal.pull(fast, 6, (100, 100), false), Pull::At(50));
    let second = taken(journal.pull(fast, 6, (100, 100), true));
    assert_eq!(second, [(Etype::Create, b"/d/".to_vec())]);
    assert!(journal.is_empty() && journal.has_passed(slow, journal.last()));
}

#[test]
fn a_directory_made_while_one_is_deleted_is_renewed() {
    let mut journal = Journal::default();
    let id = journal.add_target(100);
    journal.push(Etype::Delete, b"/d/", 0);
    taken(journal.pull(id, 1, (100, 100), false));
    assert!(journal.is_empty());
    journal.push(Etype::Create, b"/d/", 2);
    journal.push(Etype::Create, b"/e/", 2);
    let second = taken(journal.pull(id, 2, (100, 100), false));
    let expected = [
        (Etype::Delete, b"/d/".to_vec()),
        (Etype::Create, b"/e/".to_vec()),
    ];
    assert_eq!(second, expected);
}

#[test]
fn a_dead_target_costs_no_more_than_the_paths() {
    let mut journal = Journal::default();
    let (dead, fast) = (journal.add_target(1000), journal.add_target(1000));
    for round in 0..10 {
        for path in 0..100u8 {
            journal.push(Etype::Modify, &[path], round);
        }
        taken(journal.pull(fast, round, (1, 1000), false));
        assert_eq!((journal.len(), journal.behind(dead)), (100, 100));
    }
    journal.remove_target(dead);
    assert!(journal.is_empty());
}

/// What is sent depends on the combined change: with attributes alone the contents are not sent.
#[test]
fn the_changes_of_one_path_are_combined_as_in_a_queue() {
    use Etype::{Attrib, Create, Delete, Modify};
    for (older, newer, combined) in [
        (Attrib, Modify, Modify),
        (Modify, Attrib, Modify),
        (Create, Delete, Delete),
        (Modify, Delete, Delete),
    ] {
        let mut journal = Journal::default();
        let (fast, slow) = (journal.add_target(9), journal.add_target(9));
        let combined = |path: &[u8]| vec![(combined, path.to_vec())];
        // No target has the older change.
        journal.push(older, b"/a", 0);
        journal.push(newer, b"/a", 0);
        assert_eq!(taken(journal.pull(fast, 1, (9, 9), false)), combined(b"/a"));
        // One of two has it.
        journal.push(older, b"/b", 1);
        assert_eq!(taken(journal.pull(fast, 1, (9, 9), false)).len(), 1);
        journal.push(newer, b"/b", 1);
        let both = taken(journal.pull(slow, 1, (9, 9), false));
        assert_eq!(both, [combined(b"/a"), combined(b"/b")].concat());
    }
}

/// A path that changes all the time would be sent last again and again.
#[test]
fn a_change_that_no_target_has_keeps_its_place() {
    let mut journal = Journal::default();
    let id = journal.add_target(9);
    for path in [b"/a", b"/b", b"/a"] {
        journal.push(Etype::Modify, path, 0);
    }
    assert_eq!(journal.last(), 2);
    let paths = taken(journal.pull(id, 1, (9, 9), false)).into_iter();
    let paths: Vec<_> = paths.map(|(_, path)| path).collect();
    assert_eq!(paths, [b"/a", b"/b"]);
}

/// The comparison of a directory in place of the directory may delete on a target.
#[test]
fn only_a_directory_that_is_created_while_it_is_deleted_is_compared() {
    use Etype::{Attrib, Create, Delete};
    for (first, second, expected) in [
        (Create, Create, Create),
        (Attrib, Create, Create),
        (Delete, Attrib, Attrib),
        (Delete, Create, Delete),
    ] {
        let mut journal = Journal::default();
        let id = journal.add_target(9);
        journal.push(first, b"/d/", 0);
        taken(journal.pull(id, 1, (9, 9), false));
        journal.push(second, b"/d/", 2);
        let next = taken(journal.pull(id, 2, (9, 9), false));
        assert_eq!(next, [(expected, b"/d/".to_vec())], "{first:?} {second:?}");
    }
}

/// Otherwise the journal keeps each path for a target that never takes it.
#[test]
fn nothing_is_kept_for_targets_that_are_gone() {
    let mut journal = Journal::default();
    let (stays, _gone) = (journal.add_target(9), journal.add_target(9));
    journal.push(Etype::Modify, b"/a", 0);
    taken(journal.pull(stays, 1, (9, 9), false));
    assert!(!journal.is_empty());
    journal.retain(&[stays]);
    assert!(journal.is_empty());
    journal.push(Etype::Modify, b"/b", 0);
    assert_eq!(journal.behind(stays), 1);
}
