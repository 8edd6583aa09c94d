//! Hints for common mistakes in configurations, appended to Lua's error messages.

use super::lua_source;

/// Lua names the line of an error or the one after it.
const MAX_LINES_BEFORE: usize = 2;

/// Returns the hint for a syntax error in a configuration with this text, beginning with the end of
/// the message's sentence.
pub fn for_syntax(message: &str, text: &str) -> Option<String> {
    let near = near(message)?;
    if near.starts_with("<\\") {
        let line = text.lines().nth(line_number(message)?.checked_sub(1)?)?;
        return foreign_character(line);
    }
    if message.contains("malformed number near") {
        return Some(". A number has no unit.".to_owned());
    }
    if message.contains("unexpected symbol near") {
        return ["#", "//", "/"]
            .contains(&near)
            .then(|| ". A comment begins with \"--\".".to_owned());
    }
    if message.contains("<name> expected near") && near.starts_with(['"', '\'', '{']) {
        return Some(". A key and its value have \"=\" between them.".to_owned());
    }
    if message.contains("'}' expected") && follows_foreign_comment(message, text) {
        return Some(". A comment begins with \"--\".".to_owned());
    }
    match near {
        "=" if message.contains("')' expected") => {
            Some(". The keys are written in braces: sync{ ... }, settings{ ... }.".to_owned())
        }
        "=" if message.contains("'}' expected") => {
            Some(". A key is a name without quotes, or in brackets: [\"...\"] = ...".to_owned())
        }
        "<eof>" => None,
        _ if message.contains("'}' expected") && follows_key(message, text, near) => {
            Some(". A key and its value have \"=\" between them.".to_owned())
        }
        _ if message.contains("'}' expected") && is_beginning_of_item(near) => {
            Some(format!(". Perhaps a comma is missing before {near}."))
        }
        _ => None,
    }
}

/// Returns true if the token behind a key without `=`, as in `delay 5`, is the one near which Lua fails.
fn follows_key(message: &str, text: &str, near: &str) -> bool {
    let is_key = || {
        let line = text.lines().nth(line_number(message)?.checked_sub(1)?)?;
        if near.starts_with(['{', '[']) {
            return None;
        }
        let (before, behind) = line.split_at_checked(line.find(near)?)?;
        let before = before.trim_end();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let before_name = before.trim_end_matches(is_name);
        let begins_item =
            before_name.trim().is_empty() || before_name.trim_end().ends_with([',', ';', '{']);
        // What has a value itself is the key of the next item.
        let has_value = behind[near.len()..].trim_start().starts_with('=');
        Some(before_name != before && begins_item && !has_value)
    };
    is_key().unwrap_or(false)
}

/// Returns the hint for a run time error of a configuration, beginning with the end of the
/// message's sentence.
pub fn for_runtime(message: &str) -> Option<String> {
    ["settings", "sync"].into_iter().find_map(|name| {
        let used = format!("index a function value (global '{name}')");
        message.contains(&used).then(|| match name {
            "settings" => ". Write settings{ KEY = VALUE }.".to_owned(),
            _ => ". Write sync{ KEY = VALUE }.".to_owned(),
        })
    })
}

/// Returns the last token the message names, without quotes.
fn near(message: &str) -> Option<&str> {
    let (_, near) = message.rsplit_once(" near ")?;
    Some(match near.strip_prefix('\'') {
        Some(rest) => rest.strip_suffix('\'').unwrap_or(rest),
        None => near,
    })
}

/// Returns the number in `FILE:NUMBER: TEXT`.
fn line_number(message: &str) -> Option<usize> {
    let mut parts = message.split(':');
    parts.find_map(|part| part.parse().ok())
}

/// Words of other languages for `true`, `false` and `nil`. To Lua they are variables without a
/// value, so a key that is set to one keeps its default.
const FOREIGN_VALUES: &[(&str, &str)] = &[
    ("FALSE", "false"),
    ("False", "false"),
    ("NULL", "nil"),
    ("No", "false"),
    ("None", "nil"),
    ("TRUE", "true"),
    ("True", "true"),
    ("Yes", "true"),
    ("no", "false"),
    ("null", "nil"),
    ("off", "false"),
    ("on", "true"),
    ("yes", "true"),
];

/// Returns the line number and a hint for each key that is set to such a word, unless the text
/// gives the word a value.
pub fn for_foreign_values(text: &str) -> Vec<(usize, String)> {
    let hint = |(line, word): (usize, &str)| {
        let (_, meant) = FOREIGN_VALUES
            .iter()
            .find(|(foreign, _)| *foreign == word)?;
        let hint = format!(
            "{word} is a variable that is not set, so the key has its default; write {meant}"
        );
        (!lua_source::is_assigned(text, word)).then_some((line, hint))
    };
    let names = lua_source::assigned_names(text);
    names.into_iter().filter_map(hint).collect()
}

/// Returns true if one of the last lines up to the error begins with `#`.
fn follows_foreign_comment(message: &str, text: &str) -> bool {
    let before: Vec<&str> = text
        .lines()
        .take(line_number(message).unwrap_or(0))
        .collect();
    let mut last = before.iter().rev().take(MAX_LINES_BEFORE);
    last.any(|line| line.trim_start().starts_with('#'))
}

