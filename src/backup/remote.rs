//! The call of rsync that removes old backups on another host.
//!
//! The source shows rsync no file, so that everything counts as deleted. Rules for the receiver
//! protect everything but directories that are named by days, and the days that are kept. No name on
//! the target host becomes a part of a command.

use super::dates::Day;

/// The pattern of the name of a day.
const ANY_DAY: &str = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]";

/// Options that decide how rsync reaches the target.
const CONNECTION: &str = "address bwlimit contimeout password-file port rsh rsync-path sockopts \
                          timeout";

/// The letters of such options.
const CONNECTION_LETTERS: &[u8] = b"46s";

/// Returns the arguments that remove the days before `oldest`. `words` are the options of all
/// transfers, `source` any directory, `dir` the directory of the backups in rsync's form.
pub fn arguments(
    words: &[Vec<u8>],
    source: &[u8],
    dir: &[u8],
    oldest: Day,
    today: Day,
) -> Vec<Vec<u8>> {
    let mut args: Vec<Vec<u8>> = vec![
        b"-r".to_vec(),
        b"--delete".to_vec(),
        b"--filter=H *".to_vec(),
    ];
    // The clocks of both hosts, and of another daemon, may differ.
    let mut day = oldest;
    while day <= today.plus(2) {
        args.push(format!("--filter=P /{}/", day.name()).into_bytes());
        day = day.plus(1);
    }
    args.push(format!("--filter=R /{ANY_DAY}/***").into_bytes());
    args.push(b"--filter=P *".to_vec());
    args.extend(connection(words));
    args.extend([source.to_vec(), [dir, b"/"].concat()]);
    args
}

/// Returns the options among the words that decide how rsync reaches the target.
fn connection(words: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut kept = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_slice() {
            [b'-', b'-', long @ ..] => {
                let end = long.iter().position(|&byte| byte == b'=');
                let name = &long[..end.unwrap_or(long.len())];
                let is_kept = CONNECTION
                    .split_ascii_whitespace()
                    .any(|known| known.as_bytes() == name);
                if is_kept {
                    kept.push(word.clone());
                    kept.extend(words.next().filter(|_| end.is_none()).cloned());
                }
            }
            b"-e" => kept.extend([Some(word), words.next()].into_iter().flatten().cloned()),
            [b'-', b'e', ..] => kept.push(word.clone()),
            [b'-', letters @ ..] => {
                let letters = letters
                    .iter()
                    .filter(|letter| CONNECTION_LETTERS.contains(letter));
                let letters: Vec<u8> = letters.copied().collect();
                if !letters.is_empty() {
                    kept.push([b"-", &letters[..]].concat());
                }
            }
            _ => {}
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    use super::*;

    fn words(text: &str) -> Vec<Vec<u8>> {
        text.split(' ').map(Into::into).collect()
    }

    #[test]
    fn only_options_of_the_connection_are_kept() {
        for (given, kept) in [
            (
                "-ltsz4 --rsh=ssh --delete -e ssh --exclude=x",
                "-s4 --rsh=ssh -e ssh",
            ),
            (
                "--timeout 5 --backup --chmod=D755 -essh",
                "--timeout 5 -essh",
            ),
        ] {
            assert_eq!(connection(&words(given)), words(kept), "{given}");
        }
    }

    #[test]
    fn rsync_removes_old_days_and_nothing_else() {
        if Command::new("rsync").arg("--version").output().is_err() {
            return crate::test_skip::skip("rsync is not installed");
        }
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        let today = Day::at(crate::cron::wall_time());
        let oldest = today.plus(-3);
        let days: Vec<String> = (-6..=0).map(|days| today.plus(days).name()).collect();
        for name in days.iter().map(String::as_str).chain(["kept", "2001-1-1"]) {
            fs::create_dir_all(path.join("dir").join(name).join("12-00-00/2001-01-01")).unwrap();
            fs::write(path.join("dir").join(name).join("12-00-00/f"), "").unwrap();
        }
        fs::write(path.join("dir/2001-01-02"), "").unwrap();
        fs::create_dir_all(path.join("src/d")).unwrap();
        fs::write(path.join("src/f"), "").unwrap();
        let bytes = |name: &str| path.join(name).as_os_str().as_bytes().to_vec();
        let args = arguments(
            &[],
            &[&bytes("src")[..], b"/"].concat(),
            &bytes("dir"),
            oldest,
            today,
        );
        let args = args.iter().map(|word| std::ffi::OsStr::from_bytes(word));
        assert!(Command::new("rsync").args(args).status().unwrap().success());
        for (index, day) in days.iter().enumerate() {
            let is_left = path.join("dir").join(day).join("12-00-00/f").exists();
            assert_eq!(is_left, index >= 3, "{day}");
        }
        assert!(path.join("dir/kept/12-00-00/f").exists() && path.join("dir/2001-01-02").exists());
        assert!(path.join("dir/2001-1-1").exists() && !path.join("dir/f").exists());
    }
}
