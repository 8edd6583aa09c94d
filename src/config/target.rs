//! Local targets that would destroy more than they mirror are refused.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use mlua::Result;

use super::complaint::complaint_about;
use crate::filter::Filter;

/// Checks a local target against its source (absolute, with a slash at its end).
///
/// # Errors
/// The target is `/`, the source, around it, or inside it without being excluded.
pub fn check_local(source: &[u8], target: &[u8], filter: &Filter) -> Result<()> {
    let resolved = resolved(target);
    let refuse = |why: &str| {
        let target = OsStr::from_bytes(target).display();
        Err(complaint_about("target", format!("target {target} {why}")))
    };
    if resolved == b"/" {
        return refuse(
            "is the root directory: everything that the source has not would be deleted",
        );
    }
    if resolved == source {
        return refuse("is the source itself");
    }
    if source.starts_with(&resolved) {
        return refuse("contains the source, which would be deleted");
    }
    if resolved.starts_with(source) && !filter.excluded(&resolved[source.len() - 1..]) {
        return refuse("is inside the source and not excluded: it would be copied into itself");
    }
    Ok(())
}

/// The absolute path with a slash at its end, symbolic links resolved as far as it exists.
pub fn resolved(path: &[u8]) -> Vec<u8> {
    let path = std::path::absolute(OsStr::from_bytes(path))
        .unwrap_or_else(|_| PathBuf::from(OsStr::from_bytes(path)));
    let mut real = None;
    for ancestor in path.ancestors() {
        if let Ok(found) = fs::canonicalize(ancestor) {
            let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            real = Some(joined(found, rest));
            break;
        }
    }
    let mut bytes = real.unwrap_or(path).into_os_string().into_vec();
    if bytes.last() != Some(&b'/') {
        bytes.push(b'/');
    }
    bytes
}

/// `..` behind what does not exist goes back lexically.
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
        let check = |name: &str| check_local(&source, &path(name), &filter);
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
}
