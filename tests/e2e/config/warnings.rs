//! What a configuration says in vain is reported at the start, which goes on.

use crate::support::daemon::Daemon;
use crate::support::dir::Dir;
use crate::support::fake::Fake;

/// The warning contains the pattern to be written instead.
#[test]
fn useless_patterns_are_reported() {
    let dir = Dir::new();
    Fake::new(&dir);
    let config = "sync{ default.rsync, source = '@SRC@', target = '@TRG@',
        exclude = { '@SRC@/cache', '*.tmp' },
        filter = { '- ./x', '+ /y' } }";
    let mut daemon = Daemon::new(&dir, config).fake_first().start();
    daemon.wait_log("finished.");
    let log = daemon.log();
    for said in [
        "config.lua:1: the pattern \"@SRC@/cache\" in exclude: patterns begin at",
        "write \"/cache\" (line 2)",
        "config.lua:1: the pattern \"./x\" in filter: names never begin with",
    ] {
        assert!(log.contains(&dir.expand(said)), "{said}\n{log}");
    }
    assert_eq!(log.matches("the pattern").count(), 2, "{log}");
}

/// `~` and `$` in a target are not expanded; if the target does not exist, a warning says so.
#[test]
fn unexpanded_targets_are_reported() {
    let dir = Dir::new();
    Fake::new(&dir);
    let config = "sync{ default.rsync, source = '@SRC@', target = '$HOME/none' }
        sync{ default.direct, source = '@SRC@', target = '~/none' }
        sync{ default.rsync, source = '@SRC@', target = 'h:~/far' }
        sync{ source = '@SRC@', target = '$HOME/own', onCreate = 'true' }";
    let config = dir.expand(config);
    dir.put("config.lua", config);
    let ended = Daemon::bare(&dir)
        .args(&["-check", "@DIR@/config.lua"])
        .run();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    for said in [
        "\"$HOME\" is not expanded in a configuration, write os.getenv(\"HOME\") .. \"/none\"",
        "\"~\" is not expanded in a configuration, write os.getenv(\"HOME\") .. \"/none\"",
    ] {
        assert_eq!(ended.stderr.matches(said).count(), 1, "{}", ended.stderr);
    }
    let told = ended.stderr.matches("is not expanded").count();
    assert_eq!(told, 2, "{}", ended.stderr);
}

/// A sync without an action is valid, but reported.
#[test]
fn idle_sync_is_reported() {
    let dir = Dir::new();
    let mut daemon = Daemon::new(&dir, "sync{ source = '@SRC@' }").start();
    daemon.wait_log("config.lua:1: the sync does nothing");
    daemon.wait_log("--- Startup ---");
    assert_eq!(daemon.terminate(), Some(143));
}
