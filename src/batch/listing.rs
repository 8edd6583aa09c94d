//! The call of rsync that lists single paths of one side, and its output (`--list-only`, rsync(1)).

use super::connection_options::connection_options;
use super::error_lines::unescape;
use super::output;
use crate::paths;

/// The options of the call. With `--list-only` rsync transfers nothing, regardless of the
/// destination.
const OPTIONS: [&str; 7] = [
    "--list-only",
    "--dry-run",
    "--dirs",
    "--no-human-readable",
    "--8-bit-output",
    "--from0",
    "--files-from=-",
];

/// The time zone of the listed times, for the environment of the call.
pub const TIME_ZONE: (&str, &str) = ("TZ", "UTC0");

/// One path as a side has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// The path relative to the listed directory, with a leading slash and none at the end; `/` for
    /// the directory itself.
    pub path: Vec<u8>,
    /// The type and the permissions, as `ls -l` prints them.
    pub permissions: String,
    /// The size in bytes.
    pub size: u64,
    /// The time of modification in seconds since the epoch.
    pub time: i64,
}

/// Returns the arguments that list `paths` of a directory in rsync's form. `words` are those of a
/// transfer.
pub fn arguments(words: &[Vec<u8>], directory: &[u8], paths: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut args: Vec<Vec<u8>> = OPTIONS.map(Into::into).into();
    if is_root_only(paths) {
        args.push(b"--exclude=*".to_vec());
    }
    args.extend(connection_options(words));
    // rsync wants a destination with a list.
    args.extend([paths::with_slash(directory), b"./".to_vec()]);
    args
}

/// Returns the list of these paths, which begin with a slash.
pub fn list(paths: &[Vec<u8>]) -> Vec<u8> {
    let mut list = Vec::new();
    for path in paths {
        // The directory itself is listed with each other path. Its own name would list its contents.
        if path != b"/" || is_root_only(paths) {
            list.extend_from_slice(b".");
            list.extend_from_slice(path);
            list.push(0);
        }
    }
    list
}

fn is_root_only(paths: &[Vec<u8>]) -> bool {
    paths.iter().all(|path| path == b"/")
}

/// Parses a line of the output: permissions, size, date, time and name.
pub fn parse(line: &[u8]) -> Option<ListedFile> {
    let (permissions, rest) = word(line)?;
    let (size, rest) = word(rest.trim_ascii_start())?;
    let (date, rest) = word(rest)?;
    let (time, name) = word(rest)?;
    let permissions = std::str::from_utf8(permissions).ok()?;
    let name = unescape(name);
    Some(ListedFile {
        path: match paths::bare(&name) {
            b"" | b"." => b"/".to_vec(),
            path => paths::rooted(path),
        },
        permissions: Some(permissions).filter(|text| text.len() >= 10)?.into(),
        size: output::count(size)?,
        time: seconds(date, time)?,
    })
}

fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|&byte| byte == b' ')?;
    Some((&text[..end], &text[end + 1..]))
}

/// Returns the seconds since the epoch of `2026/11/29` and `00:13:53`.
fn seconds(date: &[u8], time: &[u8]) -> Option<i64> {
    let [year, month, day] = numbers(date, b'/')?;
    let [hour, minute, second] = numbers(time, b':')?;
    // Years begin in March here, so that a leap day is the last day of one.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = 365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn numbers(text: &[u8], separator: u8) -> Option<[i64; 3]> {
    let text = std::str::from_utf8(text).ok()?;
    let numbers = text.split(char::from(separator)).map(str::parse);
    let numbers: Vec<i64> = numbers.collect::<Result<_, _>>().ok()?;
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let read = |line: &[u8]| {
            let file = parse(line)?;
            let path = file.path.escape_ascii().to_string();
            Some((path, file.permissions, file.size, file.time))
        };
        for (line, path, permissions, size, time) in [
            (
                &b"-rw-r--r--           3 2026/11/29 00:13:53 f"[..],
                "/f",
                "-rw-r--r--",
                3,
                1_795_911_233,
            ),
            (
                b"drwxrwxrwt        4096 1970/01/01 00:00:00 .",
                "/",
                "drwxrwxrwt",
                4096,
                0,
            ),
            (
                b"-rw-------  99999999999999 2000/02/29 23:59:59 d/ a\\#012l b",
                "/d/ a\\nl b",
                "-rw-------",
                99_999_999_999_999,
                951_868_799,
            ),
        ] {
            let expected = (path.to_owned(), permissions.to_owned(), size, time);
            assert_eq!(read(line), Some(expected));
        }
        for line in [
            "",
            "receiving incremental file list",
            "rsync: [sender] link_stat \"/x\" failed: No such file or directory (2)",
            "-rw-r--r-- 3 2026/11 00:13:53 f",
            "a b c d e",
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn the_directory_alone_is_listed_without_its_contents() {
        let root = [b"/".to_vec()];
        let args = arguments(&[], b"/src", &root);
        let rest: [&[u8]; 3] = [b"--exclude=*", b"/src/", b"./"];
        assert_eq!(args[OPTIONS.len()..], rest);
        assert_eq!(list(&root), b"./\0");
    }

    #[test]
    fn a_listing_reaches_the_target_as_the_transfer_does_and_cannot_write() {
        let words = ["-lts", "--delete", "--rsh=ssh -p 9", "-r", "/src/", "h:t"];
        let words = words.map(|word| word.as_bytes().to_vec());
        let paths = [b"/".to_vec(), b"/a".to_vec()];
        let args = arguments(&words, b"h:t", &paths);
        assert_eq!(args[0], b"--list-only");
        let rest: [&[u8]; 4] = [b"-s", b"--rsh=ssh -p 9", b"h:t/", b"./"];
        assert_eq!(args[OPTIONS.len()..], rest);
        assert_eq!(list(&paths), b"./a\0");
    }
}
