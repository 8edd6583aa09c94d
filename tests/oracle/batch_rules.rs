//! A batch under random rules gives the same target as `rsync -r --delete` with the same rules,
//! apart from extra files in directories without events.
//!
//! `LSYNCD_TEST_ROUNDS` sets the number of random cases, `LSYNCD_TEST_SEED` runs a single one.

use crate::rule_world::*;
use crate::support::random::number;

/// Runs a startup and some batches. Returns how many were compared.
fn play(seed: u64) -> usize {
    let mut world = World::new(seed);
    for _ in 0..25 {
        world.step();
    }
    assert_eq!(world.compare_all(&world.target(), true), 0);
    let mut compared = 0;
    for _ in 0..4 {
        let (reach, list) = WAYS[world.random.below(WAYS.len())];
        let way = Way { reach, list };
        world.events.clear();
        world.insisted = false;
        world.log.clear();
        for _ in 0..3 {
            world.intrude();
        }
        for _ in 0..1 + world.random.below(7) {
            world.step();
        }
        if world.events.is_empty() {
            continue;
        }
        let before = tree(&world.target());
        let oracle = world.copy_of_target();
        let expected = world.compare_all(&oracle, true);
        let code = world.transfer(way);
        // A protected file may prevent the transfer of a path; then neither call is complete.
        if expected == 0 {
            let faults = world.faults(&before, &tree(&oracle));
            let lines: Vec<_> = world
                .lines
                .iter()
                .map(|line| line.escape_ascii().to_string())
                .collect();
            assert!(
                faults.is_empty() && code == 0,
                "seed {seed} {way:?} delete_excluded {} code {code}\n\
                 rules {lines:?}\nevents {:?}\nbefore {:?}\n{}\n{faults:#?}",
                world.delete_excluded,
                world.events,
                before.keys(),
                world.log,
            );
            compared += 1;
        }
        // The next batch starts from a fully compared target.
        world.compare_all(&world.target(), true);
    }
    compared
}

#[test]
fn a_batch_does_what_a_comparison_with_the_same_rules_does() {
    if let Some(seed) = number("LSYNCD_TEST_SEED") {
        play(seed);
        return;
    }
    let cases = number("LSYNCD_TEST_ROUNDS").unwrap_or(60);
    let compared: usize = (0..cases).map(play).sum();
    assert!(compared > cases as usize, "{compared} comparisons");
}
