//! Moves on the target of default.rsyncssh, as commands for the login shell.

use super::quoting::{push_quoted, remote_word};
use crate::paths;

/// Returns lsyncd's command that moves a path below a directory of the target, or removes it if that
/// fails. A directory at the destination is entered.
pub fn move_words(directory: &[u8], from: &[u8], to: &[u8]) -> Vec<Vec<u8>> {
    let from = remote_word(directory, from);
    let mut words = vec![b"mv".to_vec(), from.clone(), remote_word(directory, to)];
    words.extend([&b"||"[..], b"rm", b"-rf"].map(<[u8]>::to_vec));
    words.push(from);
    words
}

/// Moves an entry on the target, for a POSIX shell, without following symbolic links of users of
/// the target. The arguments are the target's directory, the directory of the origin in it and the
/// name there, the directory of the destination and the name there.
///
/// The script first enters a directory and then checks its path, so the directory cannot be
/// replaced between check and use. The directory of the origin is kept open and named through
/// /proc, if that exists; the directory of the destination is the working directory. If the
/// destination is a directory or a link to one, mv would move the entry into it; `-T` prevents this
/// if mv supports it.
///
/// The script is one line without `'`, `\\` and `!`, which csh and fish interpret within quotes.
const CHECKED_MOVE: &str = concat!(
    r#"fail() { echo "mv: $1" >&2; exit 1; }; "#,
    r#"enter() { cd -P "./$1" && path=$(pwd -P && echo .) && path=${path%?.} || exit 1; "#,
    r#"want=$top; test -z "$1" || want=${top%/}/$1; "#,
    r#"test "$path" = "$want" || fail "a directory on the way is a symbolic link"; }; "#,
    r#"cd -P "$1" && top=$(pwd -P && echo .) && top=${top%?.} || exit 1; "#,
    r#"enter "$2"; exec 3<. || exit 1; from=/proc/$$/fd/3; "#,
    r#"open=$(cd -P "$from" 2>/dev/null && pwd -P && echo .); "#,
    r#"if test -z "$open"; then from=$path; "#,
    r#"else test "${open%?.}" = "$path" || fail "a directory on the way was exchanged"; fi; "#,
    r#"cd -P "$top" || exit 1; enter "$4"; flag=; "#,
    r#"case $(mv --help 2>&1) in *-T*) flag=-T;; *) "#,
    r#"if test -h "./$5" || test -d "./$5"; then fail "the destination is a directory"; fi;; esac; "#,
    r#"mv $flag -- "$from/$3" "./$5"; exit $?"#,
);

