//! The messages of rsync 3.0.9 to 3.5.0 about paths and attributes.

use super::error_lines::Attribute;

use Attribute::{Acls, Group, Owner, Permissions, Times, Xattrs};
use Meaning::{Contents, Obstructed, Path, Removal, TooLong};
use NamePlace::{Quoted, Until};

/// The meaning of a message in the tables.
#[derive(Clone, Copy)]
pub(super) enum Meaning {
    /// The path itself failed. It is to be sent, so it is in the source.
    Path,
    /// The path itself failed. It may be a deletion of a path that is not in the source.
    Removal,
    /// A directory and all that is in it failed.
    Contents,
    /// The path could not take the place of a directory.
    Obstructed,
    /// This attribute was not set.
    Attribute(Attribute),
    /// The path is too long.
    TooLong,
}

/// The position of the name behind the text of a message.
#[derive(Clone, Copy)]
pub(super) enum NamePlace {
    /// In double quotes.
    Quoted,
    /// Up to these bytes, or to the end of the message if they are empty.
    Until(&'static str),
}

/// Messages that end with the text and number of an error (`: Permission denied (13)`): the text in
/// front of the name, the position of the name, and the meaning.
pub(super) const WITH_ERRNO: &[(&str, NamePlace, Meaning)] = &[
    ("send_files failed to open ", Quoted, Path),
    ("mkstemp ", Quoted, Path),
    ("open ", Quoted, Path),
    ("failed to open ", Quoted, Path),
    ("read ", Quoted, Path),
    ("read errors mapping ", Quoted, Path),
    ("write ", Quoted, Path),
    ("write failed on ", Quoted, Path),
    ("ftruncate failed on ", Quoted, Path),
    ("ftruncate ", Quoted, Path),
    ("close failed on ", Quoted, Path),
    ("close ", Quoted, Path),
    ("fsync failed on ", Quoted, Path),
    ("fsync ", Quoted, Path),
    ("fstat ", Quoted, Path),
    ("lseek of ", Quoted, Path),
    ("rename failed for ", Quoted, Removal),
    ("rename ", Quoted, Removal),
    ("copy ", Quoted, Path),
    ("symlink ", Quoted, Path),
    ("mknod ", Quoted, Path),
    ("link ", Quoted, Path),
    ("unlink ", Quoted, Removal),
    ("delete_file: unlink(", Until(") failed"), Removal),
    ("delete_file: rmdir(", Until(") failed"), Contents),
    ("readlink_stat(", Quoted, Contents),
    ("readlink ", Quoted, Path),
    ("link_stat ", Quoted, Contents),
    ("stat ", Quoted, Contents),
    ("recv_generator: failed to stat ", Quoted, Contents),
    ("recv_generator: mkdir ", Quoted, Contents),
    ("mkdir ", Quoted, Contents),
    ("opendir ", Quoted, Contents),
    ("readdir(", Quoted, Contents),
    ("readdir ", Quoted, Contents),
    ("change_dir ", Quoted, Contents),
    ("push_dir ", Quoted, Contents),
    ("get_acl: sys_acl_get_file(", Until(", ACL_TYPE"), Path),
    ("get_acl: sys_acl_get_fd_type(", Until(", ACL_TYPE"), Path),
    ("get_acl: acl_get_file_at(", Until(", ACL_TYPE"), Path),
    ("get_xattr_names: llistxattr(", Quoted, Path),
    ("get_xattr_data: lgetxattr(", Quoted, Path),
    ("chown ", Quoted, Meaning::Attribute(Owner)),
    ("chgrp ", Quoted, Meaning::Attribute(Group)),
    ("failed to set times on ", Quoted, Meaning::Attribute(Times)),
    (
        "failed to set permissions on ",
        Quoted,
        Meaning::Attribute(Permissions),
    ),
    (
        "failed to modify permissions on ",
        Quoted,
        Meaning::Attribute(Permissions),
    ),
    (
        "set_acl: sys_acl_set_file(",
        Until(", ACL_TYPE"),
        Meaning::Attribute(Acls),
    ),
    (
        "set_acl: sys_acl_set_fd_type(",
        Until(", ACL_TYPE"),
        Meaning::Attribute(Acls),
    ),
    (
        "set_acl: acl_set_file_at(",
        Until(", ACL_TYPE"),
        Meaning::Attribute(Acls),
    ),
    (
        "set_acl: sys_acl_delete_def_file(",
        Until(")"),
        Meaning::Attribute(Acls),
    ),
    (
        "rsync_xal_clear: lremovexattr(",
        Quoted,
        Meaning::Attribute(Xattrs),
    ),
    (
        "rsync_xal_set: lsetxattr(",
        Quoted,
        Meaning::Attribute(Xattrs),
    ),
    (
        "rsync_xal_set: fsetxattr(",
        Quoted,
        Meaning::Attribute(Xattrs),
    ),
    (
        "rsync_xal_set: lremovexattr(",
        Quoted,
        Meaning::Attribute(Xattrs),
    ),
    (
        "rsync_xal_set: fremovexattr(",
        Quoted,
        Meaning::Attribute(Xattrs),
    ),
    (
        "copy_xattrs: lsetxattr(",
        Quoted,
        Meaning::Attribute(Xattrs),
    ),
    (
        "copy_xattrs: fsetxattr(",
        Quoted,
        Meaning::Attribute(Xattrs),
    ),
    (
        "set_xattr_acl: lsetxattr(",
        Quoted,
        Meaning::Attribute(Xattrs),
    ),
    (
        "set_xattr_acl: fsetxattr(",
        Quoted,
        Meaning::Attribute(Xattrs),
    ),
    (
        "delete of stat xattr failed for ",
        Quoted,
        Meaning::Attribute(Xattrs),
    ),
    ("failed to write xattr ", Quoted, Meaning::Attribute(Xattrs)),
];

/// Messages without an error number.
pub(super) const PLAIN: &[(&str, NamePlace, Meaning)] = &[
    (
        "could not make way for new directory: ",
        Until(""),
        Contents,
    ),
    (
        "could not make way for new regular file: ",
        Until(""),
        Obstructed,
    ),
    (
        "could not make way for new symlink: ",
        Until(""),
        Obstructed,
    ),
    (
        "could not make way for new device file: ",
        Until(""),
        Obstructed,
    ),
    (
        "could not make way for new special file: ",
        Until(""),
        Obstructed,
    ),
    ("skipping overly long name: ", Until(""), TooLong),
    ("temporary filename too long: ", Until(""), TooLong),
    ("cannot send file with empty name in ", Quoted, Contents),
    ("symlink has no referent: ", Quoted, Path),
    ("skipping symlink with 0-length value: ", Quoted, Path),
    ("[sender] cannot convert filename: ", Until(" ("), Path),
    ("[sender] cannot convert symlink data for: ", Quoted, Path),
    ("ERROR: daemon refused to receive file ", Quoted, Path),
    (
        "ERROR: daemon refused to receive directory ",
        Quoted,
        Contents,
    ),
    ("skipping daemon-excluded file ", Quoted, Path),
    ("skipping daemon-excluded directory ", Quoted, Contents),
    (
        "ERROR: rejecting excluded file-list name: ",
        Until(""),
        Path,
    ),
    (
        "ERROR: rejecting file transfer request for daemon excluded file: ",
        Until(""),
        Path,
    ),
    (
        "ABORTING due to unsafe pathname from sender: ",
        Until(""),
        Path,
    ),
    (
        "ABORTING due to invalid path from sender: ",
        Until(""),
        Path,
    ),
    ("recv_files: ", Quoted, Path),
    ("ERROR: ", Until(" failed verification -- update "), Path),
    (
        "Time value of ",
        Until(" truncated on receiver."),
        Meaning::Attribute(Times),
    ),
    (
        "uid 4294967295 (-1) is impossible to set on ",
        Quoted,
        Meaning::Attribute(Owner),
    ),
    (
        "gid 4294967295 (-1) is impossible to set on ",
        Quoted,
        Meaning::Attribute(Group),
    ),
];

/// Prefixes of lines that do not concern a path to be sent.
pub(super) const NEUTRAL: &[&str] = &[
    "rsync error: ",
    "rsync warning: ",
    "*** Skipping any contents from this failed directory ***",
    "file has vanished: ",
    "directory has vanished: ",
    "skipped diminished file: ",
    "do_chmod: no symlink-safe chmod for ",
    "default_perms_for_dir: ",
    "renaming ",
];
