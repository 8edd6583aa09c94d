//! Links of documents to headings are valid.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::site::{files_below, project};

#[test]
fn links_to_headings_are_valid() {
    let mut documents = files_below(&project("docs"));
    let top = fs::read_dir(project("")).unwrap();
    documents.extend(top.flatten().map(|entry| entry.path()));
    documents.retain(|file| file.extension().is_some_and(|end| end == "md"));
    let mut checked = 0;
    for document in &documents {
        let text = fs::read_to_string(document).unwrap();
        let links = text.split("](").skip(1);
        for link in links.filter_map(|rest| rest.split(')').next()) {
            let Some((file, heading)) = link.split_once('#') else {
                continue;
            };
            if link.contains("://") {
                continue;
            }
            let target = target(document, file);
            let known = headings(&target);
            assert!(known.contains(heading), "{}: {link}", document.display());
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked}");
}

fn target(document: &Path, file: &str) -> PathBuf {
    match file {
        "" => document.to_owned(),
        _ => document.parent().unwrap().join(file),
    }
}

/// Returns the names of the headings, as GitHub makes them.
fn headings(document: &Path) -> HashSet<String> {
    let text = fs::read_to_string(document).unwrap();
    let mut is_code = false;
    let mut names = HashSet::new();
    for line in text.lines() {
        is_code ^= line.starts_with("```");
        if is_code || !line.starts_with('#') {
            continue;
        }
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let is_kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
        names.insert(
            title
                .chars()
                .filter(is_kept)
                .collect::<String>()
                .replace(' ', "-"),
        );
    }
    names
}
