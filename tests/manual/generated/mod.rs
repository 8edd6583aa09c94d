//! The parts of files that are made from the table of keys are up to date.
//!
//! A part stands between a line with `keys: NAME` and a line with `keys end`, in comments of the
//! file. `LSYNCD_UPDATE=1 cargo test --test manual generated` writes them anew.

use std::fs;

use lsyncd::config::keys::{
    BACKUP, CHECK, GUARD, Key, Kinds, RCLONE, RSYNC, SETTINGS, SSH, STARTUP, SYNC, TUNNEL, VERIFY,
    schema,
};

use crate::site::project;

mod luals;
mod man;
mod markdown;

/// Returns a part of a file, from its name and its keys.
type Render = fn(&str, &[&Key]) -> String;

/// The files, and how a table looks in them.
const FILES: [(&str, Render); 4] = [
    ("docs/configuration.md", markdown::table),
    ("docs/check.md", markdown::table),
    ("docs/man/lsyncd.conf.lua.5", man::list),
    ("packaging/editor/lsyncd.d.lua", luals::class),
];

#[test]
fn parts_of_files_are_those_of_the_table_of_keys() {
    for (file, render) in FILES {
        let path = project(file);
        let text = fs::read_to_string(&path).unwrap();
        let made = filled(&text, render);
        assert!(made.matches("keys end").count() > 0, "{file}");
        if std::env::var_os("LSYNCD_UPDATE").is_some() {
            fs::write(&path, made).unwrap();
        } else {
            assert!(
                made == text,
                "{file} is not up to date. Run: LSYNCD_UPDATE=1 cargo test --test manual generated"
            );
        }
    }
}

/// Returns the text with its parts made anew.
fn filled(text: &str, render: Render) -> String {
    let mut made = String::new();
    let mut inside = false;
    for line in text.lines() {
        inside &= !line.contains("keys end");
        if inside {
            continue;
        }
        made.push_str(line);
        made.push('\n');
        if let Some((_, name)) = line.split_once("keys: ") {
            let name = name.split_whitespace().next().unwrap();
            made.push_str(&render(name, &part(name)));
            inside = true;
        }
    }
    assert!(!inside, "a part has no end");
    made
}

/// Kinds whose keys stand in parts before that of default.rsyncssh.
const COMMON: Kinds = Kinds::OWN.and(Kinds::RSYNC);

/// Returns the keys of a part.
fn part(name: &str) -> Vec<&'static Key> {
    let syncs = |of: fn(Kinds) -> bool| SYNC.iter().filter(|key| of(key.kinds)).collect();
    match name {
        "settings" => SETTINGS.iter().collect(),
        "sync" => SYNC.iter().collect(),
        "sync-all" => syncs(|kinds| kinds.has(Kinds::OWN)),
        "sync-rsync" => syncs(|kinds| !kinds.has(Kinds::OWN) && kinds.has(Kinds::RSYNC)),
        "sync-rclone" => syncs(|kinds| kinds == Kinds::RCLONE),
        "sync-rsyncssh" => syncs(|kinds| kinds.has(Kinds::RSYNCSSH) && !kinds.has(COMMON)),
        "startup" => STARTUP.iter().collect(),
        "rsync" => RSYNC.iter().collect(),
        "ssh" => SSH.iter().collect(),
        "rclone" => RCLONE.iter().collect(),
        "backup" => BACKUP.iter().collect(),
        "verify" => VERIFY.iter().collect(),
        "guard" => GUARD.iter().collect(),
        "check" => CHECK.iter().collect(),
        "tunnel" => TUNNEL.iter().collect(),
        other => panic!("no part {other}"),
    }
}

#[test]
fn every_key_of_a_sync_is_in_one_part() {
    let parts = ["sync-all", "sync-rsync", "sync-rclone", "sync-rsyncssh"];
    let count: usize = parts.iter().map(|name| part(name).len()).sum();
    assert_eq!(count, SYNC.len());
}

/// Lua accepts the definitions for editors, and they define all their classes.
#[test]
fn definitions_for_editors_are_lua() {
    let text = fs::read_to_string(project("packaging/editor/lsyncd.d.lua")).unwrap();
    let lua = mlua::Lua::new();
    lua.load(&text).exec().unwrap();
    let words = text.split(|c: char| c != '.' && !c.is_alphanumeric());
    let names = words.filter_map(|word| Some((word, word.strip_prefix("lsyncd.")?)));
    for (name, _) in names.filter(|(_, class)| class.starts_with(char::is_uppercase)) {
        let is_class = |line: &str| {
            let class = line.strip_prefix("---@class ");
            let class = class.map(|class| class.trim_start_matches("(exact) "));
            class.is_some_and(|class| class.split(':').next() == Some(name))
        };
        assert!(text.lines().any(is_class), "no class {name}");
    }
}

#[test]
fn all_keys_are_printed_as_json() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    for (table, keys) in [("settings", SETTINGS), ("sync", SYNC), ("tunnel", TUNNEL)] {
        let printed = schema[table].as_array().unwrap();
        assert_eq!(printed.len(), keys.len());
        for (entry, key) in printed.iter().zip(keys) {
            assert_eq!(entry["key"], key.name);
            assert!(!entry["meaning"].as_str().unwrap().is_empty(), "{entry}");
        }
    }
    let rsync = schema["sync"].as_array().unwrap();
    let rsync = rsync.iter().find(|entry| entry["key"] == "rsync").unwrap();
    assert_eq!(rsync["keys"].as_array().unwrap().len(), RSYNC.len());
}
