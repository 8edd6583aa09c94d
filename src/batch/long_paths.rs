//! Paths that are too long for rsync's lists.
//!
//! rsync cuts a name of `--files-from` that is longer, and ignores such a pattern. So a longer path
//! is replaced by a directory on its way. A name within the limit can be a pattern beyond it, since
//! wildcards are escaped.

use super::{BatchEntry, Change};
use crate::filter::push_entire;
use crate::paths;

/// The maximum length of a path with its leading slash: `MAXPATHLEN` of rsync without the final
/// zero byte. It is also the limit of patterns.
pub const MAX_PATH: usize = 4095;

/// Replaces paths beyond the limit by the nearest directory on their way, whose attributes have
/// changed. Returns the entries, and the paths among them that are left out of the transfer.
pub fn without_long(entries: Vec<BatchEntry<'_>>) -> (Vec<BatchEntry<'_>>, Vec<Vec<u8>>) {
    let mut too_long = Vec::new();
    let entries = replace(entries, is_too_long, |change, path| {
        // The target has no path of this length.
        if change != Change::Delete {
            too_long.push(path.to_vec());
        }
        let mut directories = paths::directories(path).rev();
        let directory = directories.find(|directory| !is_too_long(directory))?;
        Some(vec![entry(Change::Attrib, directory)])
    });
    (entries, too_long)
}

/// Returns the nearest directory on the way to a directory, or itself, that can be listed with its
/// final slash.
pub fn listed_directory(directory: &[u8]) -> Option<&[u8]> {
    let mut directories = paths::directories(directory).rev();
    directories.find(|directory| directory.len() <= MAX_PATH)
}

/// Returns true if a path cannot be listed.
fn is_too_long(path: &[u8]) -> bool {
    paths::bare(path).len() > MAX_PATH
}

/// Replaces paths whose patterns are too long by the nearest directory on their way, which is
/// compared with its contents. Returns `None` if there are none.
pub fn with_short_patterns<'a>(entries: &[BatchEntry<'a>]) -> Option<Vec<BatchEntry<'a>>> {
    let mut paths = entries
        .iter()
        .flat_map(|it| [Some(it.path), it.to])
        .flatten();
    paths.any(has_long_pattern).then(|| {
        replace(entries.to_vec(), has_long_pattern, |_, path| {
            let mut directories = paths::directories(paths::bare(path)).rev();
            let directory = directories.find(|directory| !has_long_pattern(directory))?;
            Some(vec![
                entry(Change::Delete, directory),
                entry(Change::Create, directory),
            ])
        })
    })
}

/// Returns true if no pattern can include a path and everything below it.
fn has_long_pattern(path: &[u8]) -> bool {
    // Each byte of the path can be escaped.
    if path.len() < MAX_PATH / 2 - 4 {
        return false;
    }
    let mut pattern = Vec::with_capacity(path.len() + 64);
    push_entire(&mut pattern, &paths::with_slash(path));
    pattern.len() > MAX_PATH
}

fn replace<'a>(
    entries: Vec<BatchEntry<'a>>,
    is_long: fn(&[u8]) -> bool,
    mut replacement: impl FnMut(Change, &'a [u8]) -> Option<Vec<BatchEntry<'a>>>,
) -> Vec<BatchEntry<'a>> {
    let mut replaced = Vec::with_capacity(entries.len());
    for it in entries {
        if !is_long(it.path) && !it.to.is_some_and(is_long) {
            replaced.push(it);
            continue;
        }
        let halves = match it.to {
            Some(to) => vec![entry(Change::Delete, it.path), entry(Change::Create, to)],
            None => vec![it],
        };
        for half in halves {
            if is_long(half.path) {
                replaced.extend(replacement(half.change, half.path).into_iter().flatten());
            } else {
                replaced.push(half);
            }
        }
    }
    replaced
}

