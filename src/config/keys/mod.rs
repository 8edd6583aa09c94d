//! The table of all keys of a configuration: name, type, default, first version, kinds, meaning.
//!
//! The check for unknown keys, the checks of values, the advice in error messages, `lsyncd -keys`,
//! the tables of the manual and the manual page, and the definitions for editors are made from it.
//! A new key is one entry here, and the code that reads its value.
//!
//! * `settings`, `sync`, `rsync`, `nested`: the entries;
//! * `value_type`: types and their checks;
//! * `gauge`: the tables of known keys that a kind has in Lua;
//! * `checkgauge`, `advice`: unknown keys, and what to write instead;
//! * `schema`: the table as JSON.

use crate::spelling;
use std::fmt;

mod advice;
pub mod checkgauge;
pub mod gauge;
mod nested;
mod rsync;
mod schema;
mod settings;
mod sync;
mod value_type;

pub use nested::{
    BACKUP, BANDWIDTH, BANDWIDTH_ENTRY, CHECK, GUARD, RCLONE, SCANNER, SSH, STARTUP, TUNNEL, VERIFY,
};
pub use rsync::{ONLY_HOW, RSYNC};
pub use schema::schema;
pub use settings::SETTINGS;
pub use sync::SYNC;
pub use value_type::{MODES, ValueType};

/// A key of a configuration.
#[derive(Debug)]
pub struct Key {
    /// The name.
    pub name: &'static str,
    /// The type of its value.
    pub value: ValueType,
    /// The default in Markdown; empty if there is none.
    pub default: &'static str,
    /// The first version.
    pub since: Since,
    /// The kinds of syncs that have the key.
    pub kinds: Kinds,
    /// Its place among the arguments of rsync.
    pub argument: Argument,
    /// The meaning in Markdown. Links are relative to docs/.
    pub text: &'static str,
}

/// The first version of lsyncd that has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// 2.2.3 or before.
    V2_2,
    /// 2.3.1.
    V2_3,
    /// lsyncd reads the key, but its gauge does not permit it.
    Ungauged,
    /// This program.
    V3,
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Since::V2_2 => "2.2",
            Since::V2_3 => "2.3",
            Since::Ungauged | Since::V3 => "3.0",
        })
    }
}

/// The form of an option of rsync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Not an option of every call.
    None,
    /// As this letter of the first word.
    Letter(u8),
    /// As `--name`, with the value if the type is not a switch.
    Long,
}

impl Key {
    /// Returns the meaning in Markdown, with the option of rsync in front and the kinds behind it.
    pub fn meaning(&self) -> String {
        let option = match self.argument {
            Argument::None => String::new(),
            Argument::Letter(letter) => format!("`-{}`: ", char::from(letter)),
            Argument::Long => {
                let end = if matches!(self.value, ValueType::Switch) {
                    ""
                } else {
                    "="
                };
                format!("`{}{end}`: ", self.option())
            }
        };
        let kinds = match self.kinds {
            Kinds::OWN => " Not with `default.…`.",
            _ => "",
        };
        format!("{option}{}{kinds}", self.text)
    }

    /// Returns the long option of rsync: the name with dashes.
    pub fn option(&self) -> String {
        format!("--{}", self.name.replace('_', "-"))
    }
}

/// A set of kinds of syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    /// Kinds of the user, and syncs without a kind.
    pub const OWN: Kinds = Kinds(1);
    /// default.rsync
    pub const RSYNC: Kinds = Kinds(2);
    /// default.rsyncssh
    pub const RSYNCSSH: Kinds = Kinds(4);
    /// default.direct
    pub const DIRECT: Kinds = Kinds(8);
    /// default.rclone
    pub const RCLONE: Kinds = Kinds(16);
    /// All kinds.
    pub const ALL: Kinds = Kinds(31);

    /// The built-in kinds with their names in `default`.
    pub const BUILT_IN: [(Kinds, &'static str); 4] = [
        (Kinds::RSYNC, "rsync"),
        (Kinds::RSYNCSSH, "rsyncssh"),
        (Kinds::DIRECT, "direct"),
        (Kinds::RCLONE, "rclone"),
    ];

    /// Returns the union of two sets.
    pub const fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    /// Returns the set without the kinds of another one.
    pub const fn without(self, other: Kinds) -> Kinds {
        Kinds(self.0 & !other.0)
    }

    /// Returns true if the sets have a kind in common.
    pub const fn has(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns the names of the built-in kinds in the set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let named = Kinds::BUILT_IN.into_iter();
        named.filter_map(move |(kind, name)| self.has(kind).then_some(name))
    }
}