/// Returns true for a name, a string, a number or a table.
fn is_beginning_of_item(token: &str) -> bool {
    token.starts_with(|c: char| c == '_' || c.is_ascii_alphanumeric() || "\"'{[".contains(c))
}

fn foreign_character(line: &str) -> Option<String> {
    let code = line.split_once("--").map_or(line, |(code, _)| code);
    let found = |line: &str| line.chars().find(|c| !c.is_ascii());
    let character = found(code).or_else(|| found(line))?;
    let number = u32::from(character);
    Some(match character {
        '\u{2018}'..='\u{201f}' | '\u{ab}' | '\u{bb}' | '\u{2039}' | '\u{203a}' => {
            format!(
                ". Texts are written in plain quotes \"...\", not in {character} (U+{number:04X})."
            )
        }
        '\u{2010}'..='\u{2015}' => {
            format!(". The line has a dash {character} (U+{number:04X}) instead of \"-\".")
        }
        c if c.is_whitespace() || c == '\u{feff}' || ('\u{200b}'..='\u{200f}').contains(&c) => {
            format!(". The line has an invisible character (U+{number:04X}).")
        }
        c => format!(". The character {c} (U+{number:04X}) is permitted in texts in quotes only."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the message for a configuration with a syntax error.
    fn said(text: &str) -> String {
        let lua = crate::sys::lua();
        let error = lua
            .load(text)
            .set_name("@/c.lua")
            .into_function()
            .unwrap_err();
        let message = crate::script::errors::plain(&error);
        for_syntax(&message, text).unwrap_or_default()
    }

    #[test]
    fn syntax_errors_come_with_what_to_write() {
        for (text, part) in [
            ("sync{ a = 1\n b = 2 }", "a comma is missing before b."),
            ("sync{ a\n\"x\" = 2 }", "without quotes"),
            (
                "sync{ default.rsync\n source = 2 }",
                "a comma is missing before source.",
            ),
            ("sync{ a = { 'x' 'y' } }", "a comma is missing before"),
            ("sync{ default.rsync, delay 5 }", "have \"=\" between them."),
            ("sync{\n  delay 5,\n}", "have \"=\" between them."),
            ("sync{ delay true }", "have \"=\" between them."),
            ("sync{ a = 1, b = { } { } }", "a comma is missing before {."),
            ("sync{ a = 5s }", "A number has no unit"),
            ("sync{ a = “x” }", "not in \u{201c} (U+201C)"),
            ("\n\nsync{ a = „x“ }", "not in \u{201e} (U+201E)"),
            ("sync{ a = «x» }", "not in \u{ab} (U+00AB)"),
            ("sync{\u{a0}a = 1 }", "invisible character (U+00A0)"),
            ("x = 1 – 2", "a dash \u{2013} (U+2013)"),
            ("sync{ a = ü }", "The character ü (U+00FC)"),
            ("# x\n# y", "A comment begins with"),
            ("// x", "A comment begins with"),
            (
                "sync{\n a,\n # my source\n source = 1 }",
                "A comment begins with",
            ),
            ("sync{\n # x\n a = 1\n\n\n b = 2 }", "A comment begins with"),
            ("sync{ source: '/x' }", "have \"=\" between them"),
            ("sync( a = 1 )", "are written in braces"),
            ("sync{ 'a' = 1 }", "without quotes"),
            ("sync{ a = 1", ""),
            ("x = = 1", ""),
        ] {
            let said = said(text);
            assert!(said.contains(part), "{text}: {said}");
            assert_eq!(said.is_empty(), part.is_empty(), "{text}: {said}");
        }
    }

    #[test]
    fn values_of_other_languages_get_a_hint() {
        for (text, line, part) in [
            ("sync{ delete = False }", 1, "write false"),
            (
                "sync{\n a = 1,\n delete = no, -- never\n}",
                3,
                "write false",
            ),
            ("settings{ insist = yes; x = 1 }", 1, "write true"),
            ("x = { archive=True }", 1, "write true"),
            ("t['a'] = None", 1, "write nil"),
            ("x = [[ a\n b ]]\ny = { a = off }", 3, "write false"),
        ] {
            let found = for_foreign_values(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert_eq!(found[0].0, line, "{text}");
            assert!(found[0].1.contains(part), "{text}: {found:?}");
        }
        for text in [
            "sync{ delete = false }",
            "-- delete = False",
            "x = \"delete = no\"",
            "local on = true\nsync{ insist = on }",
            "yes = 'y'\nx = yes",
            "if x == no then end",
            "x = no.thing",
            "x = on(1)",
            "inotifyMode = Modify",
            "sync{ onCreate = [[\n flag=yes\n x=no; true ]] }",
            "--[[ delete = no ]]",
        ] {
            assert_eq!(for_foreign_values(text), [], "{text}");
        }
    }

    #[test]
    fn a_function_that_is_taken_for_a_table_gets_a_hint() {
        for name in ["settings", "sync"] {
            let message = format!("/c:1: attempt to index a function value (global '{name}')");
            let said = for_runtime(&message).unwrap();
            assert!(said.contains(&format!("{name}{{ KEY = VALUE }}")), "{said}");
        }
        assert_eq!(
            for_runtime("attempt to index a nil value (global 'x')"),
            None
        );
    }
}
