//! The types of values, and their checks.

use mlua::Value;

use super::Key;
use crate::config::{kind_of, number_of, text_of, truthy};

/// The type of a key's value. `false` and nil mean that the key is not set.
#[derive(Clone, Copy, Debug)]
pub enum ValueType {
    /// A command or a function for one kind of event.
    Action,
    /// As `Action`, or true.
    ActionOrSwitch,
    /// Any value.
    Anything,
    /// A rate, or a table of rates by time of day.
    Bandwidth,
    /// A number of bytes. As in lsyncd, a negative one is a limit that every file exceeds.
    Bytes,
    /// The checks of files.
    Check,
    /// A program and its arguments.
    Command,
    /// A number above zero. A fraction counts as the next whole number.
    Count,
    /// A rule or a list of rules of a crontab. A number is not a rule.
    Crontab,
    /// The seconds of `delay`.
    Delay,
    /// A value of `delete`.
    Delete,
    /// A table of meanings of exit codes.
    ExitCodes,
    /// A function.
    Function,
    /// A function or `"changed"`; `false` has a meaning of its own.
    Init,
    /// A table of known keys.
    Gauge,
    /// The conditions of a sync.
    Guard,
    /// A function, or a program and its arguments.
    Hook,
    /// A number of seconds above zero.
    Interval,
    /// A value of `inotifyMode`.
    Mode,
    /// A text that is not empty.
    Name,
    /// Any number.
    Number,
    /// A number or a list of numbers.
    Numbers,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A text that names a file or a directory; an empty one counts as not set.
    OptionalPath,
    /// A text that names a file or a directory.
    Path,
    /// As `OptionalPath`, or `false`, which differs from an omitted path.
    PathOrFalse,
    /// The treatment of a rejected file.
    Rejection,
    /// A number of seconds, 0 or more.
    Seconds,
    /// A number of seconds. As in lsyncd, a negative one counts as 0.
    SignedSeconds,
    /// Options of ssh_config(5).
    SshOptions,
    /// Any value; values that Lua takes for true switch the key on.
    Switch,
    /// A table with keys of its own.
    Table(&'static [Key]),
    /// Several targets.
    Targets,
    /// A text or a number.
    Text,
    /// A text or a list of texts.
    Texts,
    /// The value that `tunnel{}` returns.
    Tunnel,
    /// The command of a tunnel.
    TunnelCommand,
    /// A list of texts.
    Words,
}

use ValueType as T;

/// The values of `inotifyMode`.
pub const MODES: [&str; 3] = ["CloseWrite", "Modify", "CloseWrite or Modify"];

impl ValueType {
    /// Returns the type in words, as the manual has it.
    pub fn name(self) -> String {
        let name = match self {
            T::Action => "text or function",
            T::ActionOrSwitch => "text, function or switch",
            T::Anything => "–",
            T::Bandwidth => "text or table",
            T::Bytes | T::Count | T::Delay | T::Interval | T::Number => "number",
            T::Seconds | T::SignedSeconds => "number",
            T::Check => "table or function",
            T::Command | T::Words => "list of texts",
            T::Delete => "true, false, `\"startup\"`, `\"running\"`",
            T::ExitCodes | T::SshOptions | T::Table(_) => "table",
            T::Function => "function",
            T::Init => "function, false or `\"changed\"`",
            T::Gauge | T::Guard => "table or false",
            T::Hook => "function or list of texts",
            T::Numbers => "number or list of numbers",
            T::OneOf(texts) => return one_of(texts, "`\""),
            T::Mode => return one_of(&MODES, "`\""),
            T::Name | T::OptionalPath | T::Path | T::Text => "text",
            T::PathOrFalse => "text or false",
            T::Rejection => "text, function or list of texts",
            T::Switch => "switch",
            T::Targets => "list or function",
            T::Crontab | T::Texts | T::TunnelCommand => "text or list of texts",
            T::Tunnel => "tunnel{}",
        };
        name.to_owned()
    }

    /// Returns the keys of the value, if it is a table with keys of its own.
    pub fn keys(self) -> Option<&'static [Key]> {
        match self {
            T::Table(keys) => Some(keys),
            T::Guard => Some(super::GUARD),
            T::Check => Some(super::CHECK),
            _ => None,
        }
    }

    /// Returns what is wrong with a value, to be put behind the name of its key; `None` if nothing
    /// is. Values that take more than their type to check are right.
    pub fn complaint(self, value: &Value) -> Option<String> {
        if !truthy(value) {
            return None;
        }
        if let Value::String(text) = value
            && text.as_bytes().contains(&0)
        {
            return Some("contains a NUL byte.".to_owned());
        }
        let number = number_of(value);
        let text = text_of(value);
        let wanted = match self {
            T::Bytes | T::Count | T::Interval | T::Number | T::Seconds | T::SignedSeconds
                if number.is_none() =>
            {
                "a number"
            }
            T::Mode
            | T::Name
            | T::OneOf(_)
            | T::OptionalPath
            | T::Path
            | T::PathOrFalse
            | T::Text
                if text.is_none() =>
            {
                "a text"
            }
            T::Crontab if !value.is_string() && !is_list_of_strings(value) => {
                return Some("must be a list of texts.".to_owned());
            }
            T::Texts if text.is_none() && words(value).is_none() => "a text or a list of texts",
            T::Init if text.as_deref() == Some(b"changed") => return None,
            T::Init if text.is_some() => "a function, false or \"changed\"",
            T::Function | T::Init if *value == Value::Boolean(true) => {
                return Some(
                    "must be a function or false, not true. Leave it out to use the startup of the kind."
                        .to_owned(),
                );
            }
            T::Function | T::Init if !value.is_function() => "a function",
            T::Gauge if !value.is_table() => "a table or false",
            T::ExitCodes if !value.is_table() => "a table",
            T::Hook if !value.is_function() && !value.is_table() => {
                "a function or a list of a program and its arguments"
            }
            _ => return self.beyond(value, number, text.as_deref()),
        };
        Some(format!("must be {wanted}, not {}.", kind_of(value)))
    }

