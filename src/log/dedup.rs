//! Suppresses repeated lines: they become one line and a count.

/// The time in seconds after which a repeated line is shown again.
const MIN_REPEAT_INTERVAL: i64 = 60;

/// The last line and its repetitions.
#[derive(Debug)]
pub(super) struct Fold {
    category: String,
    text: String,
    since: i64,
    repeated: u64,
}

/// The treatment of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is shown, after the count of suppressed lines before it.
    Show(Option<Count>),
    /// It repeats the line before and is suppressed.
    Swallow,
}

/// The number of times that the last line, of this category, was repeated.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) category: String,
    pub(super) times: u64,
}

impl Fold {
    pub(super) const fn new() -> Fold {
        Fold {
            category: String::new(),
            text: String::new(),
            since: 0,
            repeated: 0,
        }
    }

    /// Returns the treatment of a line at `now` in seconds. Only warnings and errors are
    /// suppressed: the configuration and its readers expect every other line.
    pub(super) fn line(&mut self, category: &str, text: &str, now: i64) -> Verdict {
        let foldable = matches!(category, "Warn" | "Error");
        let same = foldable && self.category == category && self.text == text;
        if same && (self.since..self.since + MIN_REPEAT_INTERVAL).contains(&now) {
            self.repeated += 1;
            return Verdict::Swallow;
        }
        let count = self.count();
        self.text.clear();
        self.category.clear();
        if foldable {
            self.text.push_str(text);
            self.category.push_str(category);
            self.since = now;
        }
        Verdict::Show(count)
    }

    /// Returns the count of the last line that has not been shown yet.
    pub(super) fn count(&mut self) -> Option<Count> {
        let times = std::mem::take(&mut self.repeated);
        (times > 0).then(|| Count {
            category: self.category.clone(),
            times,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(times: u64) -> Option<Count> {
        let category = "Warn".into();
        Some(Count { category, times })
    }

    #[test]
    fn repeated_warnings_are_counted() {
        let mut fold = Fold::new();
        assert_eq!(fold.line("Warn", "a", 10), Verdict::Show(None));
        assert_eq!(fold.line("Warn", "a", 11), Verdict::Swallow);
        assert_eq!(fold.line("Warn", "a", 12), Verdict::Swallow);
        assert_eq!(fold.line("Warn", "b", 12), Verdict::Show(count(2)));
        assert_eq!(fold.line("Error", "b", 12), Verdict::Show(None));
        assert_eq!(fold.line("Warn", "b", 12), Verdict::Show(None));
        assert_eq!(fold.line("Warn", "b", 13), Verdict::Swallow);
        assert_eq!(fold.line("Normal", "x", 13), Verdict::Show(count(1)));
        assert_eq!(fold.line("Warn", "b", 13), Verdict::Show(None));
        assert_eq!(fold.count(), None);
    }

    #[test]
    fn what_goes_on_repeating_is_shown_again() {
        let mut fold = Fold::new();
        assert_eq!(fold.line("Warn", "a", 0), Verdict::Show(None));
        assert_eq!(fold.line("Warn", "a", 59), Verdict::Swallow);
        assert_eq!(fold.line("Warn", "a", 60), Verdict::Show(count(1)));
        assert_eq!(fold.line("Warn", "a", 61), Verdict::Swallow);
        // The clock was set back.
        assert_eq!(fold.line("Warn", "a", 1), Verdict::Show(count(1)));
        assert_eq!(fold.line("Warn", "a", 1), Verdict::Swallow);
        assert_eq!(fold.count(), count(1));
    }

    #[test]
    fn other_categories_are_left_alone() {
        let mut fold = Fold::new();
        for _ in 0..3 {
            assert_eq!(fold.line("Normal", "a", 0), Verdict::Show(None));
        }
    }
}