/// Makes a table of keys. An entry is `NAME: TYPE, DEFAULT, SINCE; MEANING;`, with the kinds or
/// the argument of rsync behind SINCE where they are not all kinds and none.
macro_rules! keys {
    ($($name:literal: $value:expr, $default:literal, $since:ident $(, $kinds:expr)?; $text:literal;)*) => {
        &[$($crate::config::keys::Key {
            name: $name,
            value: $value,
            default: $default,
            since: $crate::config::keys::Since::$since,
            kinds: $crate::config::keys::Kinds::ALL $(.without($crate::config::keys::Kinds::ALL).and($kinds))?,
            argument: $crate::config::keys::Argument::None,
            text: $text,
        }),*]
    };
    (options $($name:literal: $value:expr, $default:literal, $since:ident, $argument:expr; $text:literal;)*) => {
        &[$($crate::config::keys::Key {
            name: $name,
            value: $value,
            default: $default,
            since: $crate::config::keys::Since::$since,
            kinds: $crate::config::keys::Kinds::ALL,
            argument: $argument,
            text: $text,
        }),*]
    };
}
use keys;

/// Returns the key of this name.
pub fn find<'a>(table: &'a [Key], name: &str) -> Option<&'a Key> {
    table.iter().find(|key| key.name == name)
}

/// Returns the error text of a name that is not in a table, such as `Parameter "guard.x" unknown.`;
/// `None` if it is there. `prefix` ends with a dot.
pub(in crate::config) fn unknown(table: &[Key], prefix: &str, name: &str) -> Option<String> {
    if find(table, name).is_some() {
        return None;
    }
    let mut text = format!("Parameter \"{prefix}{name}\" unknown.");
    if let Some(similar) = nearest(table, name) {
        text.push_str(&format!(" Did you mean \"{prefix}{similar}\"?"));
    }
    Some(text)
}

/// Returns the name in a table that is most similar to a misspelt one, if one is.
pub fn nearest<'a>(table: &'a [Key], name: &str) -> Option<&'a str> {
    spelling::nearest(name, table.iter().map(|key| key.name))
}

/// Returns a text without Markdown.
pub fn plain(markdown: &str) -> String {
    without_links(markdown).replace('`', "")
}

/// Returns a text without links, and without the clause "see …" at its end that refers to another
/// page.
pub fn without_links(markdown: &str) -> String {
    let end = [", see [", " See [", "see ["]
        .into_iter()
        .filter_map(|reference| markdown.find(reference).map(|at| (at, reference)))
        .min();
    let text = match end {
        Some((at, ", see [")) => format!("{}.", &markdown[..at]),
        Some((at, _)) => markdown[..at].to_owned(),
        None => markdown.to_owned(),
    };
    let mut plain = String::new();
    let mut rest = text.as_str();
    while let Some((before, link)) = rest.split_once('[') {
        let parts = link.split_once("](").and_then(|(shown, behind)| {
            let (_, behind) = behind.split_once(')')?;
            Some((shown, behind))
        });
        let Some((shown, behind)) = parts else {
            plain.push_str(before);
            plain.push('[');
            rest = link;
            continue;
        };
        plain.push_str(before);
        plain.push_str(shown);
        rest = behind;
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_meanings_are_sentences() {
        let tables = [
            SETTINGS,
            SYNC,
            RSYNC,
            SSH,
            STARTUP,
            GUARD,
            CHECK,
            SCANNER,
            RCLONE,
            TUNNEL,
            BANDWIDTH,
            BANDWIDTH_ENTRY,
            VERIFY,
            BACKUP,
        ];
        for table in tables {
            for (index, key) in table.iter().enumerate() {
                assert!(find(&table[..index], key.name).is_none(), "{}", key.name);
                assert!(key.text.ends_with('.'), "{}", key.name);
                assert!(!key.text.contains('|'), "{}", key.name);
                assert!(!plain(key.text).contains(['`', '\n']), "{}", key.name);
                assert!(!plain(key.text).contains("]("), "{}", key.name);
            }
        }
    }

    #[test]
    fn references_to_other_pages_are_left_out_of_plain_texts() {
        assert_eq!(plain("Times, see [crontab](#crontab)."), "Times.");
        assert_eq!(plain("A `b`. See [x](y)."), "A b.");
        assert_eq!(plain("see [x](y)"), "");
        assert_eq!(plain("A [b](c) d { [0] = 1 }."), "A b d { [0] = 1 }.");
    }
}