    /// Returns what is wrong with a value of the right type.
    fn beyond(self, value: &Value, number: Option<f64>, text: Option<&[u8]>) -> Option<String> {
        let wanted = match (self, number) {
            (T::Count, Some(number)) if number.is_nan() || number <= 0.0 => "a number, 1 or more",
            (T::Seconds, Some(number)) if number.is_nan() || number < 0.0 => {
                "a number of seconds, 0 or more"
            }
            (T::SignedSeconds, Some(number)) if number.is_nan() => "a number of seconds, 0 or more",
            (T::Interval, Some(number)) if number.is_nan() || number <= 0.0 => {
                "a number of seconds above 0"
            }
            (T::Number, Some(number)) if number.is_nan() => "a number",
            (T::Bytes, Some(number)) if number.is_nan() => "a number of bytes",
            (T::Name | T::Path, _) if text == Some(b"") => {
                return Some("must not be empty.".to_owned());
            }
            (T::OneOf(texts), _) if !texts.iter().any(|known| Some(known.as_bytes()) == text) => {
                return Some(format!("must be {}.", one_of(texts, "\"")));
            }
            (T::Hook, _)
                if !value.is_function() && words(value).is_none_or(|words| words.is_empty()) =>
            {
                "a function or a list of a program and its arguments"
            }
            _ => return None,
        };
        Some(format!("must be {wanted}."))
    }
}

/// Returns a list of texts in quotes, the last one behind "or".
fn one_of(texts: &[&str], quote: &str) -> String {
    let closing: String = quote.chars().rev().collect();
    let quoted = texts.iter().map(|text| format!("{quote}{text}{closing}"));
    let mut quoted: Vec<String> = quoted.collect();
    let last = quoted.pop().unwrap_or_default();
    if quoted.is_empty() {
        last
    } else {
        format!("{} or {last}", quoted.join(", "))
    }
}

fn is_list_of_strings(value: &Value) -> bool {
    value.as_table().is_some_and(|list| {
        let mut items = list.sequence_values::<Value>();
        items.all(|item| item.is_ok_and(|item| item.is_string()))
    })
}

/// Returns the texts of a list; `None` if it contains something else.
fn words(value: &Value) -> Option<Vec<Vec<u8>>> {
    let list = value.as_table()?;
    let words = list.sequence_values::<Value>();
    words.map(|word| text_of(&word.ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(value_type: ValueType, value: &str) -> String {
        let lua = crate::sys::lua();
        let value: Value = lua.load(value).eval().unwrap();
        value_type.complaint(&value).unwrap_or_default()
    }

    #[test]
    fn values_of_the_right_type_pass() {
        for (value_type, value) in [
            (T::Count, "'5'"),
            (T::Count, "0.5"),
            (T::Seconds, "0"),
            (T::Seconds, "math.huge"),
            (T::SignedSeconds, "-1"),
            (T::Bytes, "-1"),
            (T::Text, "5"),
            (T::Text, "''"),
            (T::OptionalPath, "''"),
            (T::Texts, "{ 'a', 5 }"),
            (T::Crontab, "{ '@daily' }"),
            (T::Switch, "{}"),
            (T::Function, "print"),
            (T::Function, "false"),
            (T::Hook, "{ 'a' }"),
            (T::OneOf(&["a", "b"]), "'b'"),
            (T::Anything, "5"),
        ] {
            assert_eq!(complaint(value_type, value), "", "{value_type:?} {value}");
        }
    }

    #[test]
    fn values_of_another_type_are_refused() {
        for (value_type, value, text) in [
            (T::Count, "'x'", "must be a number, not a text."),
            (T::Count, "0", "must be a number, 1 or more."),
            (T::Seconds, "-1", "must be a number of seconds, 0 or more."),
            (
                T::SignedSeconds,
                "0/0",
                "must be a number of seconds, 0 or more.",
            ),
            (T::Interval, "0", "must be a number of seconds above 0."),
            (T::Text, "{}", "must be a text, not a table."),
            (T::Text, "'a\\0b'", "contains a NUL byte."),
            (T::Path, "''", "must not be empty."),
            (
                T::Texts,
                "{ {} }",
                "must be a text or a list of texts, not a table.",
            ),
            (T::Crontab, "5", "must be a list of texts."),
            (T::Crontab, "{ 5 }", "must be a list of texts."),
            (T::Gauge, "true", "must be a table or false, not true."),
            (T::Function, "5", "must be a function, not a number."),
            (
                T::Hook,
                "{}",
                "must be a function or a list of a program and its arguments.",
            ),
            (
                T::OneOf(&["a", "b", "c"]),
                "'x'",
                "must be \"a\", \"b\" or \"c\".",
            ),
        ] {
            assert_eq!(complaint(value_type, value), text, "{value_type:?} {value}");
        }
        assert!(
            complaint(T::Function, "true").starts_with("must be a function or false, not true.")
        );
    }
}
