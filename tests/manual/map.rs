//! The `mod.rs` of each room lists its files, docs/architecture.md lists every room and dependency,
//! and the manual pages, the help texts and the completions contain every option.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::site::project;

fn text(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap()
}

/// Returns true if the text contains the word, not only as a part of another word.
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

/// The head file of a folder below `src`, whose documentation names the folder's files.
fn head(folder: &Path) -> PathBuf {
    let heads = ["mod.rs", "lib.rs", "main.rs"].map(|name| folder.join(name));
    heads.into_iter().find(|file| file.is_file()).unwrap()
}

/// The parts of a room that the documentation of its head file lists, as rows of a table of files
/// or rooms or as items of a list, and what is said of them.
fn listed(head: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(head).unwrap();
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    let mut rows: Vec<String> = Vec::new();
    let (mut is_open, mut is_of_parts) = (false, false);
    for line in lines {
        let line = line.strip_prefix(' ').unwrap_or(line);
        if line.starts_with("| ") && !line.contains('`') {
            is_of_parts = line.starts_with("| file |") || line.starts_with("| room |");
        }
        let begins = line.starts_with("| ") && is_of_parts || line.starts_with("* ");
        is_open = begins || (is_open && line.starts_with("  "));
        if begins {
            rows.push(line.to_owned());
        } else if is_open {
            rows.last_mut().unwrap().push_str(line);
        }
    }
    let mut listed = Vec::new();
    for row in &rows {
        let cells = match row.strip_prefix("| ") {
            Some(cells) => cells.split_once('|'),
            None => row.split_once(':'),
        };
        let (names, about) = cells.unwrap_or_default();
        let about = about.trim_matches([' ', '|']);
        let names = names.split('`').skip(1).step_by(2).map(name);
        listed.extend(names.map(|name| (name, about.to_owned())));
    }
    listed
}

/// A name in backticks, without what only the links of rustdoc need.
fn name(word: &str) -> String {
    word.trim_start_matches("mod@").to_owned()
}

/// The files and folders of a room, each as its module is called.
fn parts(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let stems = entries.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned());
    stems
        .filter(|stem| !["mod", "lib", "main", "bin"].contains(&stem.as_str()))
        .collect()
}

#[test]
fn every_room_lists_its_files() {
    fn look(folder: &Path, wrong: &mut Vec<String>) {
        let entries = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        for path in entries.filter(|path| path.is_dir()) {
            look(&path, wrong);
        }
        if folder.ends_with("bin") {
            return;
        }
        let (head, parts) = (head(folder), parts(folder));
        let listed = listed(&head);
        let mut say = |what: &str, part: &str| {
            wrong.push(format!("{}: `{part}` {what}", head.display()));
        };
        for part in &parts {
            match listed.iter().filter(|(name, _)| name == part).count() {
                0 => say("is not listed", part),
                1 => {}
                _ => say("is listed more than once", part),
            }
        }
        for (name, about) in &listed {
            if !parts.contains(name) {
                say("does not exist", name);
            }
            if about.is_empty() {
                say("holds nothing", name);
            }
        }
    }
    let mut wrong = Vec::new();
    look(&project("src"), &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_map_has_a_row_for_each_room() {
    let map = text("docs/architecture.md");
    let rooms = map.split("## ").find(|part| part.starts_with("The rooms"));
    let rows = rooms.unwrap().lines().filter_map(|line| {
        let name = line.strip_prefix("| `")?.split('`').next()?;
        Some(
            name.trim_end_matches(".rs")
                .trim_end_matches('/')
                .to_owned(),
        )
    });
    let rows: Vec<String> = rows.filter(|row| !row.contains('/')).collect();
    let order = listed(&project("src/lib.rs"))
        .into_iter()
        .map(|(name, _)| name);
    assert_eq!(rows, order.collect::<Vec<_>>());
}

#[test]
fn the_map_names_every_dependency() {
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

/// Returns the commands of lsyncdctl and their options, as its help has them.
fn verbs(source: &str) -> Vec<String> {
    let (_, help) = source.split_once("COMMANDS, ").unwrap();
    let (help, _) = help.split_once("OPTIONS:").unwrap();
    let lines = help.lines().filter_map(|line| {
        let name = line.strip_prefix("  ")?;
        let option = name.strip_prefix("  -");
        let is_name = !name.starts_with(' ') || option.is_some();
        let word = option.unwrap_or(name).split_whitespace().next();
        word.filter(|_| is_name)
    });
    let mut verbs: Vec<String> = lines.map(str::to_owned).collect();
    verbs.sort();
    verbs.dedup();
    verbs
}

#[test]
fn options_are_in_the_help_the_page_and_the_completions() {
    let source = text("src/cli/mod.rs");
    let options: Vec<String> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("b\"")?.split_once("\" =>"))
        .map(|(name, _)| name.to_owned())
        // An option without effect is not documented.
        .filter(|name| name != "runner")
        .collect();
    assert!(options.iter().any(|name| name == "check"), "{options:?}");
    let of_ctl = text("src/bin/lsyncdctl/args.rs");
    let verbs = verbs(&of_ctl);
    assert!(verbs.iter().any(|verb| verb == "log-level"), "{verbs:?}");
    let help = lsyncd::cli::help();
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

/// The alert rules are valid, and fire in the situations that their tests describe.
#[test]
fn alert_rules_pass_their_tests() {
    let run = |words: &[&str]| {
        std::process::Command::new("promtool")
            .args(words)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/prometheus"))
            .output()
    };
    let Ok(output) = run(&["check", "rules", "lsyncd.rules.yml"]) else {
        return crate::support::dir::skip("promtool is not installed");
    };
    for output in [output, run(&["test", "rules", "lsyncd.test.yml"]).unwrap()] {
        let text = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&text)
        );
    }
}

/// The rooms of docs/architecture.md, from top to bottom.
fn rooms() -> Vec<String> {
    let map = text("docs/architecture.md");
    let rows = map.lines().filter_map(|line| line.strip_prefix("| `"));
    let rooms = rows.filter_map(|row| row.split_once('`')?.0.split(['/', '.']).next());
    let mut rooms: Vec<_> = rooms.map(str::to_owned).collect();
    rooms.dedup();
    rooms
}

#[test]
fn a_room_calls_only_those_below_it() {
    let rooms = rooms();
    let place = |name: &str| rooms.iter().position(|room| room == name);
    let mut wrong = BTreeSet::new();
    let mut calls = 0;
    for (name, at) in rooms.iter().zip(0..) {
        let mut files = vec![project(&format!("src/{name}.rs"))];
        let mut folders = vec![project(&format!("src/{name}"))];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path)
                } else {
                    files.push(path)
                }
            }
        }
        for file in files.iter().filter(|file| file.is_file()) {
            let all = fs::read_to_string(file).unwrap_or_default();
            // Tests may use all rooms.
            let code = all.split("#[cfg(test)]\nmod ").next().unwrap();
            let lines = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            for line in lines {
                for part in line.split("crate::").skip(1) {
                    let end = part.find(|c: char| !c.is_alphanumeric() && c != '_');
                    let called = &part[..end.unwrap_or(part.len())];
                    calls += 1;
                    if place(called).is_some_and(|other| other < at) {
                        wrong.insert(format!("{} calls {called}", file.display()));
                    }
                }
            }
        }
    }
    assert!(calls > 500, "{calls}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
