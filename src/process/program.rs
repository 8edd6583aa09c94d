//! The lookup of programs, as by execvp(3).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

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
    let is_executable = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    let mut places = candidates(name)?.into_iter();
    places.find(|path| is_path || is_executable(path))
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
    }
}