/// Returns the command that moves a path below a directory of the target in which other users may
/// change directories, or at whose destination a directory may be. If a component is a symlink, or
/// the destination a directory that is not empty, nothing is moved and the command fails.
pub fn proven_move_words(directory: &[u8], from: &[u8], to: &[u8]) -> Vec<Vec<u8>> {
    let quoted = |text: &[u8]| {
        let mut word = Vec::new();
        push_quoted(&mut word, text);
        word
    };
    let mut words = vec![
        b"sh".to_vec(),
        b"-c".to_vec(),
        quoted(CHECKED_MOVE.as_bytes()),
        b"mv".to_vec(),
        remote_word(directory, b""),
    ];
    for path in [from, to] {
        let (parent, name) = paths::split(paths::relative(path));
        words.extend([quoted(paths::bare(parent)), quoted(name)]);
    }
    words
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;

    const SHELLS: [&str; 4] = ["/bin/sh", "/bin/bash", "/usr/bin/ksh", "/usr/bin/busybox"];

    /// Returns the installed shells, as sshd would run them.
    fn shells() -> Vec<&'static str> {
        let here = SHELLS.into_iter().filter(|shell| Path::new(shell).exists());
        here.collect()
    }

    fn run(shell: &str, words: &[Vec<u8>]) -> bool {
        let mut text = words.join(&b' ');
        if shell != "/bin/sh" {
            // The shell named in the command is replaced as well.
            let sh = [shell.as_bytes(), b" -c"].concat();
            text.splice(..b"sh -c".len(), sh);
        }
        let output = Command::new("/bin/sh")
            .arg("-c")
            .arg(OsStr::from_bytes(&text))
            .current_dir("/")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), said.is_empty(), "{said}");
        output.status.success()
    }

    struct World(tempfile::TempDir);

    impl World {
        fn new() -> World {
            let world = World(tempfile::tempdir().unwrap());
            for directory in ["trg/u/l", "trg/v/w", "out"] {
                fs::create_dir_all(world.at(directory)).unwrap();
            }
            fs::write(world.at("out/x"), "precious").unwrap();
            world
        }

        fn at(&self, name: impl AsRef<Path>) -> PathBuf {
            self.0.path().join(name)
        }

        fn move_by(&self, shell: &str, from: &[u8], to: &[u8]) -> bool {
            let target = self.at("trg");
            run(
                shell,
                &proven_move_words(target.as_os_str().as_bytes(), from, to),
            )
        }

        fn outside_is_as_it_was(&self) -> bool {
            let names = fs::read_dir(self.at("out")).unwrap().count();
            names == 1 && fs::read(self.at("out/x")).unwrap() == b"precious"
        }
    }

    #[test]
    fn anything_is_moved_where_no_link_is_on_the_way() {
        for shell in shells() {
            let world = World::new();
            for name in ["plain", "-n", "it's", "a b\nc\n", "$HOME`id`\\\\", "\"*"] {
                for (from, to) in [("", ""), ("u/l/", ""), ("", "v/w/"), ("u/", "v/w/")] {
                    let (from, to) = (format!("{from}{name}"), format!("{to}to{name}"));
                    fs::write(world.at("trg").join(&from), name).unwrap();
                    let paths = [from.clone(), to.clone()].map(|path| format!("/{path}"));
                    assert!(
                        world.move_by(shell, paths[0].as_bytes(), paths[1].as_bytes()),
                        "{shell}: {paths:?}"
                    );
                    assert_eq!(fs::read_to_string(world.at("trg").join(to)).unwrap(), name);
                    assert!(!world.at("trg").join(from).exists());
                }
                let (odd, moved) = (format!("/u/d{name}/"), format!("/v/w/d{name}/"));
                fs::create_dir(world.at("trg").join(&odd[1..])).unwrap();
                let below = format!("{odd}f");
                fs::write(world.at("trg").join(&below[1..]), "").unwrap();
                assert!(world.move_by(shell, below.as_bytes(), b"/f"));
                assert!(world.move_by(shell, odd.as_bytes(), moved.as_bytes()));
                assert!(world.at("trg").join(&moved[1..]).is_dir());
            }
        }
    }

    #[test]
    fn nothing_is_moved_through_a_link() {
        for shell in shells() {
            let world = World::new();
            fs::write(world.at("trg/f"), "").unwrap();
            symlink("../../out", world.at("trg/u/out")).unwrap();
            symlink(world.at("out"), world.at("trg/out")).unwrap();
            symlink("l", world.at("trg/u/inner")).unwrap();
            for (from, to) in [
                ("/f", "/u/out/f"),
                ("/f", "/out/f"),
                ("/f", "/u/inner/f"),
                ("/u/out/x", "/x"),
                ("/out/x", "/u/x"),
                ("/u/out/x", "/u/l/x"),
                ("/f", "/u/gone/f"),
                ("/gone", "/u/l/gone"),
            ] {
                let moved = world.move_by(shell, from.as_bytes(), to.as_bytes());
                assert!(!moved, "{shell}: {from} {to}");
                assert!(world.at("trg/f").exists() && world.outside_is_as_it_was());
            }
            // A symlink itself is moved, and a symlink at the destination is replaced.
            let moved = world.move_by(shell, b"/f", b"/u/out");
            assert!(world.outside_is_as_it_was());
            assert_eq!(world.at("trg/u/out").is_symlink(), !moved);
            assert!(world.move_by(shell, b"/out", b"/v/out"));
            assert!(world.at("trg/v/out").is_symlink() && world.outside_is_as_it_was());
            // The file is not moved into a directory at the destination.
            fs::write(world.at("trg/g"), "").unwrap();
            assert!(!world.move_by(shell, b"/g", b"/v/w"));
            assert!(world.at("trg/g").exists());
        }
    }

    /// Another process exchanges a directory and a symlink continuously.
    #[test]
    fn nothing_is_moved_through_a_link_that_comes_and_goes() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let world = World::new();
        symlink("../../out", world.at("trg/u/link")).unwrap();
        let (directory, link) = (world.at("trg/u/l"), world.at("trg/u/link"));
        let over = AtomicBool::new(false);
        let mut results = [0, 0];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    let here = rustix::fs::CWD;
                    rustix::fs::renameat_with(here, &directory, here, &link, flags).unwrap();
                }
            });
            let until = std::time::Instant::now() + std::time::Duration::from_secs(3);
            while std::time::Instant::now() < until {
                fs::write(world.at("trg/v/f"), "").unwrap();
                let there = world.move_by("/bin/sh", b"/v/f", b"/u/l/f");
                let back = world.move_by("/bin/sh", b"/u/l/x", b"/v/x");
                results[usize::from(there)] += 1;
                if back || !world.outside_is_as_it_was() {
                    break;
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        assert!(world.outside_is_as_it_was() && !world.at("trg/v/x").exists());
        assert!(results.iter().all(|&count| count > 0), "{results:?}");
    }
}
