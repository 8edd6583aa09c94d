//! Refuses local targets whose use would destroy data.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mlua::{Result, Table};

use super::config_error::config_error_about;
use super::text_of;
use crate::filter::{Filter, OptionRules};
use crate::paths;
use crate::rsync_syntax;

/// Returns the destination of the built-in kinds: `target` if it is set, else `HOST:TARGETDIR`.
///
/// # Errors
/// None but Lua's own.
pub fn destination(config: &Table) -> Result<Option<Vec<u8>>> {
    let text = |key: &str| -> Result<Option<Vec<u8>>> { Ok(text_of(&config.get(key)?)) };
    if let Some(target) = text("target")? {
        return Ok(Some(target));
    }
    let remote = text("host")?.zip(text("targetdir")?);
    Ok(remote.map(|(host, directory)| [&host[..], b":", &directory].concat()))
}

/// Checks a local target against its source (absolute, with a trailing slash). `rsync` are the
/// arguments of rsync, `None` if rsync is not used. Returns a warning for a target inside the
/// source that only these arguments may exclude.
///
/// # Errors
///
/// The target is `/`, the source, above it, or inside it without being excluded.
pub fn check_local(
    source: &[u8],
    target: &[u8],
    filter: &Filter,
    rsync: Option<&[Vec<u8>]>,
) -> Result<Option<mlua::Error>> {
    let resolved = resolved_soon(target);
    let complaint = |why: &str| {
        let target = OsStr::from_bytes(target).display();
        config_error_about("target", format!("target {target} {why}"))
    };
    let refuse = |why: &str| Err(complaint(why));
    if resolved == b"/" {
        return refuse(
            "is the root directory: all files that are not in the source would be deleted",
        );
    }
    if resolved == source {
        return refuse("is the source itself");
    }
    if source.starts_with(&resolved) {
        return refuse("contains the source, which would be deleted");
    }
    if !resolved.starts_with(source) {
        return Ok(None);
    }
    let path = &resolved[source.len() - 1..];
    if excludes(filter, path) {
        return Ok(None);
    }
    match rsync.map_or(Some(false), |words| leave_out(words, path)) {
        Some(true) => Ok(None),
        Some(false) => {
            refuse("is inside the source and not excluded: it would be copied into itself")
        }
        None => Ok(Some(complaint(
            "is inside the source: it is copied into itself unless rsync's own options exclude \
             it. Exclude it with exclude = { ... } as well",
        ))),
    }
}

/// Returns true if the filter rules among the words of rsync exclude this directory, false if they
/// do not, and `None` if the words alone do not determine it.
fn leave_out(words: &[Vec<u8>], path: &[u8]) -> Option<bool> {
    let rules = OptionRules::of(words);
    if rules
        .unknown
        .iter()
        .any(|option| may_exclude_directories(option))
    {
        return None;
    }
    Some(excludes(&rules.behind(&Filter::default()), path))
}

/// Returns true if the filter excludes this directory, or whatever may be in it, as `/target/*` does.
fn excludes(filter: &Filter, directory: &[u8]) -> bool {
    let any = |end: &[u8]| filter.excluded(&[directory, b"\x01any", end].concat());
    filter.excluded(directory) || (any(b"") && any(b"/"))
}

/// Returns true if an option whose selection is unknown may leave directories out.
fn may_exclude_directories(option: &[u8]) -> bool {
    const FILES_ONLY: &[&str] = &[
        "--existing",
        "--ignore-existing",
        "--ignore-non-existing",
        "--no-links",
        "--prune-empty-dirs",
        "--update",
        "-m",
        "-u",
    ];
    let is_size = option.starts_with(b"--max-size=") || option.starts_with(b"--min-size=");
    !is_size && !rsync_syntax::is_in(FILES_ONLY, option)
}

/// The maximum time to resolve a path; after it, the path is used as it is written. The target is
/// checked again before the first transfer.
const ANSWER_TIME: Duration = Duration::from_millis(200);

/// Returns the absolute path with a trailing slash, with symbolic links resolved as far as it
/// exists.
pub fn resolved(path: &[u8]) -> Vec<u8> {
    let path = absolute(path);
    as_directory(resolutions(&path).last().unwrap_or(path))
}

