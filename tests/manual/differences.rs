//! The tests that `docs/differences.md` names exist.

use std::fs;
use std::path::{Path, PathBuf};

use crate::site::{files_below, project};

#[test]
fn named_tests_exist() {
    let text = fs::read_to_string(project("docs/differences.md")).unwrap();
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| ") && line.ends_with(" |"));
    let mut named = 0;
    let mut missing = Vec::new();
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let mut place = String::new();
        for test in tests.split('`').skip(1).step_by(2) {
            // In the module of the previous test.
            let test = match test.strip_prefix("…::") {
                Some(name) => format!("{place}::{name}"),
                None => test.to_owned(),
            };
            named += 1;
            if !exists(&test) {
                missing.push(test.clone());
            }
            place = test
                .rsplit_once("::")
                .map_or(test.clone(), |(place, _)| place.into());
        }
    }
    assert!(named > 20, "{named}");
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

/// Returns true if there is a program, module or function of this name. A name that ends with `…`
/// is a prefix; a script has its path.
pub fn exists(test: &str) -> bool {
    if test.ends_with(".sh") {
        return project(test).is_file();
    }
    let mut parts = test.split("::");
    let program = parts.next().unwrap();
    let roots = ["tests", "src"].map(|root| project(root).join(program));
    let Some(root) = roots.into_iter().find(|root| module(root).is_some()) else {
        return false;
    };
    let mut at = root;
    for part in parts {
        let below = at.join(part);
        if module(&below).is_some() {
            at = below;
            continue;
        }
        let sources: String = module(&at)
            .unwrap()
            .iter()
            .map(|file| fs::read_to_string(file).unwrap_or_default())
            .collect();
        let wanted = match part.strip_suffix('…') {
            Some(beginning) => format!("fn {beginning}"),
            None => format!("fn {part}("),
        };
        // Macros define test functions as well, each by a line with its name.
        let others = [format!("mod {part}"), format!("\n    {part} ")];
        if !sources.contains(&wanted) && !others.iter().any(|other| sources.contains(other)) {
            return false;
        }
    }
    true
}

/// Returns the files of a module: its own, and all in its directory.
fn module(path: &Path) -> Option<Vec<PathBuf>> {
    let mut files = files_below(path);
    let own = path.with_extension("rs");
    if own.is_file() {
        files.push(own);
    }
    (!files.is_empty()).then_some(files)
}
