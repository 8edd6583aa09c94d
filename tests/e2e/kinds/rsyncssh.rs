//! default.rsyncssh against the real program, with an ssh that runs its command here as sshd
//! would: through the login shell.

use std::fs;

use super::{Churn, HOSTILE, World};

/// Drops the options and the host; what is left is one text for the shell. The shell's `mv`
/// fails while there is a file `broken`.
const SSH: &str = r#"
printf '%s\n' "$@" >> '@DIR@/words'
while :; do
  case $1 in
    -o|-p|-i|-l) shift 2 ;;
    -*) shift ;;
    *) break ;;
  esac
done
shift
cd '@DIR@/home'
PATH='@DIR@/remote':$PATH
exec sh -c "$*"
"#;

const MV: &str = r#"
if [ -e '@DIR@/broken' ]; then
  echo "mv: cannot move '$1'" >&2
  exit 1
fi
PATH=/usr/bin:/bin
exec mv "$@"
"#;

const CONFIG: &str = r#"
sync{
  default.rsyncssh, source = "@DIR@/src", host = "h", targetdir = "@DIR@/trg", delay = 0.1,
  rsync = { archive = true },
}
"#;

fn world() -> World {
    let world = World::new();
    world.mkdir("remote");
    world.mkdir("home");
    world.program("bin/ssh", SSH);
    world.program("remote/mv", MV);
    world
}

fn started(config: &str) -> World {
    let mut world = world();
    world.start(config);
    world
}

#[test]
fn any_name_is_moved_at_the_target() {
    let mut world = world();
    world.mkdir("src/d");
    let pairs: Vec<_> = HOSTILE
        .iter()
        .flat_map(|name| [(&b""[..], name), (b"d/", name)])
        .map(|(directory, name)| {
            let path = |start: &[u8]| [start, directory, name].concat();
            (path(b""), [directory, b"m", name].concat())
        })
        .collect();
    for (from, _) in &pairs {
        if from.starts_with(b"d/") {
            world.mkdir([b"src/", from.as_slice()].concat())
        } else {
            world.write([b"src/", from.as_slice()].concat(), from)
        }
    }
    world.start(CONFIG);
    world.wait_equal();
    let at = |tree: &str, path: &[u8]| [tree.as_bytes(), b"/", path].concat();
    let inodes: Vec<_> = pairs
        .iter()
        .map(|(from, _)| world.inode(at("trg", from)))
        .collect();
    for (from, to) in &pairs {
        world.rename(at("src", from), at("src", to));
    }
    world.wait_equal();
    for ((_, to), inode) in pairs.iter().zip(inodes) {
        assert_eq!(
            world.inode(at("trg", to)),
            inode,
            "{:?}",
            to.escape_ascii().to_string()
        );
    }
    for directory in ["", "home/", "src/", "trg/"] {
        assert!(!world.path(format!("{directory}pwned")).exists());
    }
    let log = world.log();
    assert!(!log.contains("could not be executed"), "{log}");
    assert!(
        log.contains("Moving new\\012line -> mnew\\012line"),
        "{log}"
    );
}

#[test]
fn a_failing_move_is_sent() {
    for delete in ["true", "false", "\"startup\""] {
        for (from, to) in [("f", "g"), ("d", "e")] {
            let mut world = world();
            world.write("src/f", "1");
            world.mkdir("src/d");
            world.mkdir("src/d/deep");
            world.write("src/d/deep/below", "2");
            world.start(&CONFIG.replace("delay", &format!("delete = {delete}, delay")));
            world.wait_equal();
            world.write("broken", "");
            world.rename(format!("src/{from}"), format!("src/{to}"));
            match delete {
                "true" => world.wait_equal(),
                _ => world.wait("the transfer", |world| {
                    ["f", "g", "d/deep/below", "e/deep/below"]
                        .iter()
                        .filter(|name| world.path(format!("src/{name}")).is_file())
                        .all(|name| world.path(format!("trg/{name}")).is_file())
                }),
            }
            assert!(delete == "true" || world.path(format!("trg/{from}")).exists());
            let log = world.log();
            assert_eq!(log.matches("could not be executed").count(), 1, "{log}");
            assert_eq!(log.matches("Moving ").count(), 1, "{log}");

            fs::remove_file(world.path("broken")).unwrap();
            world.write("src/last", "1");
            world.wait("what comes after it", |world| {
                world.path("trg/last").exists()
            });
        }
    }
}

