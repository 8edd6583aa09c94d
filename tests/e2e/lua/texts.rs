//! Layer 3: actions as strings, run with or without a shell.

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;

/// Writes a program that records its arguments.
fn teller(dir: &Dir) {
    dir.put(
        "bin/tell",
        "for a; do printf '[%s]\\n' \"$a\"; done >> \"$TOLD\"\n",
    );
}

fn start<'d>(dir: &'d Dir, config: &str) -> Running<'d> {
    teller(dir);
    Daemon::new(dir, config).env("TOLD", "@DIR@/told").start()
}

fn wait_told(dir: &Dir, daemon: &mut Running<'_>, words: &[&str]) {
    let want: String = words
        .iter()
        .map(|word| dir.expand(&format!("[{word}]\n")))
        .collect();
    daemon.wait_for(&format!("told {want}"), |_| {
        dir.text("told").contains(&want)
    });
}

const ALL: &str = "^path ^pathname ^pathdir ^source ^sourcePath ^sourcePathname ^sourcePathdir \
    ^target ^targetPath ^targetPathname ^targetPathdir";

/// There are eleven variables: from the tenth on, a shell needs braces.
#[test]
fn all_variables_are_replaced_with_and_without_a_shell() {
    let forms = [
        format!("sh @DIR@/bin/tell {ALL}"),
        format!("/bin/sh @DIR@/bin/tell {ALL}"),
    ];
    for form in forms {
        let dir = Dir::new();
        let config = format!(
            "sync{{ source = '@SRC@', target = '@TRG@', delay = 0, onCreate = '{form}',
               onStartup = 'true' }}"
        );
        let mut daemon = start(&dir, &config);
        daemon.wait_log("finished.");
        // A directory causes only a Create, and its name is one argument.
        dir.mkdir("it's $(a) `b`");
        let name = "it's $(a) `b`";
        let expand = |shape: &str| shape.replace('N', name);
        let words = [
            "N/",
            "N",
            "",
            "@SRC@/",
            "@SRC@//N/",
            "@SRC@//N",
            "@SRC@//",
            "@TRG@",
            "@TRG@/N/",
            "@TRG@/N",
            "@TRG@/",
        ]
        .map(expand);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        wait_told(&dir, &mut daemon, &words);
    }
}

#[test]
fn a_move_has_origin_and_destination() {
    let dir = Dir::new();
    dir.mkdir("a");
    let config = "sync{ source = '@SRC@', target = '@TRG@', delay = 0, onStartup = 'true',
        onMove = 'sh @DIR@/bin/tell ^path ^o.path ^d.path ^o.targetPathname ^d.sourcePath x^d.path' }";
    let mut daemon = start(&dir, config);
    daemon.wait_log("finished.");
    dir.mv("a", "b");
    let words = ["a/", "a/", "b/", "@TRG@/a", "@SRC@//b/", "xb/"];
    wait_told(&dir, &mut daemon, &words);
}

/// lsyncd pastes such texts into Lua code.
#[test]
fn texts_may_contain_quotes_and_brackets() {
    let dir = Dir::new();
    let shell = r#"
        sync{ source = "@SRC@", delay = 0, onStartup = [==[
          if [[ -d ^source ]] || [ -d ^source ]; then
            sh @DIR@/bin/tell "]]" 'it''s' \\q ^source
          fi
        ]==] }"#;
    let mut daemon = start(&dir, shell);
    wait_told(&dir, &mut daemon, &["]]", "its", "\\q", "@SRC@/"]);

    let dir = Dir::new();
    let program = r#"
        sync{ source = "@SRC@", delay = 0, onStartup = [[/bin/sh @DIR@/bin/tell it's "a b" \q \65 ^foo]] }"#;
    let mut daemon = start(&dir, program);
    let words = ["it's", "\"a b\"", "\\q", "\\65", "^foo"];
    wait_told(&dir, &mut daemon, &words);
}

/// Without a table of exit codes, any code but 0 ends the daemon.
#[test]
fn exit_codes_of_commands() {
    let dir = Dir::new();
    let config = "sync{ source = '@SRC@', delay = 0, onStartup = 'exit 3' }";
    Daemon::new(&dir, config).run().assert_refused();

    let config = "sync{ source = '@SRC@', delay = 0, onCreate = 'true', onStartup =
        'echo x >> @DIR@/tries; test $(wc -l < @DIR@/tries) = 2 || exit 3',
        exitcodes = { [0] = 'ok', [3] = 'again' } } settings{ insist = true }";
    let dir = Dir::new();
    let mut daemon = Daemon::new(&dir, config).start();
    daemon.wait_log("Startup of @SRC@/ -> (nil) finished.");
    assert_eq!(dir.text("tries").lines().count(), 2);
}

#[test]
fn on_full_may_be_a_text() {
    let dir = Dir::new();
    let config = "local inlet = sync{ source = '@SRC@', delay = 0, onStartup = 'true',
          onFull = 'sh @DIR@/bin/tell full ^sourcePath' }
        alarm(now(), function() inlet.createFullEvent('/') end)";
    let mut daemon = start(&dir, config);
    wait_told(&dir, &mut daemon, &["full", "@SRC@//"]);
}
