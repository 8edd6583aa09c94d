//! The rows of an index, and those that stay when directories have changed.

use hashbrown::HashSet;

/// The digest of a directory whose state on the target is unknown. Its row leads to those below.
pub const UNKNOWN: u64 = 0;

/// One directory: the hashes of its path and its parent's, and its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The hash of the path.
    pub path: u64,
    /// The hash of the parent's path; that of the root is its own.
    pub parent: u64,
    /// The digest: 64 bits of a keyed hash.
    pub digest: u64,
}

/// Sorts rows by path. Paths with the same hash keep both rows: the digest contains the path.
pub fn sort(rows: &mut Vec<Row>) {
    rows.sort_unstable();
    rows.dedup();
}

/// Returns the position of a row in sorted rows.
pub fn find(rows: &[Row], path: u64, digest: u64) -> Option<usize> {
    if digest == UNKNOWN {
        return None;
    }
    let first = rows.partition_point(|row| row.path < path);
    let same = rows[first..].iter().take_while(|row| row.path == path);
    let at = same.take_while(|row| row.digest != digest).count();
    let found = rows.get(first + at)?;
    (found.path == path && found.digest == digest).then_some(first + at)
}

/// Forgets the state of `directories`, and removes `trees` with all below them. The rows must be
/// sorted.
pub fn forget(rows: &mut Vec<Row>, directories: &HashSet<u64>, trees: &HashSet<u64>) {
    if !trees.is_empty() {
        let mut is_gone = vec![None; rows.len()];
        for at in 0..rows.len() {
            judge(rows, trees, &mut is_gone, at);
        }
        let mut gone = is_gone.iter();
        rows.retain(|_| gone.next().copied().flatten() != Some(true));
    }
    for row in rows
        .iter_mut()
        .filter(|row| directories.contains(&row.path))
    {
        row.digest = UNKNOWN;
    }
}

/// Finds out if a row is in one of the trees, and so those of the directories above it.
fn judge(rows: &[Row], trees: &HashSet<u64>, is_gone: &mut [Option<bool>], at: usize) {
    let mut way = Vec::new();
    let mut next = Some(at);
    let mut gone = false;
    while let Some(at) = next {
        if let Some(known) = is_gone[at] {
            gone = known;
            break;
        }
        way.push(at);
        // Stops at cycles, which only a collision of hashes can make.
        is_gone[at] = Some(false);
        let row = &rows[at];
        if trees.contains(&row.path) || trees.contains(&row.parent) {
            gone = true;
            break;
        }
        next = (row.parent != row.path)
            .then(|| rows.partition_point(|other| other.path < row.parent))
            .filter(|&above| {
                rows.get(above)
                    .is_some_and(|other| other.path == row.parent)
            });
        if next.is_none() && row.parent != row.path {
            // The row of the parent is missing, so the directories above are unknown.
            gone = true;
        }
    }
    for at in way {
        is_gone[at] = Some(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(path: u64, parent: u64) -> Row {
        Row {
            path,
            parent,
            digest: path,
        }
    }

    #[test]
    fn rows_of_equal_hash_are_told_by_the_digest() {
        let twin = Row {
            digest: 9,
            ..row(2, 1)
        };
        let mut rows = vec![twin, row(2, 1), row(1, 1), row(3, 1), row(2, 1)];
        sort(&mut rows);
        assert_eq!(rows.len(), 4);
        assert_eq!(find(&rows, 2, 2), Some(1));
        assert_eq!(find(&rows, 2, 9), Some(2));
        assert_eq!(find(&rows, 2, 5), None);
        assert_eq!(find(&rows, 2, 3), None);
        assert_eq!(find(&rows, 4, 4), None);
    }

    proptest! {
        /// Compares with a model that climbs from each row. `above[n]` is the parent of row n + 1.
        #[test]
        fn a_tree_is_removed_with_all_below(
            above in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
            directories in prop::collection::hash_set(0u64..41, 0..5),
            trees in prop::collection::hash_set(0u64..41, 0..4),
        ) {
            let parents: Vec<u64> = std::iter::once(0)
                .chain(above.iter().enumerate().map(|(at, index)| index.index(at + 1) as u64))
                .collect();
            let mut rows: Vec<Row> =
                (0..).zip(&parents).map(|(path, parent)| row(path, *parent)).collect();
            let stays = |row: &&Row| {
                let mut at = row.path;
                while at != 0 && !trees.contains(&at) {
                    at = parents[at as usize];
                }
                !trees.contains(&at)
            };
            let expected: Vec<Row> = rows
                .iter()
                .filter(stays)
                .map(|row| match directories.contains(&row.path) {
                    true => Row { digest: UNKNOWN, ..*row },
                    false => *row,
                })
                .collect();
            let (directories, trees) =
                (directories.into_iter().collect(), trees.into_iter().collect());
            forget(&mut rows, &directories, &trees);
            prop_assert_eq!(rows, expected);
        }
    }

    /// The directories above it are unknown, so it may be in a tree that is gone.
    #[test]
    fn a_row_without_one_for_its_parent_is_removed() {
        let mut rows = vec![row(1, 1), row(2, 1), row(5, 4), row(6, 5)];
        forget(&mut rows, &HashSet::new(), &[9].into_iter().collect());
        assert_eq!(rows, [row(1, 1), row(2, 1)]);
    }
}