/// What the filter leaves out depends on the directory: a move would bring too little, and leave
/// too much.
#[test]
fn a_directory_that_the_filter_tells_apart_is_sent() {
    let mut world = world();
    world.mkdir("src/a");
    world.write("src/a/x", "left out here");
    world.write("src/a/f", "1");
    world.write("src/g", "1");
    world.start(&CONFIG.replace("delay", "exclude = { \"/a/x\" }, delay"));
    world.wait("the startup", |world| world.path("trg/a/f").exists());
    assert!(!world.path("trg/a/x").exists());
    world.rename("src/a", "src/b");
    world.wait_equal();
    world.rename("src/g", "src/h");
    world.wait_equal();
    assert_eq!(world.log().matches("Moving ").count(), 1, "{}", world.log());
}

/// The shell's rm would know nothing of the filter.
#[test]
fn a_failing_move_leaves_what_the_filter_protects() {
    let mut world = world();
    world.mkdir("src/d");
    world.write("src/d/f", "1");
    world.start(&CONFIG.replace("delay", "exclude = { \"*.bak\" }, delay"));
    world.wait_equal();
    world.write("trg/d/kept.bak", "");
    world.write("broken", "");
    world.rename("src/d", "src/e");
    world.wait("the transfer", |world| {
        world.path("trg/e/f").exists() && !world.path("trg/d/f").exists()
    });
    assert!(world.path("trg/d/kept.bak").exists());
    assert!(world.log().contains("could not be executed"));
}

#[test]
fn a_move_that_the_target_cannot_follow_does_not_end_the_daemon() {
    let mut world = world();
    world.write("src/f", "1");
    world.start(CONFIG);
    world.wait_equal();
    world.remove("trg/f");
    world.rename("src/f", "src/g");
    world.wait_equal();
}

#[test]
fn the_home_directory_is_the_one_of_the_target() {
    let mut world = world();
    world.mkdir("home/t");
    world.write("home/t/f", "1");
    world.write("src/f", "1");
    let config = CONFIG
        .replace("@DIR@/trg", "~/t")
        .replace("archive = true", "binary = \"true\"");
    world.start(&config);
    world.rename("src/f", "src/it's");
    world.wait("the move", |world| world.path("home/t/it's").exists());
    assert!(!world.path("home/t/f").exists());
}

#[test]
fn an_ssh_that_is_not_configured_is_that_of_rsync() {
    let mut world = world();
    world.mkdir("odd place");
    world.program("odd place/shell", SSH);
    fs::remove_file(world.path("bin/ssh")).unwrap();
    world.write("src/f", "1");
    let rsh = r#"rsh = "'@DIR@/odd place/shell' -p 7 -o 'A=b c'", archive"#;
    world.start(&CONFIG.replace("archive", rsh));
    world.wait_equal();
    fs::remove_file(world.path("words")).unwrap();
    let inode = world.inode("trg/f");
    world.rename("src/f", "src/g");
    world.wait_equal();
    assert_eq!(world.inode("trg/g"), inode);
    let words = fs::read_to_string(world.path("words")).unwrap();
    assert!(words.starts_with("-p\n7\n-o\nA=b c\nh\nmv\n"), "{words}");
}

#[test]
fn the_shell_of_the_environment_carries_moves_too() {
    for ssh in ["", "ssh = { reuse = false },", "ssh = { binary = 'ssh' },"] {
        let mut world = world();
        world.mkdir("odd place");
        world.program("odd place/shell", SSH);
        fs::remove_file(world.path("bin/ssh")).unwrap();
        world.write("src/f", "1");
        let shell = "'@DIR@/odd place/shell' -p 7 -o 'A=b c'";
        let config = CONFIG.replace("rsync =", &format!("{ssh} rsync ="));
        world.start_with(&config, &[("RSYNC_RSH", shell)]);
        world.wait_equal();
        fs::remove_file(world.path("words")).unwrap();
        let inode = world.inode("trg/f");
        world.rename("src/f", "src/g");
        world.wait_equal();
        assert_eq!(world.inode("trg/g"), inode, "{ssh}");
        let words = fs::read_to_string(world.path("words")).unwrap();
        assert!(words.starts_with("-p\n7\n-o\nA=b c\nh\nmv\n"), "{words}");
    }
}

