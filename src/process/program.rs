//! The lookup of programs, as by execvp(3).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Returns the paths at which a program is looked for: the name itself if it contains a slash,
/// otherwise the name in each directory of `PATH`. `None` if `PATH` is not set.
pub fn candidates(name: &[u8]) -> Option<Vec<PathBuf>> {
    let name = OsStr::from_bytes(name);
    if name.as_bytes().contains(&b'/') {
        return Some(vec![name.into()]);
    }
    let directories = std::env::var_os("PATH")?;
    let directories = std::env::split_paths(&directories);
    Some(directories.map(|place| place.join(name)).collect())
}

/// Returns the file of a program. A name that contains a slash is not examined.
pub fn find(name: &[u8]) -> Option<PathBuf> {
    let is_path = name.contains(&b'/');
    let mut places = candidates(name)?.into_iter();
    places.find(|path| is_path || is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_executable_files_only() {
        let found = find(b"sh").unwrap();
        assert!(found.is_absolute() && found.ends_with("sh"));
        assert_eq!(find(b"no-such-program"), None);
        assert_eq!(find(b""), None);
        assert_eq!(find(b"./not/here"), Some("./not/here".into()));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        for (mode, is) in [(0o644, false), (0o755, true), (0o001, true)] {
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_executable(&path), is, "{mode:o}");
        }
        assert!(!is_executable(directory.path()));
    }
}
