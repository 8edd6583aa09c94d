//! rsync with the arguments and lists of `batch` makes the target equal to the source.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::batch_world::{
    NAMES, Setup, World, assert_same, churn, describe, inside, run, slash, snapshot,
};
use crate::support::script::write_script;
use lsyncd::batch::{Change, ListMode, ListStrategy, TransferKind};

#[test]
fn a_local_target_is_equal_after_random_changes() {
    assert!(churn(0..30, |_| Setup::new(ListMode::Auto)) > 5);
}

#[test]
fn a_remote_target_is_equal_after_random_changes() {
    assert!(churn(100..115, |world| Setup::remote(world.dir.path())) > 3);
}

#[test]
fn a_target_is_equal_with_filters() {
    let lines = ["+ x.bak", "- *.bak"];
    churn(200..208, |world| {
        Setup::remote(world.dir.path()).with_filters(&lines)
    });
    let lines = ["- *.bak", "- /none/"];
    churn(220..230, |_| {
        Setup::new(ListMode::Auto).with_filters(&lines)
    });
}

#[test]
fn a_target_is_equal_with_the_include_list() {
    assert_eq!(churn(300..315, |_| Setup::new(ListMode::Filter)), 0);
}

#[test]
fn options_that_need_recursion_get_the_classic_call() {
    let setup = |_: &World| Setup::new(ListMode::Auto).with_word("--one-file-system");
    assert_eq!(churn(400..408, setup), 0);
}

#[test]
fn archive_mode_does_not_recurse() {
    assert!(churn(500..508, |_| Setup::new(ListMode::Auto).with_word("-a")) > 1);
}

#[test]
fn without_delete_nothing_is_deleted() {
    for list in [ListMode::Auto, ListMode::Filter] {
        let setup = || Setup {
            delete: false,
            ..Setup::new(list)
        };
        churn(600..608, |_| setup());
        let mut world = World::new(0);
        world.write(b"/gone");
        world.write(b"/kept");
        world.full_sync();
        world.remove(b"/gone");
        world.write(b"/kept");
        world.transfer(&setup());
        assert!(world.target().join("gone").exists());
    }
}

/// Files with every hostile name, in directories with every hostile name: new, changed,
/// deleted, and deleted with their directory.
#[test]
fn hostile_names_are_sent_and_deleted() {
    for list in [ListMode::Auto, ListMode::Filter] {
        let setup = Setup::new(list);
        let mut world = World::new(0);
        world.mkdir(b"/twins");
        for name in NAMES {
            for place in [b"/".as_slice(), b"/twins/"] {
                let directory = [place, name].concat();
                world.mkdir(&directory);
                world.write(&[&directory, b"/".as_slice(), name].concat());
                world.write(&[directory.as_slice(), b"/deleted", name].concat());
            }
        }
        world.transfer(&setup);
        assert_same(
            &snapshot(&world.source()),
            &snapshot(&world.target()),
            "new",
        );

        world.full_sync();
        for name in NAMES {
            let directory = [b"/", *name].concat();
            world.write(&[&directory, b"/".as_slice(), name].concat());
            world.remove(&[directory.as_slice(), b"/deleted", name].concat());
            // A move out of the tree causes no events for the contents.
            let directory = [b"/twins/", *name].concat();
            fs::remove_dir_all(world.at(&directory)).unwrap();
            world.note(Change::Delete, &slash(&directory));
        }
        let transfer = world.transfer(&setup);
        assert_eq!(
            transfer.kind == TransferKind::Classic,
            list == ListMode::Filter
        );
        assert_same(
            &snapshot(&world.source()),
            &snapshot(&world.target()),
            "changed",
        );
    }
}

/// Returns a world whose `/d` and `/e` contain excluded files on the target only.
fn with_excluded() -> World {
    let mut world = World::new(0);
    for name in ["/d", "/d/sub", "/e"] {
        world.mkdir(name.as_bytes());
    }
    for name in ["/d/f", "/d/sub/g", "/e/h", "/same"] {
        world.write(name.as_bytes());
    }
    world.full_sync();
    for name in ["d/kept.bak", "d/sub/kept.bak", "e/kept.bak"] {
        fs::write(world.target().join(name), "").unwrap();
    }
    world
}

fn target_files(world: &World) -> Vec<String> {
    let mut files = inside(&world.target());
    files.retain(|path| !path.ends_with(b"/"));
    files
        .iter()
        .map(|path| path.escape_ascii().to_string())
        .collect()
}

