//! The contents of packages, and values that are set in one place only.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::site::{files_below, project};

fn text(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap()
}

/// A value of `[package]` in Cargo.toml.
fn setting(key: &str) -> String {
    let cargo = text("Cargo.toml");
    let mut lines = cargo.lines();
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    value.unwrap().trim_matches(['[', ']', '"']).to_owned()
}

/// Returns the files of a package with their installed paths.
fn installed(kind: &str) -> BTreeMap<PathBuf, PathBuf> {
    let cargo = text("Cargo.toml");
    let mut files = BTreeMap::new();
    for line in cargo.lines() {
        let words: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        let is_asset = match kind {
            "deb" => line.starts_with("    [\""),
            _ => line.starts_with("    { source = "),
        };
        let [from, to, _, ..] = words.as_slice() else {
            continue;
        };
        if !is_asset || from.starts_with("target/") {
            continue;
        }
        let to = PathBuf::from(format!("/{}", to.trim_start_matches('/')));
        let (directory, pattern) = from.rsplit_once('/').unwrap_or(("", from));
        let end = pattern.strip_prefix('*');
        let listed = fs::read_dir(project(directory)).unwrap().flatten();
        let names = listed.map(|entry| entry.file_name().into_string().unwrap());
        for name in names.filter(|name| end.map_or(name == pattern, |end| name.ends_with(end))) {
            let source = Path::new(directory).join(&name);
            if project(source.to_str().unwrap()).is_file() {
                let is_directory =
                    line.contains(&format!("{}/\"", to.to_str().unwrap().trim_matches('/')));
                let place = if is_directory {
                    to.join(&name)
                } else {
                    to.clone()
                };
                files.insert(source, place);
            }
        }
    }
    assert!(files.len() > 30, "{files:?}");
    files
}

/// A path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[test]
fn packages_contain_the_files_that_their_documents_link_to() {
    let mut missing = Vec::new();
    for kind in ["deb", "rpm"] {
        let files = installed(kind);
        let places: Vec<&PathBuf> = files.values().collect();
        let is_there = |place: &Path| places.iter().any(|file| file.starts_with(place));
        for (source, place) in &files {
            let name = source.to_str().unwrap();
            if !name.ends_with(".md") {
                continue;
            }
            let text = text(name);
            let links = text
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split(')').next());
            for link in links.filter(|link| !link.starts_with(['#', '<']) && !link.contains("://"))
            {
                let to = link.split('#').next().unwrap();
                if !is_there(&plain(&place.parent().unwrap().join(to))) {
                    missing.push(format!("{kind}: {name} links to {link}"));
                }
            }
        }
        // Pages name files of the package by their installed paths.
        for (source, _) in files
            .iter()
            .filter(|(source, _)| source.starts_with("docs"))
        {
            let text = text(source.to_str().unwrap());
            for (at, _) in text.match_indices("/usr/share/doc/lsyncd") {
                let end = |c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c));
                let path = text[at..].split(end).next().unwrap().trim_end_matches('.');
                if !is_there(Path::new(path)) {
                    missing.push(format!("{kind}: {} names {path}", source.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn both_packages_contain_the_same_documents() {
    let documents = |kind| {
        let files = installed(kind);
        let is_document = |file: &&PathBuf| file.starts_with("/usr/share/doc");
        files
            .values()
            .filter(is_document)
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(documents("deb"), documents("rpm"));
}

#[test]
fn maintainer_and_home_page_are_set_in_one_file() {
    let maintainer = setting("authors");
    let address = maintainer.split(['<', '>']).nth(1).unwrap();
    let home = setting("homepage");
    let mut named = Vec::new();
    let tree = ["docs", "packaging", "src", "lua", "tests"].map(|name| files_below(&project(name)));
    let tops = fs::read_dir(project(""))
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    for path in tree
        .into_iter()
        .flatten()
        .chain(tops.filter(|path| path.is_file()))
    {
        let path = path.strip_prefix(project("")).unwrap().to_owned();
        let text = fs::read(project(path.to_str().unwrap())).unwrap();
        let text = String::from_utf8_lossy(&text);
        if path.starts_with("packaging/out") {
            continue;
        }
        if text.contains(address) {
            named.push((path.clone(), "the maintainer"));
        }
        if text.contains(&home) {
            named.push((path, "the home page"));
        }
    }
    named.sort();
    // The changelog names the maintainer of a release, and the README the repository.
    let expected = [
        ("Cargo.toml", "the home page"),
        ("Cargo.toml", "the maintainer"),
        ("README.md", "the home page"),
        ("packaging/debian/changelog", "the maintainer"),
    ];
    assert_eq!(
        named,
        expected.map(|(path, what)| (PathBuf::from(path), what))
    );
    let changelog = text("packaging/debian/changelog");
    let newest = changelog
        .lines()
        .find(|line| line.starts_with(" -- "))
        .unwrap();
    assert!(
        newest.starts_with(&format!(" -- {maintainer}  ")),
        "{newest}"
    );
    let version = format!("lsyncd ({}-1)", setting("version"));
    assert!(changelog.starts_with(&version), "{changelog}");
}

#[test]
fn a_tree_is_installed_from_the_same_list() {
    let root = tempfile::tempdir().unwrap();
    let built = root.path().join("built/release");
    fs::create_dir_all(&built).unwrap();
    for name in ["lsyncd", "lsyncdctl"] {
        fs::write(built.join(name), "").unwrap();
    }
    for (kind, words) in [("deb", &[][..]), ("rpm", &["--rpm"])] {
        let to = root.path().join(kind);
        let status = Command::new(project("packaging/install.sh"))
            .args(words)
            .arg(&to)
            .env("CARGO_TARGET_DIR", root.path().join("built"))
            .status();
        assert!(status.unwrap().success());
        let mut expected: Vec<PathBuf> = installed(kind).into_values().collect();
        expected.extend(["lsyncd", "lsyncdctl"].map(|name| Path::new("/usr/bin").join(name)));
        expected.sort();
        let below = files_below(&to).into_iter();
        let mut found: Vec<_> = below
            .map(|path| Path::new("/").join(path.strip_prefix(&to).unwrap()))
            .collect();
        found.sort();
        assert_eq!(found, expected, "{kind}");
    }
}