/// Returns the path as [`resolved`] does, as far as file systems answer soon.
pub fn resolved_soon(path: &[u8]) -> Vec<u8> {
    let path = absolute(path);
    let (sender, answers) = mpsc::channel();
    let asked = path.clone();
    let ask = move || {
        let mut found = resolutions(&asked);
        while found.next().is_some_and(|path| sender.send(path).is_ok()) {}
    };
    let thread = thread::Builder::new().name("target".into());
    if thread.spawn(ask).is_err() {
        return as_directory(path);
    }
    let until = Instant::now() + ANSWER_TIME;
    let soon = || answers.recv_timeout(until.saturating_duration_since(Instant::now()));
    let in_time = std::iter::from_fn(|| soon().ok());
    as_directory(in_time.last().unwrap_or(path))
}

fn absolute(path: &[u8]) -> PathBuf {
    let path = OsStr::from_bytes(path);
    std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path))
}

fn as_directory(path: PathBuf) -> Vec<u8> {
    let mut bytes = path.into_os_string().into_vec();
    paths::push_slash(&mut bytes);
    bytes
}

/// Returns the path with the symbolic links of its first component resolved, of its first two, and
/// so on as far as it exists.
fn resolutions(path: &Path) -> impl Iterator<Item = PathBuf> {
    let ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.into_iter().rev().map_while(move |ancestor| {
        let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
        Some(joined(fs::canonicalize(ancestor).ok()?, rest))
    })
}

/// Appends a path; `..` is resolved lexically where the path does not exist.
fn joined(mut base: PathBuf, rest: &Path) -> PathBuf {
    for component in rest.components() {
        match component {
            Component::ParentDir => drop(base.pop()),
            Component::Normal(name) => base.push(name),
            _ => {}
        }
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dangerous_targets_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("src/in")).unwrap();
        std::os::unix::fs::symlink("src", root.join("link")).unwrap();
        let path = |name: &str| root.join(name).into_os_string().into_vec();
        let mut filter = Filter::default();
        filter.add_exclude(b"/out");
        let source = path("src/");
        let check = |name: &str| check_local(&source, &path(name), &filter, Some(&[]));
        for bad in [
            "src",
            "src/",
            "link",
            "link/in",
            "src/new/deep",
            ".",
            "",
            "new/../src",
            "/",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        for good in ["trg", "src2/", "src/out", "link/out/below", "new/../trg"] {
            assert!(check(good).is_ok(), "{good}");
        }
        let error = check("link").unwrap_err().to_string();
        assert!(error.contains("is the source itself"), "{error}");
    }

    #[test]
    fn what_rsync_leaves_out_is_no_harm() {
        let judge = |line: &str| {
            let words: Vec<Vec<u8>> = line.split('|').map(Into::into).collect();
            leave_out(&words, b"/repo/root/")
        };
        for line in [
            "-lts|--include=.zshrc|--exclude=*",
            "--exclude|/repo/root",
            "--exclude=root/",
            "-f|- repo/",
            "--filter=- /repo/***|--bwlimit=5",
            "--exclude=/repo/root/*",
            "--exclude=/repo/root/**",
        ] {
            assert_eq!(judge(line), Some(true), "{line}");
        }
        for line in [
            "",
            "-lts",
            "--exclude=/other",
            "--exclude=/repo/root/*.c",
            "--exclude=/repo/root/*/",
            "--include=*|--exclude=*",
            "--include|/repo/|--include|/repo/root/|--exclude|/*",
        ] {
            assert_eq!(judge(line), Some(false), "{line}");
        }
        for line in [
            "--exclude-from=/list",
            "-F",
            "-ltsx",
            "--filter=: .rsync-filter",
            "--filter=merge /rules",
            "-avC",
            "--files-from=/list",
            "--no-r",
        ] {
            assert_eq!(judge(line), None, "{line}");
        }
    }

    #[test]
    fn only_a_target_inside_the_source_may_be_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("src/in")).unwrap();
        let path = |name: &str| root.join(name).into_os_string().into_vec();
        let check = |name: &str, word: &str| {
            let words = [word.as_bytes().to_vec()];
            check_local(&path("src/"), &path(name), &Filter::default(), Some(&words))
        };
        assert!(check("src/in", "--exclude=/in").unwrap().is_none());
        assert!(check("src/in", "-F").unwrap().is_some());
        assert!(check("src/in", "-l").is_err());
        assert!(check("src", "--exclude=*").is_err());
        assert!(check(".", "-F").is_err());
        assert!(check_local(&path("src/"), &path("src/in"), &Filter::default(), None).is_err());
    }
}