/// A wrapper knows the way to the target, and ssh does not. What is moved is sent; a target that has
/// been reached is waited for.
#[test]
fn without_a_shell_that_works_what_is_moved_is_sent() {
    let mut world = world();
    world.program("bin/shell", SSH);
    world.program("bin/wrapped", "exec rsync -e '@DIR@/bin/shell' \"$@\"");
    world.program(
        "bin/ssh",
        "test -e '@DIR@/reached' || exit 255; . '@DIR@/bin/shell'",
    );
    world.write("src/f", "1");
    let config = CONFIG.replace("archive", "binary = '@DIR@/bin/wrapped', archive");
    world.start(&format!(
        "settings{{ controlSocket = '@DIR@/sock' }} {config}"
    ));
    world.settle();
    world.rename("src/f", "src/g");
    world.write("src/later", "1");
    world.settle();
    let sent = |world: &World| world.log().matches("could not be executed").count();
    assert_eq!(sent(&world), 1, "{}", world.log());
    world.write("reached", "");
    world.rename("src/g", "src/h");
    world.settle();
    world.remove("reached");
    world.rename("src/later", "src/last");
    let failures = |world: &World| world.log().matches("Retrying Move").count();
    let before = failures(&world);
    world.wait("it is tried again and again", |world| {
        failures(world) > before + 1
    });
    world.write("reached", "");
    world.wait_equal();
    assert_eq!(sent(&world), 1, "{}", world.log());
}

/// Other syncs of the source have a renamed directory told with its contents.
#[test]
fn beside_syncs_without_moves_a_directory_is_only_moved() {
    for other in [
        "default.rsync, target = '@DIR@/other', rsync = { archive = true }",
        "onCreate = 'true', onDelete = 'true', init = false",
    ] {
        for moves_first in [true, false] {
            let mut world = world();
            world.mkdir("other");
            world.mkdir("src/d");
            world.mkdir("src/d/e");
            for number in 0..300 {
                world.write(format!("src/d/f{number}"), "1");
            }
            world.write("src/d/e/g", "1");
            let other = format!("sync{{ {other}, source = '@DIR@/src', delay = 0.1 }}\n");
            let config = if moves_first {
                format!("{CONFIG}{other}")
            } else {
                format!("{other}{CONFIG}")
            };
            let mirrors = other.contains("default.rsync");
            world.start(&config);
            world.wait("both startups", |world| {
                let log = world.log();
                let ends = log.lines().filter(|line| line.contains("Startup of"));
                ends.filter(|line| line.contains(" finished")).count() == 1 + usize::from(mirrors)
            });
            let inode = world.inode("trg/d/f7");
            world.rename("src/d", "src/m");
            world.write("src/m/e/new", "2");
            world.wait_equal();
            assert_eq!(world.inode("trg/m/f7"), inode);
            world.wait("the other sync", |world| {
                !mirrors || world.path("other/m/f7").exists()
            });
            let log = world.log();
            assert!(
                log.contains("Moving d/ -> m/\n") && log.contains("/m/e/new\n"),
                "{log}"
            );
            // The list of the other sync names all that is in it.
            let lists = log.split("Calling rsync with filter-list").skip(1);
            let wholes = lists.filter(|list| list.contains("/m/f7\n")).count();
            assert_eq!(wholes, usize::from(mirrors), "{log}");
        }
    }
}

#[test]
fn options_with_blanks_reach_ssh_both_ways() {
    let mut world = world();
    world.program("bin/my ssh", SSH);
    fs::remove_file(world.path("bin/ssh")).unwrap();
    world.write("src/f", "1");
    let ssh = r#"ssh = { binary = "@DIR@/bin/my ssh", identityFile = "/my key/it's" }, rsync"#;
    world.start(&CONFIG.replace("rsync =", &format!("{ssh} =")));
    world.wait_equal();
    world.rename("src/f", "src/g");
    world.wait_equal();
    let words = fs::read_to_string(world.path("words")).unwrap();
    assert_eq!(words.matches("-i\n/my key/it's\nh\n").count(), 2, "{words}");
}

