//! Files of the daemon in directories where other users may write. Half of the tests need root to
//! act as another user.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lsyncd::daemon::os::pid_file::PidFile;
use lsyncd::log::open_log;
use lsyncd::safe_path::{Access, enter, locate};
use lsyncd::status::atomic_file::write;
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};
use tempfile::TempDir;

/// The user who attacks.
const MALLORY: u32 = 65534;

/// A directory like `/tmp`, in which everybody may create files.
struct Shared {
    root: TempDir,
}

impl Shared {
    fn new(mode: u32) -> Shared {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        let shared = Shared { root };
        shared.mkdir("tmp", mode);
        shared.mkdir("own", 0o755);
        fs::write(shared.at("own/victim"), "precious").unwrap();
        shared
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn mkdir(&self, name: &str, mode: u32) {
        fs::create_dir(self.at(name)).unwrap();
        fs::set_permissions(self.at(name), Permissions::from_mode(mode)).unwrap();
    }

    fn give(&self, name: &str) {
        lchown(self.at(name), Some(MALLORY), Some(MALLORY)).unwrap();
    }

    fn victim(&self) -> String {
        fs::read_to_string(self.at("own/victim")).unwrap()
    }
}

fn put(path: &Path) -> bool {
    write(path, &mut |out| out.write_all(b"status")).is_ok()
}

fn line(path: &Path) -> bool {
    use std::io::Write;
    open_log(path).is_ok_and(|mut log| log.write_all(b"line\n").is_ok())
}

/// Counts a skipped test if this is not root.
fn skipped() -> bool {
    let skip = !geteuid().is_root();
    if skip {
        crate::support::dir::skip("takes root to be another user");
    }
    skip
}

#[test]
fn own_links_are_followed_where_nobody_else_may_write() {
    let shared = Shared::new(0o755);
    symlink("../own/victim", shared.at("tmp/file")).unwrap();
    symlink("own", shared.at("directory")).unwrap();
    symlink(shared.at("directory"), shared.at("absolute")).unwrap();
    symlink("victim", shared.at("own/chain")).unwrap();
    for name in ["tmp/file", "directory/victim", "absolute/chain"] {
        fs::write(shared.at("own/victim"), "").unwrap();
        assert!(put(&shared.at(name)), "{name}");
        assert_eq!(shared.victim(), "status", "{name}");
        assert!(line(&shared.at(name)), "{name}");
        assert_eq!(shared.victim(), "statusline\n", "{name}");
    }
    symlink("not/there", shared.at("broken")).unwrap();
    symlink("loop", shared.at("loop")).unwrap();
    symlink("own/new", shared.at("new")).unwrap();
    assert!(!put(&shared.at("broken")) && !put(&shared.at("loop")));
    assert!(line(&shared.at("new")) && shared.at("own/new").is_file());
}

#[test]
fn links_are_not_followed_where_others_may_write() {
    for mode in [0o1777, 0o777] {
        let shared = Shared::new(mode);
        symlink("../own/victim", shared.at("tmp/file")).unwrap();
        symlink("../own", shared.at("tmp/directory")).unwrap();
        for name in ["tmp/file", "tmp/directory/victim"] {
            let path = shared.at(name);
            assert!(!put(&path) && !line(&path) && locate(&path).is_err());
            assert!(path.symlink_metadata().is_ok());
        }
        assert_eq!(shared.victim(), "precious");
    }
}

#[test]
fn links_of_proc_are_followed_by_the_kernel() {
    let (reader, writer) = io::pipe().unwrap();
    use std::os::fd::AsRawFd;
    for path in ["/proc/self/fd", "/dev/fd"] {
        assert!(line(&Path::new(path).join(writer.as_raw_fd().to_string())));
    }
    drop(writer);
    assert_eq!(io::read_to_string(reader).unwrap(), "line\nline\n");
}

#[test]
fn the_users_who_may_write_are_reported() {
    let shared = Shared::new(0o1777);
    let access = |name: &str| enter(&shared.at(name)).unwrap().access();
    shared.mkdir("tmp/mine", 0o700);
    assert_eq!(access("tmp"), Access::Others);
    assert_eq!(access("tmp/mine"), Access::Private);
    assert!(enter(&shared.at("tmp/mine")).unwrap().is_private());
    fs::set_permissions(shared.at("tmp"), Permissions::from_mode(0o777)).unwrap();
    assert_eq!(access("tmp/mine"), Access::Others);
    assert_eq!(access("own"), Access::Private);
    if skipped() {
        return;
    }
    fs::set_permissions(shared.at("tmp"), Permissions::from_mode(0o1777)).unwrap();
    shared.give("tmp/mine");
    assert_eq!(access("tmp/mine"), Access::Others);
    shared.mkdir("tmp/mine/below", 0o700);
    assert_eq!(access("tmp/mine/below"), Access::Others);
    chown(shared.at("own"), None, Some(MALLORY)).unwrap();
    fs::set_permissions(shared.at("own"), Permissions::from_mode(0o775)).unwrap();
    assert_eq!(access("own"), Access::Group);
}

/// Permits another user to write to a directory by an access control list (acl(5)). Returns false
/// if the file system has none.
fn let_in(directory: &Path) -> bool {
    const NOBODY: u32 = u32::MAX;
    // Owner, the user, group, mask, others.
    let entries = [
        (0x01, 7, NOBODY),
        (0x02, 7, MALLORY),
        (0x04, 5, NOBODY),
        (0x10, 7, NOBODY),
        (0x20, 5, NOBODY),
    ];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        list.extend(u16::to_le_bytes(tag));
        list.extend(u16::to_le_bytes(rights));
        list.extend(u32::to_le_bytes(id));
    }
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(directory, "system.posix_acl_access", &list, flags).is_ok()
}

