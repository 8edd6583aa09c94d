//! The call that compares single directories, without those below them.
//!
//! A name with a slash behind it makes `rsync -d --files-from` read that directory and, with
//! `--delete`, remove entries that are only on the target. The root is `/./`. Filter rules apply to
//! both.

use crate::log;

/// The maximum number of rules among the arguments, whose size the kernel limits.
const MAX_RULES: usize = 256;
/// The maximum bytes of rules among the arguments.
const MAX_RULE_BYTES: usize = 64 * 1024;
/// The maximum number of directories in the log.
const MAX_SHOWN: usize = 20;

/// The list of a call.
#[derive(Debug, PartialEq, Eq)]
pub struct ChangedDirectories {
    /// The standard input: names separated by NUL.
    pub list: Vec<u8>,
    /// The names for the log, one per line, escaped.
    pub shown: String,
}

impl ChangedDirectories {
    /// Returns the list of these directories, which begin and end with a slash. Returns `None` if
    /// there is none, or the rules are too many for arguments.
    pub fn new(directories: &[Vec<u8>], rules: &[Vec<u8>]) -> Option<ChangedDirectories> {
        let bytes: usize = rules.iter().map(Vec::len).sum();
        if directories.is_empty() || rules.len() > MAX_RULES || bytes > MAX_RULE_BYTES {
            return None;
        }
        let names = directories
            .iter()
            .map(|directory| match directory.as_slice() {
                b"/" => b"/./",
                other => other,
            });
        let shown = directories.iter().take(MAX_SHOWN);
        let mut shown: Vec<_> = shown.map(|directory| log::escape(directory)).collect();
        if directories.len() > MAX_SHOWN {
            shown.push(format!("and {} more", directories.len() - MAX_SHOWN).into());
        }
        Some(ChangedDirectories {
            list: names.collect::<Vec<_>>().join(&0),
            shown: shown.join("\n"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_with_a_slash() {
        let directories = [b"/".to_vec(), b"/a b/".to_vec(), b"/a\nb/#/".to_vec()];
        let list = ChangedDirectories::new(&directories, &[]).unwrap();
        assert_eq!(list.list, b"/./\0/a b/\0/a\nb/#/");
        assert_eq!(list.shown, "/\n/a b/\n/a\\012b/#/");
        let many = vec![b"/d/".to_vec(); 25];
        let list = ChangedDirectories::new(&many, &[]).unwrap();
        assert!(list.shown.ends_with("/d/\nand 5 more"));
    }

    #[test]
    fn without_directories_or_with_many_rules_there_is_no_list() {
        let rule = vec![b"- *.bak".to_vec()];
        assert_eq!(ChangedDirectories::new(&[], &rule), None);
        let directories = [b"/".to_vec()];
        assert!(ChangedDirectories::new(&directories, &rule).is_some());
        let rules = vec![rule[0].clone(); MAX_RULES + 1];
        assert_eq!(ChangedDirectories::new(&directories, &rules), None);
        let long = vec![vec![b'x'; MAX_RULE_BYTES + 1]];
        assert_eq!(ChangedDirectories::new(&directories, &long), None);
    }
}
