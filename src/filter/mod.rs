//! Patterns as rsync has them: which paths a sync is concerned with.
//!
//! The same rules are asked here for every event and every directory, and handed to rsync
//! for the startup transfer. Both must come to the same answer, or a file is sent once and
//! never again (or the other way round). So the meaning is that of rsync(1), "FILTER RULES"
//! and "PATTERN MATCHING RULES", checked against rsync itself; where lsyncd's own matcher
//! differed (no `[...]`, no backslash, `dir/` not covering what is below) rsync's holds.
//!
//! | file | what it does |
//! |---|---|
//! | `glob` | wildcards: compiled once, matched by a loop without allocation |
//! | `pattern` | one pattern: where in a path it may match, and on what kind of entry |
//! | `rules` | one written rule: sign and pattern, exclude lines, files of both |
//! | `list` | [`Filter`]: rules and excludes of one sync, and the text rsync gets |
//! | `subtree` | [`Rules`] for one directory and what is below it |
//! | `options` | the rules among options of rsync |
//! | `advice` | patterns that can match nothing, and what was probably meant |

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
pub use pattern::{Pattern, literal};
pub use rules::{RuleError, Sign, parse_exclude_file, parse_filter_file};
pub use subtree::Rules;
