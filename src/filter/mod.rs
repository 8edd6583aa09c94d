//! Filter rules with rsync's semantics: the paths that a sync transfers.
//!
//! The same rules are applied here to every event and every directory, and passed to rsync for the
//! startup transfer. Both must give the same result, or a file is sent once and never again (or the
//! reverse). So the semantics are those of rsync(1), "FILTER RULES" and "PATTERN MATCHING RULES",
//! checked against rsync itself; where lsyncd's own matcher differed (no `[...]`, no backslash,
//! `dir/` not covering what is below) rsync's semantics apply.
//!
//! | file | what it does |
//! |---|---|
//! | `glob` | wildcards: compiled once, matched by a loop without allocation |
//! | `pattern` | one pattern: the part of a path and the kind of entry it matches |
//! | `rules` | one written rule: sign and pattern, exclude lines, files of both |
//! | `list` | [`Filter`]: rules and excludes of one sync, and the text that rsync gets |
//! | `subtree` | [`Rules`] for one directory and everything below it |
//! | `options` | the rules among rsync options |
//! | `advice` | patterns that can match nothing, and what was probably meant |
//!
//! The room knows neither syncs nor rsync calls. It reads files of rules and nothing else of the
//! disk.

mod advice;
mod glob;
mod list;
mod options;
mod pattern;
mod rules;
mod subtree;

pub use advice::suspicious;
pub use list::{Decision, Filter, RsyncInput};
pub use options::OptionRules;
pub use pattern::{Pattern, literal, push_entire, push_exact};
pub use rules::{RuleError, Sign, parse_exclude_file, parse_filter_file};
pub use subtree::Rules;
