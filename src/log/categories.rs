//! The selection of message categories.

use std::fmt;

/// The categories that `-log` selects.
///
/// Without any, `Normal`, `Warn` and `Error` are shown. `all` shows everything, `scarce` only
/// `Warn` and `Error`; the last of these two counts. Any other word is the name of a category to be
/// shown as well; it has the rank of `Normal`, so `scarce` hides it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    volume: Volume,
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Volume {
    #[default]
    Usual,
    Scarce,
    All,
}

/// An invalid `-log` argument: category names begin with a capital letter, A to Z.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadCategory(pub String);

impl fmt::Display for BadCategory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not a valid logging category", self.0)
    }
}

impl std::error::Error for BadCategory {}

impl Selection {
    /// The selection without `-log`.
    pub(super) const DEFAULT: Self = Self {
        volume: Volume::Usual,
        names: Vec::new(),
    };

    /// Returns true if exactly the default categories are shown; callers use it to skip others
    /// quickly.
    pub(super) fn is_usual(&self) -> bool {
        self.volume == Volume::Usual && self.names.is_empty()
    }

    /// Adds one `-log` argument.
    ///
    /// # Errors
    /// The argument is neither `all` nor `scarce` nor a category name.
    pub fn add(&mut self, word: &str) -> Result<(), BadCategory> {
        match word {
            "all" => self.volume = Volume::All,
            "scarce" => self.volume = Volume::Scarce,
            _ if word.starts_with(|first: char| first.is_ascii_uppercase()) => {
                self.names.push(word.to_owned());
            }
            _ => return Err(BadCategory(word.to_owned())),
        }
        Ok(())
    }

    /// Merges another selection, which takes precedence.
    pub fn merge(&mut self, other: Selection) {
        if other.volume != Volume::Usual {
            self.volume = other.volume;
        }
        self.names.extend(other.names);
    }

    /// Returns true if messages of this category are shown.
    pub fn shows(&self, category: &str) -> bool {
        match self.volume {
            Volume::All => true,
            Volume::Scarce => matches!(category, "Warn" | "Error"),
            Volume::Usual => is_usual(category) || self.names(category),
        }
    }

    /// Returns the level for syslog(3), `libc::LOG_*`. Categories that only `all` shows have level
    /// debug.
    pub(super) fn priority(&self, category: &str) -> i32 {
        match category {
            "Error" => libc::LOG_ERR,
            "Warn" => libc::LOG_WARNING,
            "Normal" => libc::LOG_NOTICE,
            _ if self.names(category) => libc::LOG_NOTICE,
            _ => libc::LOG_DEBUG,
        }
    }

    fn names(&self, category: &str) -> bool {
        self.names.iter().any(|name| name == category)
    }
}

/// Returns true for categories that are shown unless `scarce` is selected.
pub(super) fn is_usual(category: &str) -> bool {
    matches!(category, "Normal" | "Warn" | "Error")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Selection {
        let mut selection = Selection::default();
        for word in words {
            selection.add(word).unwrap();
        }
        selection
    }

    fn shown(words: &[&str]) -> Vec<&'static str> {
        let selection = of(words);
        ["Error", "Warn", "Normal", "Exec", "traceback"]
            .into_iter()
            .filter(|category| selection.shows(category))
            .collect()
    }

    #[test]
    fn words() {
        assert_eq!(shown(&[]), ["Error", "Warn", "Normal"]);
        assert_eq!(shown(&["Exec"]), ["Error", "Warn", "Normal", "Exec"]);
        assert_eq!(shown(&["scarce", "Exec"]), ["Error", "Warn"]);
        assert_eq!(shown(&["scarce", "all"]).len(), 5);
        assert_eq!(shown(&["all", "Exec", "scarce"]), ["Error", "Warn"]);
    }

    #[test]
    fn words_that_are_none() {
        for word in ["foo", "", "-x", "Über", "ALL "] {
            let result = Selection::default().add(word);
            match word {
                "ALL " => assert_eq!(result, Ok(())),
                _ => assert_eq!(result, Err(BadCategory(word.to_owned()))),
            }
        }
        let text = BadCategory("foo".to_owned()).to_string();
        assert_eq!(text, "'foo' is not a valid logging category");
    }

    #[test]
    fn priorities_are_levels_only() {
        let selection = of(&["all", "Exec"]);
        let levels = ["Error", "Warn", "Normal", "Exec", "Inotify"].map(|c| selection.priority(c));
        assert_eq!(levels, [3, 4, 5, 5, 7]);
    }
}
