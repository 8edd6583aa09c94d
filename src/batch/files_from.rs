//! The call with `--files-from`: rsync reads only the listed names.
//!
//! The form rests on these facts, observed with rsync 3.5:
//!
//! * Names begin with `/`, or rsync takes those that begin with `#` or `;` for comments.
//! * Directories have no trailing slash: with one, rsync follows a symlink of that name and sends
//!   all files of the directory.
//! * The first name begins with `/./`, which makes rsync send the attributes of the source itself,
//!   as the classic call does. Listing `/` would send its contents. If the name would be too long,
//!   the directory at its top is listed for this.
//! * No `-r`: it adds everything below listed directories and breaks the deletion of missing names.
//!   No `--no-implied-dirs`: the attributes of parents are wanted.

use super::collapse::{Collapsed, path_order};
use super::long_paths::MAX_PATH;
use super::{BatchRequest, Compare, Transfer, TransferKind};
use crate::filter::{Rules, Sign};
use crate::paths;

/// The maximum number of rules among the arguments, whose size the kernel limits.
const MAX_RULES: usize = 256;

/// Returns the call that sends what is present and, if the sync deletes, removes what is missing.
///
/// Returns `None` if this call is not possible: the source itself would be the only name, or there
/// are more rules that protect files than fit among the arguments.
pub fn transfer(
    request: &BatchRequest<'_>,
    rules: &Rules,
    found: &Collapsed<'_>,
    compare: Compare,
) -> Option<Transfer> {
    let missing = request.delete && !found.missing.is_empty();
    let gone = if missing { &found.missing[..] } else { &[] };
    let mut names: Vec<&[u8]> = found
        .present
        .iter()
        .chain(gone)
        .map(|item| item.path)
        .filter(|&path| path != b"/")
        .collect();
    if names.is_empty() {
        return None;
    }
    names.sort_unstable_by(|a, b| path_order(a, b));

    let mut args = request.options.to_vec();
    args.extend(compare.option().map(|word| word.as_bytes().to_vec()));
    if !request.delete_excluded {
        args.extend(protection(rules, found)?);
    }
    if missing {
        args.push(b"--delete-missing-args".to_vec());
    } else {
        args.push(b"--ignore-missing-args".to_vec());
    }
    for word in ["--force", "--ignore-errors", "--from0", "--files-from=-"] {
        args.push(word.into());
    }
    args.push(request.source.to_vec());
    args.push(request.target.to_vec());
    Some(Transfer {
        args,
        list: list(&names),
        names_at: 0,
        kind: TransferKind::FilesFrom { missing },
        too_long: Vec::new(),
    })
}

/// Returns rules for the receiver that keep what the sync excludes in directories to be deleted.
/// Returns `None` if they are too many.
fn protection(rules: &Rules, found: &Collapsed<'_>) -> Option<Vec<Vec<u8>>> {
    let mut all = found.present.iter().chain(&found.missing);
    if !all.any(|item| item.was_directory) {
        return Some(Vec::new());
    }
    let words = rules.all().map(|(sign, pattern)| {
        let kind: &[u8] = match sign {
            Sign::Exclude => b"P",
            Sign::Include => b"R",
        };
        [b"--filter=", kind, b" ", pattern].concat()
    });
    let words: Vec<_> = words.take(MAX_RULES + 1).collect();
    (words.len() <= MAX_RULES).then_some(words)
}

fn list(names: &[&[u8]]) -> Vec<u8> {
    let length = names.iter().map(|name| name.len() + 1).sum::<usize>() + 2;
    let mut list = Vec::with_capacity(length);
    list.extend_from_slice(b"/.");
    if let [first, ..] = names
        && list.len() + first.len() > MAX_PATH
    {
        let top = paths::directories(first).nth(1).unwrap_or_default();
        list.extend_from_slice(paths::bare(top));
        list.push(0);
    }
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            list.push(0);
        }
        list.extend_from_slice(name);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::collapse::CollapsedItem;

    /// Without one of them an excluded file would be deleted.
    #[test]
    fn excluded_files_are_protected_by_all_rules_or_by_another_call() {
        let directory = CollapsedItem {
            path: b"/d",
            stat: None,
            was_directory: true,
            written: false,
            renewed: false,
            other_kind: false,
        };
        let found = Collapsed {
            missing: vec![directory],
            ..Collapsed::default()
        };
        let protected = |count: usize| {
            let rules: Vec<String> = (0..count).map(|number| format!("- {number}")).collect();
            let rules = Rules::new(rules.iter().map(String::as_bytes));
            protection(&rules, &found).map(|words| words.len())
        };
        assert_eq!(protected(MAX_RULES), Some(MAX_RULES));
        assert_eq!(protected(MAX_RULES + 1), None);
    }

    #[test]
    fn a_long_first_name_is_not_made_longer() {
        let name = |length: usize| {
            let mut name = b"/top/".to_vec();
            name.resize(length, b'n');
            name
        };
        let (fits, long) = (name(MAX_PATH - 2), name(MAX_PATH - 1));
        assert_eq!(list(&[&fits, b"/z"]), [b"/.", &fits[..], b"\0/z"].concat());
        assert_eq!(
            list(&[&long, b"/z"]),
            [b"/./top\0", &long[..], b"\0/z"].concat()
        );
    }
}
