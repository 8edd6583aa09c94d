//! The call of rsync that removes old backups on another host.
//!
//! The source shows rsync no file, so that everything counts as deleted. Rules for the receiver
//! protect everything but directories that are named by days, and the days that are kept. No name
//! on the target host becomes a part of a command.

use super::dates::Day;
use crate::batch::connection_options::connection_options;

/// The pattern of the name of a day.
const ANY_DAY: &str = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]";

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
    args.extend(connection_options(words));
    args.extend([source.to_vec(), [dir, b"/"].concat()]);
    args
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    use super::*;

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