/// With an access control list, the group bits of the mode are its mask.
#[test]
fn a_user_in_an_access_control_list_is_another_user() {
    for listed in ["own", "own/below"] {
        let shared = Shared::new(0o755);
        shared.mkdir("own/below", 0o700);
        if !let_in(&shared.at(listed)) {
            crate::support::dir::skip("takes a file system with access control lists");
            return;
        }
        let below = enter(&shared.at("own/below")).unwrap();
        assert_eq!(below.access(), Access::Others, "{listed}");
        assert!(!below.is_private() && !below.is_ours(), "{listed}");
        fs::hard_link(shared.at("own/victim"), shared.at("own/below/log")).unwrap();
        assert!(!line(&shared.at("own/below/log")), "{listed}");
        assert_eq!(shared.victim(), "precious");
    }
    // A user with read permission only is not counted.
    let shared = Shared::new(0o755);
    assert!(let_in(&shared.at("own")));
    fs::set_permissions(shared.at("own"), Permissions::from_mode(0o755)).unwrap();
    assert_eq!(enter(&shared.at("own")).unwrap().access(), Access::Private);
}

/// As Debian's /var/log, which belongs to root and may be written by the group of syslog.
#[test]
fn in_a_directory_of_a_group_the_links_of_root_are_followed_and_those_of_members_are_not() {
    if skipped() {
        return;
    }
    let shared = Shared::new(0o775);
    chown(shared.at("tmp"), None, Some(MALLORY)).unwrap();
    symlink("../own/victim", shared.at("tmp/log")).unwrap();
    assert!(line(&shared.at("tmp/log")));
    assert_eq!(shared.victim(), "preciousline\n");
    shared.give("tmp/log");
    assert!(!line(&shared.at("tmp/log")) && !put(&shared.at("tmp/log")));
    assert_eq!(shared.victim(), "preciousline\n");
}

