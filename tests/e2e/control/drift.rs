//! Drift of each kind, planted at a target.

use super::*;

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{XattrFlags, setxattr};

use crate::support::dir::skip;
use lsyncd::status::drift_report::{DriftKind, DriftReport};

/// Names that are not UTF-8, contain newlines, or look like escapes and arrows of rsync.
const HOSTILE: [&[u8]; 3] = [b"n\nl]*", b"a\\#012b", b"hi\xff -> x"];

/// Creates the entries of a source that [`plant`] needs. Returns their number, with the source.
pub fn fill(dir: &Dir) -> u64 {
    let files = [
        "content", "size", "time", "mode", "xattr", "owner", "group", "acl", "missing", "file",
    ];
    for name in files {
        dir.write(name, name);
    }
    for name in ["empty", "typed", "d"] {
        dir.mkdir(name);
    }
    dir.write("d/deep", "x");
    dir.symlink("content", "link");
    dir.write("name1", "x");
    dir.hard_link("name1", "name2");
    for name in HOSTILE {
        dir.write(name, "x");
    }
    21
}

/// Replaces the contents of a file on the target, keeping size and time.
pub fn change_silently(path: &Path, contents: &str) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, contents).unwrap();
    set_time(path, modified);
}

fn set_time(path: &Path, time: SystemTime) {
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// Makes a target differ from the source of [`fill`], each path in another way. Returns the paths
/// and the kinds of their differences, as a report with `-content` of a sync with hard links, ACLs
/// and extended attributes must list them.
pub fn plant(target: &Path) -> Vec<(String, String)> {
    let at = |name: &[u8]| target.join(OsStr::from_bytes(name));
    change_silently(&at(b"content"), "CONTENT");
    change_silently(&at(b"size"), "sizemore");
    set_time(
        &at(b"time"),
        UNIX_EPOCH + Duration::from_secs(1_000_000_000),
    );
    fs::set_permissions(at(b"mode"), Permissions::from_mode(0o600)).unwrap();
    let has_xattrs = setxattr(at(b"xattr"), "user.a", b"x", XattrFlags::empty()).is_ok();
    let has_acls = add_acl(&at(b"acl"));
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        lchown(at(b"owner"), Some(7), None).unwrap();
        lchown(at(b"group"), None, Some(8)).unwrap();
    } else {
        skip("the owner of a file cannot be changed");
    }
    fs::remove_file(at(b"missing")).unwrap();
    fs::remove_dir(at(b"empty")).unwrap();
    fs::remove_dir(at(b"typed")).unwrap();
    fs::write(at(b"typed"), "x").unwrap();
    fs::remove_file(at(b"file")).unwrap();
    fs::create_dir(at(b"file")).unwrap();
    fs::write(at(b"file/below"), "x").unwrap();
    fs::remove_file(at(b"link")).unwrap();
    symlink("elsewhere", at(b"link")).unwrap();
    fs::remove_file(at(b"name2")).unwrap();
    fs::write(at(b"name2"), "x").unwrap();
    let modified = fs::metadata(at(b"name1")).unwrap().modified().unwrap();
    set_time(&at(b"name2"), modified);
    fs::write(at(b"extra"), "x").unwrap();
    for name in HOSTILE {
        fs::remove_file(at(name)).unwrap();
    }
    set_time(target, UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    fs::set_permissions(target, Permissions::from_mode(0o700)).unwrap();

    let mut expected = vec![
        ("/", "time,mode"),
        ("/a\\#012b", "missing"),
        ("/acl", "acl"),
        ("/content", "content"),
        ("/empty/", "missing"),
        ("/extra", "extra"),
        ("/file", "type"),
        ("/file/below", "extra"),
        ("/group", "group"),
        ("/hi\\377 -> x", "missing"),
        ("/link", "link"),
        ("/missing", "missing"),
        ("/mode", "mode"),
        ("/n\\012l]*", "missing"),
        ("/name2", "link"),
        ("/owner", "owner"),
        ("/size", "size,content"),
        ("/time", "time"),
        ("/typed/", "type"),
        ("/xattr", "xattr"),
    ];
    expected.retain(|(path, _)| match *path {
        "/owner" | "/group" => is_root,
        "/acl" => has_acls,
        "/xattr" => has_xattrs,
        _ => true,
    });
    let texts = expected.into_iter();
    texts
        .map(|(path, kinds)| (path.to_owned(), kinds.to_owned()))
        .collect()
}

/// Adds an entry for user 7 to the access control list of a file, whose mode stays the same.
/// Returns false if the file system has no such lists.
fn add_acl(path: &Path) -> bool {
    let entries: [(u16, u16, u32); 5] = [
        (1, 6, u32::MAX),
        (2, 4, 7),
        (4, 4, u32::MAX),
        (16, 4, u32::MAX),
        (32, 4, u32::MAX),
    ];
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(rights.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    setxattr(path, "system.posix_acl_access", &acl, XattrFlags::empty()).is_ok()
}

/// Returns the path and the kinds of each difference, as texts. The time of the link is that of
/// its creation, so it may differ or not.
pub fn found(report: &DriftReport) -> Vec<(String, String)> {
    let kinds = |kinds: &[DriftKind]| {
        let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        names.join(",").replace("time,link", "link")
    };
    let each = report.differences.iter();
    each.map(|each| (each.path.clone(), kinds(&each.kinds)))
        .collect()
}
