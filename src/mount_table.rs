//! The mount table (proc_pid_mountinfo(5)): mount points, file systems with persistent contents,
//! and file systems shared with other machines.

use std::fs;

use crate::paths;

/// The path of the mount table.
pub const TABLE: &str = "/proc/self/mountinfo";

/// Returns the current mount table; empty without proc(5).
pub fn read() -> Vec<u8> {
    fs::read(TABLE).unwrap_or_default()
}

/// One line of the mount table.
struct Mount<'t> {
    /// The number of the mount.
    id: &'t [u8],
    /// The device of the file system, such as `8:1`.
    device: &'t [u8],
    /// The mounted directory within the file system.
    root: &'t [u8],
    /// The mount point, without a trailing slash except for `/`.
    point: Vec<u8>,
    /// The file system type.
    kind: Option<&'t [u8]>,
}

fn lines(table: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    table.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        Some(Mount {
            id: fields.next()?,
            device: fields.nth(1)?,
            root: fields.next()?,
            point: unescaped(fields.next()?),
            kind: fields.skip_while(|field| *field != b"-").nth(1),
        })
    })
}

/// Returns the mount points with the mounted file system: device and directory within it.
pub fn mounts(table: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    lines(table).map(|mount| (mount.point, [mount.device, b" ", mount.root].concat()))
}

/// Returns the mount points below a directory, whose path ends with a slash, as directories. Mount
/// points of autofs, whose access would mount a file system, are omitted.
pub fn points_below<'t>(
    table: &'t [u8],
    directory: &'t [u8],
) -> impl Iterator<Item = Vec<u8>> + 't {
    let real = lines(table).filter(|mount| mount.kind != Some(b"autofs"));
    let points = real.map(|mount| paths::with_slash(&mount.point));
    points.filter(move |point| point.len() > directory.len() && point.starts_with(directory))
}

/// Returns true if the directory at this path, which ends with a slash, is the root of a file
/// system.
pub fn is_file_system_root(table: &[u8], path: &[u8]) -> bool {
    let at = lines(table).filter(|mount| paths::with_slash(&mount.point) == path);
    // Of several mounts on one point the last is visible.
    at.last().is_some_and(|mount| mount.root == b"/")
}

/// Returns true if the mount of this number exists.
pub fn has_mount(table: &[u8], id: i32) -> bool {
    let id = id.to_string();
    lines(table).any(|mount| mount.id == id.as_bytes())
}

/// Types of file systems whose contents are lost on unmount, or that have none of their own.
const VOLATILE_TYPES: [&[u8]; 27] = [
    b"aufs",
    b"autofs",
    b"binfmt_misc",
    b"bpf",
    b"cgroup",
    b"cgroup2",
    b"configfs",
    b"debugfs",
    b"devpts",
    b"devtmpfs",
    b"efivarfs",
    b"fuse.gvfsd-fuse",
    b"fuse.lxcfs",
    b"fuse.portal",
    b"fusectl",
    b"hugetlbfs",
    b"mqueue",
    b"nsfs",
    b"overlay",
    b"proc",
    b"pstore",
    b"ramfs",
    b"securityfs",
    b"squashfs",
    b"sysfs",
    b"tmpfs",
    b"tracefs",
];

/// Returns the mount points of file systems with persistent contents: disks, network file systems
/// and bind mounts.
pub fn lasting(table: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let lasts = |mount: &Mount<'_>| {
        let kind = mount.kind;
        kind.is_some_and(|kind| mount.root != b"/" || !VOLATILE_TYPES.contains(&kind))
    };
    lines(table).filter(lasts).map(|mount| mount.point)
}

/// Types of file systems that other machines may change. FUSE counts as such except for
/// [`LOCAL_FUSE_TYPES`].
const SHARED_TYPES: [&[u8]; 17] = [
    b"9p",
    b"afs",
    b"beegfs",
    b"ceph",
    b"cifs",
    b"fuse",
    b"gfs2",
    b"gpfs",
    b"lustre",
    b"nfs",
    b"nfs4",
    b"ocfs2",
    b"prl_fs",
    b"smb3",
    b"smbfs",
    b"vboxsf",
    b"virtiofs",
];

const LOCAL_FUSE_TYPES: [&[u8]; 8] = [
    b"fuse.bindfs",
    b"fuse.cryfs",
    b"fuse.encfs",
    b"fuse.exfat",
    b"fuse.gocryptfs",
    b"fuse.mergerfs",
    b"fuse.ntfs-3g",
    b"fuse.zfs",
];

