//! Tests of trees that are opened from their roots.

use std::os::unix::fs::symlink;

use super::*;

#[test]
fn symlinks_on_the_way_are_nothing() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("a/b")).unwrap();
    std::fs::write(directory.path().join("a/b/f"), "1").unwrap();
    symlink("a", directory.path().join("l")).unwrap();
    let place = Beneath::enter(directory.path().as_os_str().as_bytes()).unwrap();
    let kind_of = |path: &str| {
        place
            .lookup(path.as_bytes())
            .unwrap()
            .map(|stat| kind(&stat))
    };
    assert_eq!(kind_of("/a/b/f"), Some(FileType::RegularFile));
    assert_eq!(kind_of("/a/b/"), Some(FileType::Directory));
    assert_eq!(kind_of("/l"), Some(FileType::Symlink));
    assert_eq!(kind_of("/"), Some(FileType::Directory));
    for path in ["/l/b/f", "/l/b/", "/a/b/f/x", "/x"] {
        assert_eq!(kind_of(path), None, "{path}");
    }
}

/// Creates a chain of directories named by their depth.
fn chain(top: &std::path::Path, depth: usize) -> (std::path::PathBuf, String) {
    let names: Vec<String> = (1..=depth).map(|level| level.to_string()).collect();
    let path = format!("/{}/", names.join("/"));
    std::fs::create_dir_all(top.join(&path[1..])).unwrap();
    (top.to_owned(), path)
}

/// Returns true if the open directory is the one at `path`.
fn is_at(directory: &OpenDir, path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let stat = std::fs::metadata(path).unwrap();
    identity(directory).unwrap() == (stat.dev(), stat.ino())
}

#[test]
fn the_way_back_leads_through_the_same_directories() {
    let directory = tempfile::tempdir().unwrap();
    let (top, path) = chain(directory.path(), 3 * MAX_OPEN);
    let place = Beneath::enter(top.as_os_str().as_bytes()).unwrap();
    let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
    // To the end, back step by step, in leaps, and from one end of the tree to the other.
    let all = 0..ends.len();
    let back = all.clone().rev();
    let leaps = all.clone().map(|number| number * 7 % ends.len());
    for number in all.chain(back).chain(leaps) {
        for slash in [0, 1] {
            let part = &path[..(ends[number] + slash)];
            let opened = place.directory(part.as_bytes()).unwrap();
            assert!(
                is_at(&opened, &top.join(part.trim_start_matches('/'))),
                "{part}"
            );
            let way = place.way.borrow();
            let open = way.levels.iter().filter(|level| level.open.is_ok());
            assert!(open.count() <= MAX_OPEN);
        }
    }
    let beside = place.directory(b"/1/2/33");
    assert!(beside.is_err_and(|error| is_missing(&error)));
    assert!(place.directory(b"/1/2/3").is_ok());
}

#[test]
fn the_way_back_is_not_led_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let (top, path) = chain(directory.path(), 3 * MAX_OPEN);
    let place = Beneath::enter(top.as_os_str().as_bytes()).unwrap();
    place.directory(path.as_bytes()).unwrap();
    std::fs::create_dir(top.join("other")).unwrap();
    std::fs::rename(top.join("1/2/3/4/5/6/7/8"), top.join("other/8")).unwrap();
    std::fs::create_dir(top.join("1/2/3/4/5/6/7/8")).unwrap();
    let opened = place.directory(b"/1/2/3/4/5/6").unwrap();
    assert!(is_at(&opened, &top.join("1/2/3/4/5/6")));
    let opened = place.directory(b"/1/2/3/4/5/6/7/8").unwrap();
    assert!(is_at(&opened, &top.join("1/2/3/4/5/6/7/8")));
}

#[test]
fn the_way_back_does_not_leave_a_directory_that_was_moved() {
    let directory = tempfile::tempdir().unwrap();
    let (top, path) = chain(directory.path(), 3 * MAX_OPEN);
    let place = Beneath::enter(top.as_os_str().as_bytes()).unwrap();
    place.directory(path.as_bytes()).unwrap();
    // The topmost directory that is open, whose parent is closed.
    let number = 2 * MAX_OPEN + 1;
    let end = path.find(&format!("/{number}/")).unwrap();
    let above = top.join(&path[1..end]);
    std::fs::create_dir(top.join("other")).unwrap();
    std::fs::rename(above.join(number.to_string()), top.join("other/x")).unwrap();
    assert!(is_at(
        &place.directory(&path.as_bytes()[..end]).unwrap(),
        &above
    ));
}

/// What cannot be determined is not taken for missing: its copy would be deleted.
#[test]
fn errors_are_distinguished_from_missing_objects() {
    for code in [Errno::NOENT, Errno::NOTDIR, Errno::LOOP] {
        assert!(is_missing(&code.into()), "{code:?}");
    }
    for code in [Errno::ACCESS, Errno::IO, Errno::NAMETOOLONG, Errno::NFILE] {
        assert!(!is_missing(&code.into()), "{code:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    let place = Beneath::enter(directory.path().as_os_str().as_bytes()).unwrap();
    let long = format!("/{}", "x".repeat(300));
    assert!(place.lookup(long.as_bytes()).is_err());
    assert!(place.lookup(format!("{long}/f").as_bytes()).is_err());
    assert!(place.lookup(b"/f/f").unwrap().is_none());
}

/// Another user may put a link or a pipe in place of a file that was looked up.
#[test]
fn neither_links_are_followed_nor_pipes_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("f"), "text").unwrap();
    symlink("f", at("link")).unwrap();
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let place = Beneath::enter(directory.path().as_os_str().as_bytes()).unwrap();
    let place = place.directory(b"/").unwrap();
    let file = open_file(&place, OsStr::new("f")).unwrap();
    let flags = rustix::io::fcntl_getfd(&file).unwrap();
    assert_eq!(flags, rustix::io::FdFlags::CLOEXEC);
    assert!(open_file(&place, OsStr::new("link")).is_err());
    // An open for reading that waits would wait for a writer.
    assert!(open_file(&place, OsStr::new("pipe")).is_ok());
}

#[test]
fn a_renamed_directory_is_not_found_at_its_old_path() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir(at("a")).unwrap();
    let place = Beneath::enter(directory.path().as_os_str().as_bytes()).unwrap();
    place.directory(b"/a").unwrap();
    std::fs::rename(at("a"), at("b")).unwrap();
    std::fs::create_dir(at("a")).unwrap();
    place.forget();
    assert!(is_at(&place.directory(b"/a").unwrap(), &at("a")));
}

#[test]
fn a_directory_that_was_replaced_is_forgotten_with_all_below_it() {
    let directory = tempfile::tempdir().unwrap();
    let (top, path) = chain(directory.path(), 4);
    let place = Beneath::enter(top.as_os_str().as_bytes()).unwrap();
    place.directory(path.as_bytes()).unwrap();
    std::fs::rename(top.join("1/2"), top.join("away")).unwrap();
    std::fs::create_dir(top.join("1/2")).unwrap();
    place.forget_at(b"/1/2/");
    assert!(place.directory(path.as_bytes()).is_err());
    assert!(is_at(&place.directory(b"/1/2").unwrap(), &top.join("1/2")));
}