/// The names of what is in a directory.
fn names(world: &World, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(world.path(directory)).into_iter().flatten();
    let mut names: Vec<_> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A user of the target has put a link into a directory of his there.
#[test]
fn nothing_is_moved_through_a_link_at_the_target() {
    // Where the link is, what is moved from where to where.
    let cases = [
        ("u/l", "u/x", "u/l/x"),
        ("u/l", "x", "u/l/x"),
        ("u/l", "u/l/f", "u/y"),
        ("u/l", "u/l/f", "y"),
        ("u", "u/l/f", "v/f"),
        ("u/l", "u/l/d", "v/d"),
    ];
    for delete in ["true", "false", "\"running\""] {
        for (link, from, to) in cases {
            let mut world = world();
            for directory in [
                "src/u",
                "src/u/l",
                "src/u/l/d",
                "src/v",
                "out",
                "out/l",
                "out/d",
            ] {
                world.mkdir(directory);
            }
            for file in ["src/u/x", "src/x", "src/u/l/f", "src/u/l/d/f"] {
                world.write(file, file);
            }
            for file in ["out/f", "out/l/f", "out/d/f"] {
                world.write(file, "precious");
            }
            world.start(&CONFIG.replace("delay", &format!("delete = {delete}, delay")));
            world.wait_equal();
            let at = format!("trg/{link}");
            fs::rename(world.path(&at), world.path("trg/v/put aside")).unwrap();
            world.link(world.path("out").to_str().unwrap(), &at);
            world.rename(format!("src/{from}"), format!("src/{to}"));
            world.wait("what is moved", |world| {
                let there = world.path(format!("trg/{to}"));
                let sent = there.exists() && !world.path(&at).is_symlink();
                sent || (there.exists() && !to.starts_with(link))
            });
            world.wait("the end of it", |world| {
                world.log().contains("Finished (list)")
            });
            let case = format!("{delete}: {link} {from} {to}\n{}", world.log());
            assert_eq!(names(&world, "out"), ["d", "f", "l"], "{case}");
            for file in ["out/f", "out/l/f", "out/d/f"] {
                assert_eq!(fs::read(world.path(file)).unwrap(), b"precious", "{case}");
            }
            assert!(world.log().contains("could not be executed"), "{case}");
        }
    }
}

/// The words of a move are lsyncd's where no link can be on the way.
#[test]
fn moves_are_proven_where_others_may_write() {
    for (mode, from, to, proven) in [
        (0o755, "f", "g", false),
        (0o755, "d", "e", false),
        (0o755, "f", "d/f", true),
        (0o755, "d/b", "b", true),
        (0o757, "f", "g", true),
    ] {
        let mut world = world();
        world.mkdir("src/d");
        world.write("src/f", "1");
        world.write("src/d/b", "1");
        world.chmod("src", mode);
        world.start(CONFIG);
        world.wait_equal();
        let inode = world.inode(format!("trg/{from}"));
        let _ = fs::remove_file(world.path("words"));
        world.rename(format!("src/{from}"), format!("src/{to}"));
        world.wait_equal();
        assert_eq!(world.inode(format!("trg/{to}")), inode);
        let words = fs::read_to_string(world.path("words")).unwrap();
        assert_eq!(words.contains("h\nsh\n-c\n"), proven, "{words}");
        assert_eq!(words.contains("h\nmv\n"), !proven, "{words}");
    }
}

#[test]
fn trees_are_equal_after_random_changes() {
    let seed = super::seed();
    println!("seed {seed}");
    let mut world = started(&CONFIG.replace("0.1", "0.02"));
    // None that leads to a directory: lsyncd's own `mv` at the target would follow it.
    let links = ["nowhere", "../nowhere", "no/where"];
    let mut churn = Churn::new(seed, world.path("src"), links);
    for _ in 0..100 {
        churn.burst();
        world.wait_equal();
    }
}