/// Returns the type of the file system at this absolute path, if other machines may change it.
/// inotify(7) does not report their changes.
pub fn shared_kind(table: &[u8], path: &[u8]) -> Option<String> {
    let above = lines(table).filter(|mount| mount.kind.is_some() && is_above(&mount.point, path));
    // Of several mounts on one point the last is visible.
    let kind = above.max_by_key(|mount| mount.point.len())?.kind?;
    let fuse = kind.starts_with(b"fuse.") && !LOCAL_FUSE_TYPES.contains(&kind);
    (fuse || SHARED_TYPES.contains(&kind)).then(|| String::from_utf8_lossy(kind).into_owned())
}

/// Returns true if a path, which ends with a slash, is below this mount point.
pub fn is_above(mount: &[u8], path: &[u8]) -> bool {
    paths::below(path, mount).is_some()
}

/// Returns the mount point of this absolute path, which ends with a slash.
pub fn mount_of(table: &[u8], path: &[u8]) -> Vec<u8> {
    let above = |mount: &Vec<u8>| is_above(mount, path);
    let points = mounts(table).map(|(point, _)| point);
    let deepest = points.filter(above).max_by_key(Vec::len);
    deepest.unwrap_or_else(|| b"/".to_vec())
}

/// Decodes `\ooo`, the form of blanks, tabs, line feeds and backslashes.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        let code = behind.first_chunk::<3>().and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        match code {
            Some(code) if byte == b'\\' => {
                bytes.push(code);
                rest = &behind[3..];
            }
            _ => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        22 21 8:2 / /srv rw - ext4 /dev/sdb1 rw\n\
        23 22 8:3 / /srv/a\\040b rw shared:1 - ext4 /dev/sdc1 rw\n";

    #[test]
    fn the_deepest_mount_counts() {
        let mount = |path: &str| String::from_utf8(mount_of(TABLE, path.as_bytes())).unwrap();
        assert_eq!(mount("/home/"), "/");
        assert_eq!(mount("/srv/"), "/srv");
        assert_eq!(mount("/srv2/"), "/");
        assert_eq!(mount("/srv/x/"), "/srv");
        assert_eq!(mount("/srv/a b/"), "/srv/a b");
        assert_eq!(mount("/srv/a b/c/"), "/srv/a b");
        assert_eq!(mount("/"), "/");
    }

    #[test]
    fn mounts_below_a_directory_and_roots_of_file_systems_are_found() {
        let table = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            22 21 8:1 /x /srv rw - ext4 /dev/sda1 rw\n\
            23 22 8:3 / /srv/a rw shared:1 - ext4 /dev/sdc1 rw\n\
            24 22 0:9 / /srv/auto rw - autofs auto rw\n\
            25 21 8:4 / /srv2 rw - xfs /dev/sdd1 rw\n";
        let below: Vec<_> = points_below(table, b"/srv/").collect();
        assert_eq!(below, [b"/srv/a/".to_vec()]);
        assert_eq!(points_below(table, b"/").count(), 3);
        let is_root = |path: &[u8]| is_file_system_root(table, path);
        assert!(is_root(b"/") && is_root(b"/srv/a/") && is_root(b"/srv2/"));
        assert!(!is_root(b"/srv/") && !is_root(b"/srv2/b/"));
        assert!(has_mount(table, 24) && !has_mount(table, 2));
    }

    #[test]
    fn what_is_made_of_memory_does_not_last() {
        let table = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            22 21 0:5 / /run rw shared:1 master:2 - tmpfs none rw\n\
            23 22 0:5 /a /srv/a\\040b rw - tmpfs none rw\n\
            24 21 0:6 / /net rw shared:3 - nfs4 host:/x rw\n";
        let found: Vec<_> = lasting(table).collect();
        assert_eq!(
            found,
            [b"/".to_vec(), b"/srv/a b".to_vec(), b"/net".to_vec()]
        );
    }

    #[test]
    fn file_systems_of_several_hosts_are_known() {
        let table = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            22 21 0:5 / /net rw shared:1 master:2 - nfs4 host:/x rw\n\
            23 22 8:2 / /net/disk rw - xfs /dev/sdb1 rw\n\
            24 21 0:6 / /far rw - fuse.sshfs host: rw\n\
            25 21 0:7 / /pool rw - fuse.mergerfs a:b rw\n\
            26 21 0:8 / /over rw - nfs h:/ rw\n\
            27 21 8:3 / /over rw - ext4 /dev/sdc rw\n";
        let kind = |path: &str| shared_kind(table, path.as_bytes());
        assert_eq!(kind("/net/a/").as_deref(), Some("nfs4"));
        assert_eq!(kind("/far/").as_deref(), Some("fuse.sshfs"));
        for path in ["/", "/netx/", "/net/disk/a/", "/pool/", "/over/"] {
            assert_eq!(kind(path), None, "{path}");
        }
    }
}
