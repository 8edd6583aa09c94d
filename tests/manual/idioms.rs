//! Typical configurations: each is run on a small tree, the tree is changed in all usual ways, and
//! in the end the target must equal the source.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::site::{Site, files_below};

mod layers;
mod lua;
mod transfers;

/// A configuration and the expected result.
pub struct Idiom {
    site: Site,
    config: &'static str,
    /// Sources and their targets.
    pairs: Vec<(&'static str, &'static str)>,
    /// Excluded names, which exist in the source only.
    hidden: Vec<&'static str>,
    /// True if a startup transfer runs.
    startup: bool,
    /// True if nothing is deleted on the target.
    keeps: bool,
    /// A file that must exist at the end.
    until: Option<&'static str>,
}

impl Idiom {
    /// Returns a mirror of `/data/www` in `/backup/www`; [`Idiom::pair`] changes both.
    pub fn new(config: &'static str) -> Idiom {
        Idiom {
            site: Site::new(),
            config,
            pairs: Vec::new(),
            hidden: Vec::new(),
            startup: true,
            keeps: false,
            until: None,
        }
    }

    pub fn pair(mut self, source: &'static str, target: &'static str) -> Idiom {
        self.pairs.push((source, target));
        self
    }

    pub fn hidden(mut self, names: &[&'static str]) -> Idiom {
        self.hidden.extend(names);
        self
    }

    /// Nothing is sent at the start.
    pub fn no_startup(mut self) -> Idiom {
        self.startup = false;
        self
    }

    /// Nothing is deleted at the target.
    pub fn keeps(mut self) -> Idiom {
        self.keeps = true;
        self
    }

    /// Waits for a file, too.
    pub fn until(mut self, path: &'static str) -> Idiom {
        self.until = Some(path);
        self
    }

    pub fn file(self, path: &str, text: &str) -> Idiom {
        self.site.write(path, &self.site.expand(text));
        self
    }

    pub fn script(self, path: &str, text: &str) -> Idiom {
        self.site.script(path, text);
        self
    }

    /// Runs the configuration to the end and returns the site.
    pub fn run(mut self) -> Site {
        if self.pairs.is_empty() {
            self.pairs.push(("/data/www", "/backup/www"));
        }
        for (source, target) in &self.pairs {
            self.site.write(&format!("{source}/old/deep/file"), "old");
            self.site.write(&format!("{target}/only here"), "target");
            for name in &self.hidden {
                self.site.write(&format!("{source}/{name}"), "hidden");
            }
        }
        self.site.start(self.config, &[]);
        if self.startup {
            self.wait_equal("equal trees at the start");
            if self.site.said().contains("recursive full rsync") {
                self.site.wait_said("finished");
            }
        } else {
            self.site.wait_said("--- Startup ---");
            self.wait_for_watches();
        }
        for (source, _) in self.pairs.clone() {
            self.change(source);
        }
        self.wait_equal("equal trees at the end");
        if let Some(path) = self.until {
            let has_text = |path| std::fs::metadata(path).is_ok_and(|found| found.len() > 0);
            self.site.wait(path, |site| has_text(site.path(path)));
        }
        assert_eq!(self.site.stop().code(), Some(143), "{}", self.site.said());
        self.site
    }

    /// Writes a file until it arrives: from then on the source is watched.
    fn wait_for_watches(&mut self) {
        for (source, target) in self.pairs.clone() {
            self.site.wait("the first change", |site| {
                site.write(&format!("{source}/first"), "first");
                site.path(&format!("{target}/first")).exists()
            });
        }
    }

    /// Makes all usual changes. Files that only the startup sends are not changed.
    fn change(&self, source: &str) {
        let at = |name: &str| self.site.path(&format!("{source}/{name}"));
        let write = |name: &str, text: &str| self.site.write(&format!("{source}/{name}"), text);
        write("new", "new");
        write("new", "changed");
        write("a/b/c/d", "deep");
        write("with blank & 'quote'", "strange");
        write("gone", "gone");
        fs::remove_file(at("gone")).unwrap();
        write("moved", "moved");
        fs::rename(at("moved"), at("moved on")).unwrap();
        fs::rename(at("a/b"), at("b")).unwrap();
        if self.startup {
            write("hello", "hello again");
            fs::rename(at("old/deep"), at("shallow")).unwrap();
            fs::remove_dir_all(at("old")).unwrap();
        }
        for name in &self.hidden {
            write(name, "still hidden");
        }
    }

    fn wait_equal(&mut self, what: &str) {
        let mirrors: Vec<_> = self.pairs.clone();
        let (hidden, startup, keeps) = (self.hidden.clone(), self.startup, self.keeps);
        self.site.wait(what, |site| {
            mirrors.iter().all(|(source, target)| {
                let mut source = tree(&site.path(source));
                let target = tree(&site.path(target));
                source.retain(|path, _| !hidden.iter().any(|name| path == Path::new(name)));
                if !startup {
                    source
                        .retain(|path, _| !ONLY_AT_THE_START.iter().any(|at| path.starts_with(at)));
                }
                let shown = hidden
                    .iter()
                    .any(|name| target.contains_key(Path::new(name)));
                let equal = if keeps || !startup {
                    source
                        .iter()
                        .all(|(path, text)| target.get(path) == Some(text))
                } else {
                    source == target
                };
                equal && !shown
            })
        });
    }
}

/// Files from before the start.
const ONLY_AT_THE_START: &[&str] = &["hello", "public", "old"];

/// Returns the contents of all files by relative path.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files_below(root)
        .into_iter()
        .map(|file| (file.strip_prefix(root).unwrap().to_owned(), file))
        .map(|(path, file)| (path, fs::read(file).unwrap_or_default()))
        .collect()
}
