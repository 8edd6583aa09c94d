//! Detects directories whose entries other users may exchange while rsync walks through them.
//!
//! A user who may write to a directory can replace a directory in it by a symlink. The owner of a
//! directory can obtain that right.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Uid, getegid, geteuid};
use rustix::fs::lgetxattr;

const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// Returns true if users other than root and the one of this process can exchange entries of this
/// directory.
pub fn is_exposed(path: &Path, data: &Metadata) -> bool {
    let may_write = Access {
        owner: data.uid(),
        group: data.gid(),
        mode: data.mode(),
    };
    may_write.is_others(geteuid(), getegid(), || has_acl(path))
}

/// Returns false if it is certain that there is no access control list, else true.
fn has_acl(path: &Path) -> bool {
    use rustix::io::Errno;
    let size = lgetxattr(path, "system.posix_acl_access", &mut [] as &mut [u8]);
    !matches!(size, Err(Errno::NODATA | Errno::OPNOTSUPP))
}

/// The rights to write to a directory.
struct Access {
    owner: u32,
    group: u32,
    mode: u32,
}

impl Access {
    fn is_others(&self, user: Uid, group: Gid, has_acl: impl FnOnce() -> bool) -> bool {
        let foreign = self.owner != user.as_raw() && self.owner != 0;
        if foreign || self.mode & OTHERS_WRITE != 0 {
            return true;
        }
        if self.mode & GROUP_WRITES == 0 {
            return false;
        }
        // A group with the number of its user is private to that user by convention. With an access
        // control list the bits of the group are the mask for all named users and groups.
        let private = self.group == group.as_raw() && self.group == user.as_raw();
        let trusted = private || self.group == 0;
        !trusted || has_acl()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: u32 = 1000;

    fn is_others(owner: u32, group: u32, mode: u32, acl: bool) -> bool {
        let access = Access { owner, group, mode };
        access.is_others(Uid::from_raw(USER), Gid::from_raw(USER), || acl)
    }

    #[test]
    fn whoever_may_write_may_exchange() {
        for (owner, group, mode, acl, expected) in [
            (USER, USER, 0o755, false, false),
            (USER, USER, 0o700, true, false),
            (0, 0, 0o755, false, false),
            (0, 100, 0o755, false, false),
            // A private group, and that of root.
            (USER, USER, 0o775, false, false),
            (0, 0, 0o775, false, false),
            // The mask of an access control list.
            (USER, USER, 0o775, true, true),
            (USER, 100, 0o775, false, true),
            (0, 100, 0o770, false, true),
            (USER, USER, 0o757, false, true),
            (0, 0, 0o1777, false, true),
            // The owner can obtain the right.
            (33, 33, 0o555, false, true),
            (33, USER, 0o755, false, true),
        ] {
            let what = format!("{owner}:{group} {mode:o} {acl}");
            assert_eq!(is_others(owner, group, mode, acl), expected, "{what}");
        }
    }

    #[test]
    fn a_directory_without_a_list_has_none() {
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
