//! docs/architecture.md names every file and every dependency; the manual pages, the help and
//! the completions every key and every option.

use std::fs;
use std::path::Path;

use crate::keys;
use crate::site::project;

fn text(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap()
}

/// Whether the word is in the text on its own, and not a part of another.
fn names(text: &str, word: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        let free = |byte: Option<u8>| !byte.is_some_and(part);
        free(before.bytes().next_back()) && free(after.bytes().next())
    })
}

fn missing<'a>(text: &str, words: impl IntoIterator<Item = &'a String>) -> Vec<&'a String> {
    let words = words.into_iter();
    words.filter(|word| !names(text, word)).collect()
}

#[test]
fn names_every_file_in_the_row_of_its_room() {
    fn look(directory: &Path, rooms: &str, missing: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                look(&path, rooms, missing);
                continue;
            }
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let room = directory.strip_prefix(project("src")).unwrap();
            let row = match room.to_string_lossy().as_ref() {
                "" | "bin" => rooms,
                room => of_room(rooms, room),
            };
            if name != "mod.rs" && name != "lib.rs" && !row.contains(&format!("`{name}`")) {
                missing.push(path.display().to_string());
            }
        }
    }
    /// A row without a room belongs to the one before.
    fn of_room<'a>(rooms: &'a str, room: &str) -> &'a str {
        let Some(begin) = rooms.find(&format!("\n| `{room}/`")) else {
            return "";
        };
        let rest = &rooms[begin + 1..];
        rest.find("\n| `").map_or(rest, |end| &rest[..end])
    }
    let map = text("docs/architecture.md");
    let rooms = map.split("## ").find(|part| part.starts_with("The rooms"));
    let mut missing = Vec::new();
    look(&project("src"), rooms.unwrap(), &mut missing);
    assert!(missing.is_empty(), "not on the map: {missing:?}");
}

#[test]
fn names_every_dependency() {
    let map = text("docs/architecture.md");
    let reasons = map.split("## Dependencies").nth(1).unwrap();
    let cargo = text("Cargo.toml");
    let sections = cargo.split("\n[").filter(|section| {
        section.starts_with("dependencies]") || section.starts_with("dev-dependencies]")
    });
    let crates: Vec<String> = sections
        .flat_map(str::lines)
        .filter_map(|line| Some(line.split_once(" = ")?.0.to_owned()))
        .collect();
    assert!(crates.iter().any(|name| name == "mlua"), "{crates:?}");
    let missing = missing(reasons, &crates);
    assert!(missing.is_empty(), "without a reason: {missing:?}");
}

#[test]
fn pages_have_every_key() {
    let page = text("docs/man/lsyncd.conf.lua.5").replace('\\', "");
    let known = keys::settings();
    let missing_settings = missing(&page, &known);
    assert!(
        missing_settings.is_empty(),
        "settings: {missing_settings:?}"
    );
    let known = keys::gauges();
    let last = |key: &String| key.rsplit('.').next().unwrap_or_default().to_owned();
    let known: Vec<String> = known.iter().map(last).collect();
    let missing = missing(&page, &known);
    assert!(missing.is_empty(), "keys of syncs: {missing:?}");
}

#[test]
fn options_are_in_the_help_the_page_and_the_completions() {
    let source = text("src/cli.rs");
    let options: Vec<String> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("b\"")?.split_once("\" =>"))
        .map(|(name, _)| name.to_owned())
        // What does nothing need not be found.
        .filter(|name| name != "runner")
        .collect();
    assert!(options.iter().any(|name| name == "check"), "{options:?}");
    let verbs: Vec<String> = "status top pause resume release flush resync retry reload log-level"
        .split(' ')
        .map(str::to_owned)
        .collect();
    let help = lsyncd::cli::help();
    let of_ctl = text("src/bin/lsyncdctl/args.rs");
    for (page, options) in [(&help, &options), (&of_ctl, &verbs)] {
        assert_eq!(missing(page, options), Vec::<&String>::new());
    }
    for (name, options) in [("lsyncd", &options), ("lsyncdctl", &verbs)] {
        let page = text(&format!("docs/man/{name}.1")).replace('\\', "");
        assert_eq!(missing(&page, options), Vec::<&String>::new());
        for shell in ["bash", "fish", "zsh"] {
            let words = text(&format!("packaging/completions/{name}.{shell}"));
            assert_eq!(missing(&words, options), Vec::<&String>::new(), "{shell}");
        }
    }
}
