//! A list of keys in a manual page.

use lsyncd::config::keys::{Key, Kinds, plain, without_links};

/// Returns a list with the keys of nested tables indented, except those with sections of their own.
pub fn list(_name: &str, keys: &[&Key]) -> String {
    let mut list = String::new();
    for key in keys {
        list.push_str(".TP\n");
        list.push_str(&format!("\\fB{}\\fR", escaped(key.name)));
        let notes = notes(key);
        if !notes.is_empty() {
            list.push_str(&format!(" ({})", escaped(&notes)));
        }
        list.push('\n');
        list.push_str(&text(&key.meaning()));
        let below = key.value.keys().unwrap_or_default();
        if !below.is_empty() && !["rsync", "ssh"].contains(&key.name) {
            let below: Vec<&Key> = below.iter().collect();
            list.push_str(".RS\n");
            list.push_str(&self::list("", &below));
            list.push_str(".RE\n");
        }
    }
    list
}

/// Returns the default and the kinds of a key.
fn notes(key: &Key) -> String {
    let default = plain(key.default);
    let kinds = match key.kinds {
        kinds if kinds.has(Kinds::OWN) => String::new(),
        kinds => kinds
            .names()
            .map(|kind| format!("default.{kind}"))
            .collect::<Vec<_>>()
            .join(", "),
    };
    let notes = [default, kinds].into_iter().filter(|note| !note.is_empty());
    notes.collect::<Vec<_>>().join("; ")
}

/// Returns a meaning, one line for each sentence, with code in bold.
fn text(markdown: &str) -> String {
    let mut text = String::new();
    for (index, part) in without_links(markdown).split('`').enumerate() {
        if index % 2 == 1 {
            text.push_str(&format!("\\fB{}\\fR", escaped(part)));
        } else {
            text.push_str(&escaped(part).replace(". ", ".\n"));
        }
    }
    let lines = text.lines().map(|line| {
        let protection = if line.starts_with(['.', '\'']) {
            "\\&"
        } else {
            ""
        };
        format!("{protection}{line}\n")
    });
    lines.collect()
}

fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    text.replace('"', "\\(dq")
        .replace('…', "...")
        .replace('–', "\\-")
}