fn entry(change: Change, path: &[u8]) -> BatchEntry<'_> {
    BatchEntry {
        change,
        path,
        to: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a path with this number of bytes below directories of 200 bytes.
    fn path(length: usize) -> Vec<u8> {
        let mut path = format!("/{}", "x".repeat(199)).repeat(20).into_bytes();
        path.push(b'/');
        path.resize(length, b'n');
        path
    }

    #[test]
    fn the_limit_is_that_of_rsync() {
        let (at_limit, beyond) = (path(MAX_PATH), path(MAX_PATH + 1));
        let entries = vec![
            entry(Change::Create, &at_limit),
            entry(Change::Modify, &beyond),
        ];
        let (short, too_long) = without_long(entries);
        assert_eq!(short[0].path, at_limit);
        assert_eq!(
            (short[1].path, short[1].change),
            (&beyond[..4001], Change::Attrib)
        );
        assert_eq!((short.len(), too_long), (2, vec![beyond]));
    }

    #[test]
    fn the_slash_of_a_directory_does_not_count() {
        let (at_limit, beyond) = (
            paths::with_slash(&path(MAX_PATH)),
            paths::with_slash(&path(MAX_PATH + 1)),
        );
        let entries = vec![
            entry(Change::Create, &at_limit),
            entry(Change::Create, &beyond),
        ];
        let (short, too_long) = without_long(entries);
        assert_eq!(
            (short[0].path, short[1].path),
            (&at_limit[..], &beyond[..4001])
        );
        assert_eq!(too_long, [beyond]);
    }

    #[test]
    fn the_slash_of_a_listed_directory_counts() {
        let (at_limit, beyond) = (
            paths::with_slash(&path(MAX_PATH - 1)),
            paths::with_slash(&path(MAX_PATH)),
        );
        assert_eq!(listed_directory(&at_limit), Some(&at_limit[..]));
        assert_eq!(listed_directory(&beyond), Some(&beyond[..4001]));
    }

    /// The target cannot have such a path, so there is nothing to tell.
    #[test]
    fn deletions_of_long_paths_are_not_told() {
        let beyond = path(MAX_PATH + 1);
        let (short, too_long) = without_long(vec![entry(Change::Delete, &beyond)]);
        assert_eq!(
            (short[0].path, short[0].change),
            (&beyond[..4001], Change::Attrib)
        );
        assert!(too_long.is_empty());
    }

    #[test]
    fn the_other_path_of_a_move_is_kept() {
        let (short, long) = (b"/f".to_vec(), path(MAX_PATH + 1));
        let told = |from, to| {
            let moved = BatchEntry {
                change: Change::Move,
                path: from,
                to: Some(to),
            };
            let (entries, too_long) = without_long(vec![moved]);
            let entries: Vec<_> = entries
                .iter()
                .map(|it| (it.change, it.path.len()))
                .collect();
            (entries, too_long.len())
        };
        assert_eq!(
            told(&short, &long),
            (vec![(Change::Delete, 2), (Change::Attrib, 4001)], 1)
        );
        assert_eq!(
            told(&long, &short),
            (vec![(Change::Attrib, 4001), (Change::Create, 2)], 0)
        );
        assert_eq!(told(&short, b"/g"), (vec![(Change::Move, 2)], 0));
    }

    /// `/***` stands behind a directory, and each wildcard is escaped.
    #[test]
    fn a_directory_is_compared_in_place_of_a_long_pattern() {
        let (at_limit, beyond) = (path(MAX_PATH - 4), path(MAX_PATH - 3));
        assert!(with_short_patterns(&[entry(Change::Modify, &at_limit)]).is_none());
        let short = with_short_patterns(&[entry(Change::Modify, &beyond)]).unwrap();
        let short: Vec<_> = short.iter().map(|it| (it.change, it.path)).collect();
        let directory = &beyond[..4001];
        assert_eq!(
            short,
            [(Change::Delete, directory), (Change::Create, directory)]
        );

        let wild = [b"/d/".to_vec(), b"*".repeat(2045)].concat();
        assert!(with_short_patterns(&[entry(Change::Modify, &wild[..wild.len() - 1])]).is_none());
        let short = with_short_patterns(&[entry(Change::Modify, &wild)]).unwrap();
        assert_eq!(short[0].path, b"/d/");
    }
}
