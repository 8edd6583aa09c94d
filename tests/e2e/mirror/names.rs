//! Files with strange names are created, changed, moved with their directory and deleted.
//!
//! Each name is given to a file at the top, a file in a directory, and a directory.

use crate::support::daemon::{Daemon, MIRROR};
use crate::support::dir::Dir;

fn lives(name: &[u8]) {
    let dir = Dir::new();
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    let in_files = [b"files/", name].concat();
    let in_dirs = [b"dirs/", name, b"/sub/f"].concat();

    dir.write(name, "1");
    dir.mkdir("files");
    dir.write(&in_files, "1");
    dir.mkdir([b"dirs/", name, b"/sub"].concat());
    dir.write(&in_dirs, "1");
    daemon.wait_equal();

    dir.append(name, "2");
    dir.append(&in_files, "2");
    dir.append(&in_dirs, "2");
    daemon.wait_equal();

    dir.mv("dirs", "renamed");
    let in_renamed = [b"renamed/", name, b"/sub/f"].concat();
    daemon.wait_equal();
    dir.append(&in_renamed, "3");
    daemon.wait_equal();

    dir.mv([b"renamed/", name].concat(), "plain");
    dir.mv(&in_files, "plain-file");
    daemon.wait_equal();
    dir.mv("plain", [b"renamed/", name].concat());
    daemon.wait_equal();

    dir.rm(name);
    dir.rm([b"renamed/", name].concat());
    daemon.wait_equal();
}

macro_rules! names {
    ($($test:ident: $name:expr,)*) => {
        $(#[test]
        fn $test() {
            lives($name);
        })*
    };
}

names! {
    plain: b"name",
    blanks: b"a b  c",
    blanks_at_both_ends: b"  a ",
    only_a_blank: b" ",
    leading_dash: b"-rf",
    two_leading_dashes: b"--delete",
    leading_hash: b"#comment",
    leading_semicolon: b";comment",
    leading_tilde: b"~root",
    like_an_include_rule: b"+ x",
    like_an_exclude_rule: b"- x",
    exclamation_mark: b"!",
    star: b"*",
    star_inside: b"a*b",
    two_stars: b"**",
    three_stars: b"***",
    question_mark: b"a?b",
    opening_bracket: b"a[b",
    closing_bracket: b"a]",
    class: b"[a-z]",
    negated_class: b"[!a]",
    named_class: b"[[:alpha:]]",
    backslash: b"a\\b",
    backslash_at_the_end: b"a\\",
    backslash_and_star: b"a\\*b",
    single_quote: b"it's",
    double_quote: b"say \"x\"",
    dollar_and_backtick: b"$HOME`id`",
    percent: b"100%",
    ampersand_and_pipe: b"a&b|c>d",
    colon: b"host:path",
    braces: b"{a,b}",
    newline: b"line\nbreak",
    newline_at_the_end: b"line\n",
    carriage_return: b"a\rb",
    tab: b"a\tb",
    escape: b"a\x1b[31mb",
    control_one: b"\x01",
    umlauts_and_han: "Größe 目录".as_bytes(),
    invalid_utf8: b"\xff\xfe",
    invalid_utf8_and_newline: b"\xff\n\xc3",
    hash_and_octal_like_rsync_prints: b"a\\#012b",
    three_dots: b"...",
    hidden: b".hidden",
    like_a_temporary_of_rsync: b".file.AbCdEf",
    as_long_as_can_be: &[b'n'; 255],
}

/// Names that match each other as patterns are distinguished.
#[test]
fn names_that_are_patterns_of_each_other() {
    let dir = Dir::new();
    let names = ["*", "?", "a", "[a]", "\\a", "\\*", "a*", "ab"];
    for name in names {
        dir.write(name, name);
        dir.mkdir(format!("d{name}"));
        dir.write(format!("d{name}/f"), name);
    }
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    for name in ["*", "[a]", "\\*"] {
        dir.rm(name);
        dir.rm(format!("d{name}"));
        daemon.wait_equal();
    }
}

/// The longest path that a system call accepts.
#[test]
fn path_of_four_thousand_bytes() {
    let dir = Dir::new();
    let mut daemon = Daemon::new(&dir, MIRROR).start_and_settle();
    let room = 4095 - dir.src("").as_os_str().len() - 50;
    let step = format!("{}/", "d".repeat(99));
    let path = step.repeat(room / step.len());
    dir.mkdir(&path);
    dir.write(format!("{path}f"), "1");
    daemon.wait_equal();
    dir.append(format!("{path}f"), "2");
    daemon.wait_equal();
}
