//! The tables of the manual have every key that the program knows, and no other.

use std::collections::BTreeSet;
use std::fs;

use crate::site::{Site, project};

pub type Keys = BTreeSet<String>;

#[test]
fn of_settings_are_in_the_manual() {
    same(&settings(), &documented("## settings{}"));
}

/// All settings the program knows.
pub fn settings() -> Keys {
    let source = fs::read_to_string(project("src/config/settings_table.rs")).unwrap();
    let known: Keys = source
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("(\"")?
                .split_once("\", SettingKind::")
        })
        .map(|(key, _)| key.to_owned())
        .collect();
    assert!(known.contains("logfile"), "{known:?}");
    known
}

#[test]
fn of_syncs_are_in_the_manual() {
    let known = gauges();
    let of = |prefix: &str| -> Keys {
        let keys = known.iter().filter_map(|key| key.strip_prefix(prefix));
        keys.filter(|key| !key.contains('.'))
            .map(str::to_owned)
            .collect()
    };
    let mut syncs = of("");
    syncs.extend(["rsync", "ssh", "rclone", "startup"].map(str::to_owned));
    same(&syncs, &documented("## sync{}"));
    same(&of("rsync."), &documented("### rsync"));
    same(&of("ssh."), &documented("### ssh"));
    same(&of("rclone."), &documented("### default.rclone"));
}

/// All keys that one of the kinds knows; those of its tables with the table's name in front.
pub fn gauges() -> Keys {
    let mut site = Site::new();
    let config = r#"
        local function tell(gauge, prefix)
          for key, known in pairs(gauge) do
            if type(known) == "table" then
              tell(known, prefix .. key .. ".")
            elseif known then
              print("key " .. prefix .. key)
            end
          end
        end
        for _, kind in ipairs { default, default.rsync, default.rsyncssh, default.direct, default.rclone } do
          tell(kind.checkgauge, "")
        end
        os.exit(0)
    "#;
    site.start(config, &[]);
    assert_eq!(site.wait_end().code(), Some(0), "{}", site.said());
    let said = site.said();
    said.lines()
        .filter_map(|line| line.strip_prefix("key "))
        .map(str::to_owned)
        .collect()
}

/// The keys in the first columns of a section's tables; not those of sections below it with
/// tables of their own.
fn documented(heading: &str) -> Keys {
    let manual = fs::read_to_string(project("docs/configuration.md")).unwrap();
    manual
        .lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(key, _)| key.to_owned())
        .collect()
}

fn same(known: &Keys, documented: &Keys) {
    let missing: Vec<_> = known.difference(documented).collect();
    let unknown: Vec<_> = documented.difference(known).collect();
    assert!(missing.is_empty(), "not in the manual: {missing:?}");
    assert!(unknown.is_empty(), "only in the manual: {unknown:?}");
}
