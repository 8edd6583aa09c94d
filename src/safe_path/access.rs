//! The users that can change the entries of a directory, by its owner, mode and access control
//! list.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Uid, getegid, geteuid};
use rustix::fs::{Stat, getxattr, lgetxattr};
use rustix::io::Errno;

/// The extended attribute of an access control list (acl(5)).
const ACL: &str = "system.posix_acl_access";

const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// The users other than root and this user that can create, rename and replace files in a
/// directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// No user.
    Private,
    /// Members of a group, by permission of the directory's owner.
    Group,
    /// Other users.
    Others,
}

/// Owner, group and mode of a directory.
#[derive(Clone, Copy, Debug)]
pub struct Permissions {
    /// The user id of the owner.
    pub owner: u32,
    /// The group id.
    pub group: u32,
    /// The permission bits of chmod(2).
    pub mode: u32,
}

impl Permissions {
    /// Returns the users other than root and `user` that can change entries of the directory.
    /// `group` is the primary group of `user`.
    ///
    /// The owner of a directory can obtain the right. The group of root, and one with the number of
    /// `user`, which is private to that user by convention, count as no other user. With an access
    /// control list the group bits are the mask of all users and groups that it names.
    pub fn access(&self, user: Uid, group: Gid, has_acl: impl FnOnce() -> bool) -> Access {
        let foreign = self.owner != user.as_raw() && self.owner != 0;
        if foreign || self.mode & OTHERS_WRITE != 0 {
            return Access::Others;
        }
        if self.mode & GROUP_WRITES == 0 {
            return Access::Private;
        }
        if has_acl() {
            return Access::Others;
        }
        let own_group = self.group == group.as_raw() && self.group == user.as_raw();
        if own_group || self.group == 0 {
            Access::Private
        } else {
            Access::Group
        }
    }
}

/// Returns the users that can change entries of an open directory. `path` leads to it.
pub(super) fn of_stat(stat: &Stat, path: &Path) -> Access {
    let permissions = Permissions {
        owner: stat.st_uid,
        group: stat.st_gid,
        mode: stat.st_mode,
    };
    permissions.access(geteuid(), getegid(), || is_acl(getxattr(path, ACL, none())))
}

/// Returns true if other users can exchange entries of this directory, for example a directory in
/// it by a symlink, while a process walks through it. The path itself is not followed.
pub fn is_exposed(path: &Path, data: &Metadata) -> bool {
    let permissions = Permissions {
        owner: data.uid(),
        group: data.gid(),
        mode: data.mode(),
    };
    let has_acl = || is_acl(lgetxattr(path, ACL, none()));
    permissions.access(geteuid(), getegid(), has_acl) != Access::Private
}

fn none() -> &'static mut [u8] {
    &mut []
}

/// Returns false if it is certain that there is no access control list.
fn is_acl(size: Result<usize, Errno>) -> bool {
    !matches!(size, Err(Errno::NODATA | Errno::OPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: u32 = 1000;

    #[test]
    fn everyone_who_may_write_or_change_the_mode_has_access() {
        use Access::{Group, Others, Private};
        for (owner, group, mode, acl, expected) in [
            (USER, USER, 0o755, false, Private),
            (USER, USER, 0o700, true, Private),
            (0, 0, 0o755, false, Private),
            (0, 100, 0o755, false, Private),
            // A private group, and that of root.
            (USER, USER, 0o775, false, Private),
            (0, 0, 0o775, false, Private),
            // The mask of an access control list.
            (USER, USER, 0o775, true, Others),
            (USER, 100, 0o775, true, Others),
            (USER, 100, 0o775, false, Group),
            (0, 100, 0o770, false, Group),
            (USER, USER, 0o757, false, Others),
            (0, 0, 0o1777, false, Others),
            // The owner can obtain the right.
            (33, 33, 0o555, false, Others),
            (33, USER, 0o755, false, Others),
        ] {
            let permissions = Permissions { owner, group, mode };
            let access = permissions.access(Uid::from_raw(USER), Gid::from_raw(USER), || acl);
            assert_eq!(access, expected, "{owner}:{group} {mode:o} {acl}");
        }
    }

    #[test]
    fn a_directory_without_a_list_has_none() {
        let has_acl = |path: &Path| is_acl(lgetxattr(path, ACL, none()));
        let directory = tempfile::tempdir().unwrap();
        assert!(!has_acl(directory.path()));
        assert!(has_acl(Path::new("/nowhere/at/all")));
        let data = directory.path().metadata().unwrap();
        assert!(!is_exposed(directory.path(), &data));
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(directory.path(), all).unwrap();
        let data = directory.path().metadata().unwrap();
        assert!(is_exposed(directory.path(), &data));
    }
}
