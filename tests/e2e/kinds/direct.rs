//! default.direct against the real program: the target has what the source has, of every kind
//! and name, and nothing is changed beside it.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::Signal;

use super::{Churn, HOSTILE, World};

const CONFIG: &str = r#"
sync{ default.direct, source = "@DIR@/src", target = "@DIR@/trg", delay = 0.1 }
"#;

fn world() -> World {
    let mut world = World::new();
    world.start(CONFIG);
    world
}

#[test]
fn all_kinds_and_their_attributes_arrive() {
    let mut world = world();
    world.write("src/file", "1");
    world.link("nowhere", "src/dangling");
    world.link("@DIR@/bin", "src/to a directory");
    nix::unistd::mkfifo(&world.path("src/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    world.mkdir("src/directory");
    world.write("src/directory/below", "2");
    world.wait_equal();

    world.chmod("src/file", 0o751);
    world.chmod("src/directory", 0o710);
    world.wait_equal();
    world.chmod("src/file", 0o444);
    world.wait_equal();
    world.remove("src/file");
    world.write("src/file", "anew");
    world.chmod("src/file", 0o400);
    world.wait_equal();
    for (name, mode) in [("src/directory", 0o500), ("src/directory", 0o755)] {
        world.chmod(name, mode);
        world.wait_equal();
    }
}

#[test]
fn a_directory_that_is_read_only_when_it_comes_is_filled() {
    let mut world = world();
    world.mkdir("module");
    world.mkdir("module/deep");
    world.write("module/deep/file", "1");
    world.chmod("module/deep", 0o555);
    world.rename("module", "src/module");
    world.wait_equal();
    // For whoever clears up after the test.
    world.chmod("src/module/deep", 0o755);
    world.wait_equal();
}

#[test]
fn one_kind_takes_the_place_of_another() {
    let mut world = world();
    world.write("src/x", "1");
    world.wait_equal();
    world.remove("src/x");
    world.mkdir("src/x");
    world.write("src/x/below", "1");
    world.wait_equal();
    world.remove("src/x");
    world.link("elsewhere", "src/x");
    world.wait_equal();
    world.remove("src/x");
    world.mkdir("src/x");
    world.write("src/x/other", "1");
    world.wait_equal();
    world.remove("src/x");
    world.write("src/x", "2");
    world.wait_equal();
}

#[test]
fn any_name_is_created_moved_and_deleted() {
    let mut world = world();
    world.mkdir("src/d");
    for name in HOSTILE {
        world.write([b"src/", *name].concat(), name);
        world.mkdir([b"src/d/", *name].concat());
    }
    world.wait_equal();
    for name in HOSTILE {
        world.rename([b"src/", *name].concat(), [b"src/m", *name].concat());
        world.rename([b"src/d/", *name].concat(), [b"src/d/m", *name].concat());
    }
    world.wait_equal();
    for name in HOSTILE {
        world.remove([b"src/m", *name].concat());
        world.remove([b"src/d/m", *name].concat());
    }
    world.wait_equal();
    assert!(!world.path("pwned").exists());
}

/// Size and time of the file are as before, and the directory was renamed and renamed back.
#[test]
fn a_file_that_was_rewritten_with_its_old_time_is_copied() {
    let mut world = World::new();
    world.mkdir("src/d");
    world.mkdir("src/d/sub");
    world.write("src/d/sub/f", "1111");
    let file = fs::File::options()
        .write(true)
        .open(world.path("src/d/sub/f"));
    let old = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    file.unwrap().set_modified(old).unwrap();
    world.start(&format!(
        "settings{{ controlSocket = '@DIR@/sock' }}\n{CONFIG}"
    ));
    world.settle();
    world.signal(Signal::SIGSTOP);
    world.rename("src/d/sub", "src/d/x");
    world.rename("src/d/x", "src/d/sub");
    world.write("src/d/sub/f", "2222");
    let file = fs::File::options()
        .write(true)
        .open(world.path("src/d/sub/f"));
    file.unwrap().set_modified(old).unwrap();
    world.signal(Signal::SIGCONT);
    world.settle();
    assert_eq!(fs::read(world.path("trg/d/sub/f")).unwrap(), b"2222");
}

/// A directory in the place of another changes the time of the one that it is in.
#[test]
fn directories_have_their_times_after_an_exchange() {
    let mut world = World::new();
    for name in ["src/a", "src/a/d", "src/b", "src/b/d", "src/c", "src/c/d"] {
        world.mkdir(name);
    }
    world.start(&format!(
        "settings{{ controlSocket = '@DIR@/sock' }}\n{CONFIG}"
    ));
    world.settle();
    let [one, other] = ["src/a/d", "src/b/d"].map(|name| world.path(name));
    renameat2(
        AT_FDCWD,
        &one,
        AT_FDCWD,
        &other,
        RenameFlags::RENAME_EXCHANGE,
    )
    .unwrap();
    world.remove("src/c/d");
    world.mkdir("src/c/d");
    world.settle();
    for name in ["a", "b", "c"] {
        let time = |tree: &str| {
            fs::metadata(world.path(format!("{tree}/{name}")))
                .unwrap()
                .modified()
        };
        assert_eq!(time("trg").unwrap(), time("src").unwrap(), "{name}");
    }
}

#[test]
fn moves_are_moves() {
    let mut world = World::new();
    world.start(&format!(
        "settings{{ controlSocket = '@DIR@/sock' }}\n{CONFIG}"
    ));
    world.write("src/f", "1");
    world.mkdir("src/d");
    world.write("src/d/below", "2");
    world.settle();
    let inodes = [world.inode("trg/f"), world.inode("trg/d")];
    world.rename("src/f", "src/d/g");
    world.settle();
    world.rename("src/d", "src/e");
    world.wait_equal();
    assert_eq!([world.inode("trg/e/g"), world.inode("trg/e")], inodes);
}

#[test]
fn moves_that_cannot_be_are_sent() {
    type Spoil = fn(&World);
    let cases: [(&str, &str, Spoil); 4] = [
        ("f", "g", |world| world.remove("trg/f")),
        ("d", "e", |world| world.remove("trg/d")),
        // mv would put one directory into the other.
        ("d", "e", |world| world.mkdir("trg/e")),
        ("f", "g", |world| world.link("@DIR@/bin", "trg/g")),
    ];
    for (from, to, spoil) in cases {
        let mut world = World::new();
        world.write("src/f", "1");
        world.mkdir("src/d");
        world.mkdir("src/d/deep");
        world.write("src/d/deep/below", "2");
        world.start(CONFIG);
        world.wait_equal();
        spoil(&world);
        world.rename(format!("src/{from}"), format!("src/{to}"));
        world.wait_equal();
        world.wait("the end of it", |world| {
            world.log().contains("could not be executed")
        });
        let log = world.log();
        assert_eq!(log.matches("could not be executed").count(), 1, "{log}");
        assert_eq!(fs::read_dir(world.path("bin")).unwrap().count(), 0);
    }
}

#[test]
fn nothing_is_written_through_links_at_the_target() {
    let mut world = world();
    world.mkdir("aside");
    world.write("aside/precious", "precious");
    world.mkdir("src/d");
    world.write("src/f", "1");
    world.wait_equal();
    for name in ["trg/f", "trg/d"] {
        world.remove(name);
    }
    world.link("@DIR@/aside/precious", "trg/f");
    world.link("@DIR@/aside", "trg/d");
    world.write("src/f", "22");
    world.write("src/d/precious", "taken");
    world.wait_equal();
    assert_eq!(fs::read(world.path("aside/precious")).unwrap(), b"precious");

    world.remove("trg/d");
    world.link("@DIR@/aside", "trg/d");
    world.remove("src/d");
    world.wait_equal();
    assert_eq!(fs::read(world.path("aside/precious")).unwrap(), b"precious");
}

#[test]
fn a_failing_copy_stops_nothing_and_is_tried_again() {
    let mut world = World::new();
    // What is excluded stays, and holds the directory in the file's way.
    world.mkdir("trg/bad");
    world.write("trg/bad/x.keep", "kept");
    world.start(&CONFIG.replace("delay", "exclude = \"*.keep\", delay"));
    world.write("src/bad", "1");
    world.write("src/good", "1");
    world.wait("what comes after it", |world| {
        world.path("trg/good").exists()
    });
    world.wait("a warning", |world| {
        world.log().contains("Warn: Sync1: cannot bring /bad: ")
    });
    world.remove("trg/bad/x.keep");
    world.wait_equal();
}

#[test]
fn excluded_files_survive_their_directory() {
    let mut world = World::new();
    let delete = "target = \"@DIR@/trg\", exclude = \"*.keep\"";
    world.start(&CONFIG.replace("target = \"@DIR@/trg\"", delete));
    world.mkdir("src/d");
    world.write("src/d/f", "1");
    world.wait_equal();
    world.write("trg/d/x.keep", "kept");
    world.remove("src/d");
    world.wait("the deletion", |world| !world.path("trg/d/f").exists());
    assert_eq!(fs::read(world.path("trg/d/x.keep")).unwrap(), b"kept");
}

#[test]
fn without_delete_directories_move_whole() {
    let mut world = World::new();
    world.start(&CONFIG.replace("delay", "delete = false, delay"));
    world.mkdir("src/d");
    world.mkdir("src/d/deep");
    world.write("src/d/deep/f", "1");
    world.wait_equal();
    world.mkdir("trg/e");
    world.rename("src/d", "src/e");
    world.wait("the copy", |world| world.path("trg/e/deep/f").exists());
    assert!(world.path("trg/d/deep/f").exists());
}

#[test]
fn trees_are_equal_after_random_changes() {
    let seed = super::seed();
    for (processes, seed) in [(1, seed), (3, seed + 1)] {
        println!("seed {seed}");
        let mut world = World::new();
        let own = format!("maxProcesses = {processes}, delay");
        world.start(&CONFIG.replace("delay", &own).replace("0.1", "0.02"));
        let mut churn = Churn::new(seed, world.path("src"), ["a", "../b", "nowhere"]);
        for _ in 0..100 {
            churn.burst();
            world.wait_equal();
        }
    }
}
