//! The call with `--files-from`: only what is named is looked at.
//!
//! What its shape rests on, all of it seen with rsync 3.5:
//!
//! * Names begin with `/`, or rsync takes those that begin with `#` or `;` for comments.
//! * Directories have no trailing slash: with one, rsync follows a symlink of that name
//!   and sends all files of the directory.
//! * The first name begins with `/./`, which makes rsync send the attributes of the
//!   source itself, as the classic call does. Listing `/` would send what is in it.
//! * No `-r`: it pulls in what is below listed directories and breaks the deletion of
//!   missing names. No `--no-implied-dirs`: the attributes of parents are wanted.

use super::collapse::{Collapsed, path_order};
use super::{Kind, Request, Transfer, filter_list};

/// The call that sends what is present and, if the sync deletes, removes what is missing.
///
/// `None` if there is nothing to name but the source itself, which this call cannot.
pub fn transfer(
    request: &Request<'_>,
    found: &Collapsed<'_>,
    ignore_times: bool,
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

    let mut args = request.words.to_vec();
    if ignore_times {
        args.push(b"--ignore-times".to_vec());
    }
    let mut all = found.present.iter().chain(gone);
    if request.delete && all.any(|item| item.was_directory) {
        args.extend(filter_list::protection(request));
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
        kind: Kind::FilesFrom { missing },
    })
}

fn list(names: &[&[u8]]) -> Vec<u8> {
    let length = names.iter().map(|name| name.len() + 1).sum::<usize>() + 2;
    let mut list = Vec::with_capacity(length);
    list.extend_from_slice(b"/.");
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            list.push(0);
        }
        list.extend_from_slice(name);
    }
    list
}