#[test]
fn excluded_files_keep_their_directory() {
    let filters = ["- *.bak"];
    let kept = [
        "/d/kept.bak",
        "/d/sub/kept.bak",
        "/e/h",
        "/e/kept.bak",
        "/same",
    ];
    for setup in [
        |_: &World| Setup::new(ListMode::Auto),
        |_: &World| Setup::new(ListMode::Filter),
        |world: &World| Setup::remote(world.dir.path()),
    ] {
        let mut world = with_excluded();
        world.remove(b"/d");
        world.transfer(&setup(&world).with_filters(&filters));
        assert_eq!(target_files(&world), kept);

        let mut world = with_excluded();
        world.remove(b"/d");
        let setup = Setup {
            delete_excluded: true,
            ..setup(&world).with_filters(&filters)
        };
        world.transfer(&setup);
        assert_eq!(target_files(&world), kept[2..]);
    }
}

/// A new directory replaces another one: the old contents are deleted with or without events, and
/// excluded files stay.
#[test]
fn a_replaced_directory_loses_its_old_contents() {
    for filters in [
        &["- *.bak"][..],
        &["- *.bak", "+ *.txt", "- *.log"],
        &["+ *.bak.txt", "- *.bak"],
    ] {
        for setup in [
            |_: &World| Setup::new(ListMode::Auto),
            |world: &World| Setup::remote(world.dir.path()),
        ] {
            let mut world = with_excluded();
            fs::remove_dir_all(world.at(b"/d")).unwrap();
            world.note(Change::Delete, b"/d/");
            world.mkdir(b"/d");
            world.write(b"/d/new");
            fs::write(world.at(b"/d/secret.bak"), "").unwrap();
            fs::write(world.at(b"/other.txt"), "").unwrap();
            world.transfer(&setup(&world).with_filters(filters));
            let left = target_files(&world);
            let expected = [
                "/d/kept.bak",
                "/d/new",
                "/d/sub/kept.bak",
                "/e/h",
                "/e/kept.bak",
            ];
            assert_eq!(left[..5], expected);
            assert_eq!(left[5..], ["/same"]);
        }
    }
}

/// rsync considers files of equal size and second as equal.
#[test]
fn a_change_in_the_second_of_the_last_transfer_arrives() {
    // A file that was deleted and created again is another file.
    let changes = [Change::Modify, Change::Create, Change::Delete];
    let lists = [ListMode::Auto, ListMode::Filter];
    for (list, change) in lists
        .into_iter()
        .flat_map(|list| changes.map(|c| (list, c)))
    {
        let mut world = World::new(0);
        world.note(change, b"/f");
        let now = SystemTime::now();
        let times = FileTimes::new().set_modified(now);
        for (place, text) in [(world.source(), "new"), (world.target(), "old")] {
            fs::write(place.join("f"), text).unwrap();
            File::options()
                .write(true)
                .open(place.join("f"))
                .unwrap()
                .set_times(times)
                .unwrap();
        }
        let text = |world: &World| fs::read_to_string(world.target().join("f")).unwrap();

        let hour = Duration::from_secs(3600);
        world.last_transfer = Some(now - hour);
        world.transfer(&Setup::new(list));
        assert_eq!(text(&world), "old", "rsync's quick check has become better");

        world.last_transfer = Some(now);
        world.transfer(&Setup::new(list));
        assert_eq!(text(&world), "new");
    }
}

#[test]
fn a_lost_source_deletes_nothing() {
    for list in [ListMode::Auto, ListMode::Filter] {
        let mut world = with_excluded();
        world.remove(b"/d");
        world.remove(b"/same");
        fs::remove_dir_all(world.source()).unwrap();
        let transfer = world.prepare(&mut ListStrategy::new(), &Setup::new(list));
        let (code, output) = run(&transfer);
        assert_eq!(code, 23, "{output}");
        assert!(world.target().join("same").exists());
    }
}

#[test]
fn a_change_of_the_root_sends_its_attributes() {
    let mut world = World::new(0);
    world.write(b"/f");
    world.full_sync();
    fs::set_permissions(world.source(), Permissions::from_mode(0o700)).unwrap();
    fs::write(world.at(b"/unlisted"), "").unwrap();
    world.note(Change::Attrib, b"/");
    world.transfer(&Setup::new(ListMode::Auto));
    assert_eq!(fs::metadata(world.target()).unwrap().mode() & 0o777, 0o700);
    assert!(!world.target().join("unlisted").exists());
}

