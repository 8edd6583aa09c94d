//! Changes while the daemon is stopped, which it reads late and all at once, and changes while a
//! transfer runs.

use crate::support::daemon::{Daemon, MIRROR};
use crate::support::dir::{Dir, poll};
use crate::support::fake::{Fake, HELD};

/// Prepares a tree, stops the idle daemon, makes changes, and continues it.
fn catches_up(prepare: impl Fn(&Dir), changes: impl Fn(&Dir)) {
    let dir = Dir::new();
    prepare(&dir);
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    daemon.wait_equal();
    daemon.stop();
    changes(&dir);
    daemon.cont();
    daemon.wait_equal();
    dir.write("sign", "still alive");
    daemon.wait_equal();
}

#[test]
fn deep_directories_made_at_once_with_files() {
    catches_up(
        |_| {},
        |dir| {
            dir.mkdir("a/b/c/d/e");
            for path in ["a/f", "a/b/f", "a/b/c/f", "a/b/c/d/f", "a/b/c/d/e/f"] {
                dir.write(path, path);
            }
        },
    );
}

#[test]
fn directory_made_filled_and_renamed() {
    catches_up(
        |_| {},
        |dir| {
            dir.mkdir("a/b");
            dir.write("a/b/f", "1");
            dir.mv("a", "c");
            dir.write("c/b/g", "2");
        },
    );
}

#[test]
fn directory_removed_and_made_again() {
    catches_up(
        |dir| {
            dir.mkdir("d/old");
            dir.write("d/f", "1");
            dir.write("d/old/g", "1");
        },
        |dir| {
            dir.rm("d");
            dir.mkdir("d");
            dir.write("d/f", "22");
        },
    );
}

#[test]
fn changes_below_a_directory_that_is_then_renamed_twice() {
    catches_up(
        |dir| {
            dir.mkdir("a/s");
            dir.write("a/s/f", "1");
        },
        |dir| {
            dir.append("a/s/f", "2");
            dir.mv("a", "b");
            dir.append("b/s/f", "3");
            dir.mv("b", "c");
            dir.write("c/s/g", "4");
        },
    );
}

#[test]
fn names_exchanged_by_three_renames() {
    catches_up(
        |dir| {
            for name in ["a", "b"] {
                dir.mkdir(name);
                dir.write(format!("{name}/f"), format!("was in {name}"));
            }
            dir.append("b/f", " and is longer");
        },
        |dir| {
            dir.mv("a", "t");
            dir.mv("b", "a");
            dir.mv("t", "b");
            dir.write("a/g", "new in a");
            dir.write("b/h", "new in b");
        },
    );
}

#[test]
fn two_files_moved_onto_the_same_name() {
    catches_up(
        |dir| {
            dir.write("a", "from a");
            dir.write("c", "it came from c");
        },
        |dir| {
            dir.mv("a", "b");
            dir.mv("c", "b");
        },
    );
}

#[test]
fn tree_moved_out_and_another_moved_in_under_its_name() {
    catches_up(
        |dir| {
            dir.mkdir("d/s");
            dir.write("d/s/f", "1");
            std::fs::create_dir_all(dir.path("other/t")).unwrap();
            std::fs::write(dir.path("other/t/g"), "2").unwrap();
        },
        |dir| {
            std::fs::rename(dir.src("d"), dir.path("left")).unwrap();
            std::fs::rename(dir.path("other"), dir.src("d")).unwrap();
            std::fs::write(dir.path("left/s/f"), "changed where nobody looks").unwrap();
        },
    );
}

#[test]
fn file_made_and_removed_at_once() {
    catches_up(
        |_| {},
        |dir| {
            dir.write("f", "1");
            dir.rm("f");
            dir.mkdir("d/e");
            dir.rm("d");
        },
    );
}

/// Each file type is replaced by each other type.
#[test]
fn file_directory_and_symlink_swapped() {
    const KINDS: [&str; 4] = ["file", "dir", "full", "link"];
    let make = |dir: &Dir, name: &str, kind: &str, content: &str| match kind {
        "file" => dir.write(name, content),
        "dir" => dir.mkdir(name),
        "full" => {
            dir.mkdir(format!("{name}/s"));
            dir.write(format!("{name}/s/{content}"), content);
        }
        _ => dir.symlink("elsewhere", name),
    };
    let pairs = || {
        KINDS
            .iter()
            .flat_map(|from| KINDS.iter().map(move |to| (*from, *to)))
    };
    catches_up(
        |dir| {
            dir.mkdir("elsewhere");
            dir.write("elsewhere/kept", "kept");
            for (from, to) in pairs() {
                make(dir, &format!("{from}-{to}"), from, "before");
            }
        },
        |dir| {
            for (from, to) in pairs() {
                let name = format!("{from}-{to}");
                dir.rm(&name);
                make(dir, &name, to, "then");
            }
        },
    );
}

#[test]
fn kinds_swapped_several_times() {
    catches_up(
        |dir| dir.write("x", "file"),
        |dir| {
            for n in 0..20 {
                dir.rm("x");
                dir.mkdir("x/d");
                dir.write("x/d/f", n.to_string());
                dir.rm("x");
                dir.symlink("y", "x");
                dir.rm("x");
                dir.write("x", format!("file {n}"));
            }
        },
    );
}

/// More events than the queue of the kernel holds (16,384 by default).
#[test]
fn twenty_thousand_files_while_stopped() {
    catches_up(
        |_| {},
        |dir| {
            for n in 0..200 {
                dir.mkdir(format!("d{n}"));
            }
            for n in 0..20_000 {
                dir.write(format!("d{}/{n}", n % 200), "");
            }
        },
    );
}