#[test]
fn files_of_another_user_are_not_used() {
    if skipped() {
        return;
    }
    for (mode, owner) in [(0o1777, 0), (0o777, 0), (0o755, MALLORY)] {
        let shared = Shared::new(mode);
        chown(shared.at("tmp"), Some(owner), None).unwrap();
        let file = shared.at("tmp/file");
        let gone = |file: &Path| fs::remove_file(file).unwrap();

        symlink("../own/victim", &file).unwrap();
        shared.give("tmp/file");
        assert!(!put(&file) && !line(&file), "link, {mode:o}");
        gone(&file);

        // A hard link of a file of root, to which lines would be appended.
        fs::hard_link(shared.at("own/victim"), &file).unwrap();
        assert!(!line(&file), "hard link, {mode:o}");
        assert!(put(&file), "hard link, {mode:o}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "status");
        assert_eq!(shared.victim(), "precious");
        gone(&file);

        mkfifo(&file, Mode::S_IRWXU).unwrap();
        shared.give("tmp/file");
        let reader = fs::OpenOptions::new().read(true).write(true).open(&file);
        assert!(!put(&file) && !line(&file), "pipe, {mode:o}");
        drop(reader);
        gone(&file);

        // A file of the owner of the directory is trusted like the directory.
        fs::write(&file, "planted").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        shared.give("tmp/file");
        assert_eq!(line(&file), owner == MALLORY, "file, {mode:o}");
        assert!(put(&file), "file, {mode:o}");
        let new = file.metadata().unwrap();
        assert_eq!(new.uid(), owner, "{mode:o}");
        assert_eq!(new.mode() & 0o022 != 0, owner == MALLORY, "{mode:o}");
    }
}

/// The pid file is opened, locked and replaced; a lock of a foreign file does harm as well.
#[test]
fn a_pid_file_of_another_user_is_not_used() {
    if skipped() {
        return;
    }
    for mode in [0o1777, 0o777] {
        let shared = Shared::new(mode);
        let file = shared.at("tmp/pid");
        symlink("../own/victim", &file).unwrap();
        shared.give("tmp/pid");
        assert!(PidFile::acquire(&file).is_err());
        fs::remove_file(&file).unwrap();
        symlink("../own/new", &file).unwrap();
        shared.give("tmp/pid");
        assert!(PidFile::acquire(&file).is_err() && !shared.at("own/new").exists());
        fs::remove_file(&file).unwrap();
        fs::hard_link(shared.at("own/victim"), &file).unwrap();
        assert!(PidFile::acquire(&file).is_err());
        fs::remove_file(&file).unwrap();
        fs::write(&file, "1\n").unwrap();
        shared.give("tmp/pid");
        assert!(PidFile::acquire(&file).is_err());
        fs::remove_file(&file).unwrap();

        let ours = PidFile::acquire(&file).unwrap();
        let pid = format!("{}\n", std::process::id());
        assert_eq!(fs::read_to_string(&file).unwrap(), pid);
        // A link that has replaced it is not removed.
        fs::rename(&file, shared.at("tmp/aside")).unwrap();
        symlink("../own/victim", &file).unwrap();
        shared.give("tmp/pid");
        ours.remove();
        assert!(file.is_symlink());
        assert_eq!(shared.victim(), "precious");
    }
}

/// Another user exchanges his own directory and a link to a directory of the daemon as fast as
/// possible.
#[test]
fn an_exchanged_directory_on_the_path_is_not_followed() {
    if skipped() {
        return;
    }
    let shared = Shared::new(0o755);
    shared.mkdir("tmp/way", 0o755);
    fs::write(shared.at("tmp/way/victim"), "").unwrap();
    symlink("../own", shared.at("tmp/link")).unwrap();
    for name in ["tmp", "tmp/way", "tmp/way/victim", "tmp/link"] {
        shared.give(name);
    }
    let (way, link) = (shared.at("tmp/way"), shared.at("tmp/link"));
    let over = AtomicBool::new(false);
    let mut tries = [0, 0];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let here = rustix::fs::CWD;
                rustix::fs::renameat_with(here, &way, here, &link, flags).unwrap();
            }
        });
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            let path = way.join("victim");
            let worked = put(&path) | line(&path);
            tries[usize::from(worked)] += 1;
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(shared.victim(), "precious", "{tries:?}");
    assert_eq!(fs::read_dir(shared.at("own")).unwrap().count(), 1);
    assert!(tries.iter().all(|&count| count > 0), "{tries:?}");
}