/// Wrappers read the list themselves, so they always get the include list. Only for a deleted
/// directory do they get the rules of the sync, which protect its contents.
#[test]
fn a_wrapper_gets_the_include_list() {
    let mut world = with_excluded();
    let wrapper = world.dir.path().join("rsync");
    write_script(&wrapper, "exec rsync \"$@\"");
    world.write(b"/e/h");
    world.remove(b"/d");
    world.note(Change::Delete, b"/d/");
    let mut setup = Setup::new(ListMode::Auto).with_filters(&["- *.bak"]);
    setup.binary = wrapper.into_os_string().into_encoded_bytes();
    let transfer = world.prepare(&mut ListStrategy::new(), &setup);
    let words = &transfer.args[..transfer.args.len() - 2];
    assert_eq!(
        words.join(b" ".as_slice()).escape_ascii().to_string(),
        "-lptgoDs -r --delete --ignore-errors --filter=- *.bak --force --from0 --include-from=- \
         --exclude=*"
    );
    assert!(transfer.list.starts_with(b"/e/h\0/e/\0/"));
    setup.filters.clear();
    let transfer = world.prepare(&mut ListStrategy::new(), &setup);
    let words = &transfer.args[..transfer.args.len() - 2];
    assert_eq!(
        words.join(b" ".as_slice()).escape_ascii().to_string(),
        "-lptgoDs -r --delete --ignore-errors --force --from0 --include-from=- --exclude=*"
    );

    setup.list = ListMode::FilesFrom;
    let transfer = world.prepare(&mut ListStrategy::new(), &setup);
    assert_eq!(transfer.kind, TransferKind::FilesFrom { missing: true });
}

/// An old remote rsync is probed once.
#[test]
fn a_remote_rsync_without_the_option_is_remembered() {
    let mut world = with_excluded();
    let old = world.dir.path().join("old-rsync");
    write_script(
        &old,
        "for word; do if [ \"$word\" = --delete-missing-args ]; then\n\
         echo \"rsync: $word: unknown option\" >&2; exit 1; fi; done\nexec rsync \"$@\"",
    );
    let path = format!("--rsync-path={}", old.display());
    // Without -s, so that the script gets the options.
    let mut setup = Setup::remote(world.dir.path()).with_word(&path);
    setup.words[0] = b"-lptgoD".to_vec();
    world.remove(b"/same");

    let mut chooser = ListStrategy::new();
    let transfer = world.prepare(&mut chooser, &setup);
    assert_eq!(transfer.kind, TransferKind::FilesFrom { missing: true });
    let (code, output) = run(&transfer);
    assert_eq!(code, 12, "{output}");
    assert!(
        chooser
            .failed(transfer.kind, code, output.lines())
            .is_some()
    );

    let transfer = world.prepare(&mut chooser, &setup);
    let (code, output) = run(&transfer);
    assert_eq!(
        (transfer.kind, code),
        (TransferKind::Classic, 0),
        "{output}"
    );
    assert!(!world.target().join("same").exists());

    world.events.clear();
    world.write(b"/e/h");
    let transfer = world.prepare(&mut chooser, &setup);
    assert_eq!(transfer.kind, TransferKind::FilesFrom { missing: false });
    assert_eq!(run(&transfer).0, 0);
}

/// Before rsync reads the source, a directory of another user becomes a link to files outside.
#[test]
fn a_directory_that_becomes_a_link_is_not_followed() {
    let confined = Command::new("rsync")
        .args(["--insecure-links", "--version"])
        .output();
    let owner = match nix::unistd::geteuid().is_root() {
        true => 65534,
        // This rsync follows links of its own user.
        false if confined.unwrap().status.success() => return,
        false => nix::unistd::geteuid().as_raw(),
    };
    let open = Permissions::from_mode(0o777);
    for change in [Change::Create, Change::Modify, Change::Attrib] {
        for host in [b"".as_slice(), b"h:"] {
            let mut world = World::new(7);
            fs::create_dir_all(world.at(b"/u/d/e")).unwrap();
            for name in [b"/u/d/f".as_slice(), b"/u/d/e/f"] {
                world.write(name);
            }
            fs::set_permissions(world.at(b"/u"), open.clone()).unwrap();
            world.full_sync();
            let outside = world.dir.path().join("outside");
            fs::create_dir_all(outside.join("e")).unwrap();
            for name in ["f", "e/f"] {
                fs::write(outside.join(name), "secret").unwrap();
            }
            world.note(change, b"/u/d/f");
            world.note(change, b"/u/d/e/f");
            let setup = match host {
                b"" => Setup::new(ListMode::Auto),
                _ => Setup::remote(world.dir.path()),
            };
            let transfer = world.prepare(&mut ListStrategy::new(), &setup);
            fs::rename(world.at(b"/u/d"), world.dir.path().join("away")).unwrap();
            symlink(&outside, world.at(b"/u/d")).unwrap();
            std::os::unix::fs::lchown(world.at(b"/u/d"), Some(owner), None).unwrap();
            run(&transfer);
            let follows = fs::metadata(world.target().join("u/d")).is_ok();
            let real = fs::symlink_metadata(world.target().join("u/d"));
            let is_link = real.is_ok_and(|data| data.is_symlink());
            for name in ["u/d/f", "u/d/e/f"] {
                let content = fs::read(world.target().join(name)).unwrap_or_default();
                assert!(
                    is_link || !follows || content != b"secret",
                    "{change:?} {}",
                    describe(&transfer)
                );
            }
        }
    }
}