#[test]
fn twenty_thousand_files_in_one_batch() {
    let dir = Dir::new();
    for n in 0..100 {
        dir.mkdir(format!("d{n}"));
    }
    let config = MIRROR.replace("delay = 0.3", "delay = 5, maxDelays = 1000000");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    for n in 0..20_000 {
        dir.write(format!("d{}/{n}", n % 100), "");
    }
    daemon.wait_equal();
}

/// Two threads move directories between directories, while two others write into them.
#[test]
fn moves_and_writes_at_the_same_time() {
    let dir = Dir::new();
    for n in 0..4 {
        dir.mkdir(format!("p{n}/d/s"));
        dir.mkdir(format!("q{n}"));
    }
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    std::thread::scope(|scope| {
        for n in 0..4 {
            let dir = &dir;
            scope.spawn(move || {
                for round in 0..150 {
                    let (from, to) = if round % 2 == 0 {
                        ("p", "q")
                    } else {
                        ("q", "p")
                    };
                    dir.mv(format!("{from}{n}/d"), format!("{to}{n}/d"));
                    dir.write(format!("{to}{n}/d/s/{round}"), round.to_string());
                    if round % 3 == 0 {
                        dir.rm(format!("{to}{n}/d/s/{round}"));
                    }
                }
            });
        }
    });
    daemon.wait_equal();
}

/// `mkdir` and `touch` without a pause: each watch is added after the file was created.
#[test]
fn five_hundred_directories_filled_at_once() {
    let dir = Dir::new();
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    for n in 0..500 {
        dir.mkdir(format!("d{n}/e"));
        dir.write(format!("d{n}/f"), "1");
        dir.write(format!("d{n}/e/g"), "2");
    }
    daemon.wait_equal();
}

#[test]
fn directories_made_and_removed_at_once() {
    let dir = Dir::new();
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    for _ in 0..500 {
        dir.mkdir("d/e");
        dir.rm("d");
    }
    dir.write("sign", "1");
    daemon.wait_equal();
    assert!(!daemon.log().contains("Error"), "{}", daemon.log());
}

/// The startup transfer has skipped the file already.
#[test]
fn changes_during_the_startup_transfer() {
    let dir = Dir::new();
    dir.mkdir("d");
    dir.write("d/f", "1");
    dir.write("gone", "1");
    let fake = Fake::passing(&dir);
    fake.hold();
    let mut daemon = Daemon::new(&dir, HELD).fake_first().start();
    daemon.wait_for("startup transfer began", |_| !fake.calls().is_empty());
    dir.write("d/f", "changed");
    dir.write("d/new", "1");
    dir.rm("gone");
    fake.release();
    daemon.wait_equal();
    daemon.wait_for("changes were sent once more", |_| fake.ended() >= 2);
    let batch = &fake.calls()[1];
    for name in ["/d/f", "/d/new", "/gone"] {
        assert!(batch.lists(name), "{name} not in {:?}", batch.stdin);
    }
    daemon.wait_equal();
}

/// The startup transfer has sent the file; it changes before that transfer ends.
#[test]
fn change_behind_the_back_of_a_running_transfer() {
    let dir = Dir::new();
    dir.write("f", "1");
    let fake = Fake::new(&dir);
    fake.hold();
    let mut daemon = Daemon::new(&dir, HELD).start();
    daemon.wait_for("startup transfer began", |_| !fake.calls().is_empty());
    fake.release();
    daemon.wait_for("startup transfer ended", |_| fake.ended() >= 1);
    fake.hold();
    dir.append("f", "2");
    daemon.wait_for("first batch began", |_| fake.calls().len() >= 2);
    dir.append("f", "3");
    dir.write("g", "1");
    fake.release();
    daemon.wait_for("second batch ended", |_| fake.ended() >= 3);
    assert!(fake.calls()[1].lists("/f"));
    let later = || fake.calls().into_iter().skip(2);
    daemon.wait_for("both are sent by a later batch", |_| {
        later().any(|call| call.lists("/f")) && later().any(|call| call.lists("/g"))
    });
}

#[test]
fn burst_while_a_transfer_hangs() {
    let dir = Dir::new();
    let fake = Fake::passing(&dir);
    let mut daemon = Daemon::new(&dir, HELD).start_and_settle();
    fake.hold_a_transfer(&mut daemon);
    for n in 0..5000 {
        dir.write(format!("n{n}"), "");
    }
    fake.release();
    daemon.wait_equal();
}

/// The child ends before it has read a list that is larger than a pipe.
#[test]
fn transfer_that_does_not_read_its_list() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, 12, 0]);
    let config = HELD.replace("delay = 0.3", "delay = 1");
    let mut daemon = Daemon::new(&dir, &config).start_and_settle();
    dir.put("fake/noread", "");
    let long = "n".repeat(200);
    daemon.stop();
    for n in 0..2000 {
        dir.write(format!("{long}{n}"), "");
    }
    daemon.cont();
    daemon.wait_for("list was given up", |_| fake.ended() >= 2);
    std::fs::remove_file(dir.path("fake/noread")).unwrap();
    daemon.wait_for("list was sent again", |_| {
        let calls = fake.calls();
        let sent = |n: usize| {
            calls
                .iter()
                .skip(2)
                .any(|c| c.lists(&format!("/{long}{n}")))
        };
        sent(0) && sent(1999)
    });
}

/// The daemon is killed during a transfer and started again.
#[test]
fn killed_and_started_again() {
    let dir = Dir::new();
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    for n in 0..200 {
        dir.mkdir(format!("d{n}"));
        dir.write(format!("d{n}/f"), n.to_string());
    }
    assert!(poll(|| dir.trg("d0").exists()), "{}", daemon.log());
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.wait_all_gone();
    dir.rm("d7");
    dir.write("d8/f", "changed while nobody looked");
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    daemon.wait_equal();
}
