//! Tunnels: transfers wait for them, they end with the daemon, and they are restarted.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::daemon::{self, Daemon, Running};
use crate::support::dir::{Dir, poll};
use crate::support::fake::Fake;

/// A process that records its pid and continues to run.
const LIVES: &str = r#"{ "sh", "-c", "echo $$ >> @DIR@/tun; exec sleep 600" }"#;

fn config(tunnel: &str) -> String {
    format!(
        r#"
settings{{ statusFile = "@DIR@/status", statusInterval = 0 }}
sync{{
    default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.1,
    rsync = {{ binary = "@RSYNC@" }},
    tunnel = tunnel{{ {tunnel} }},
}}
"#
    )
}

fn lives(options: &str) -> String {
    config(&format!("command = {LIVES}, {options}"))
}

/// Returns the recorded pids in order.
fn noted(dir: &Dir) -> Vec<i32> {
    let text = dir.text("tun");
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn is_gone(pid: i32) -> bool {
    daemon::is_gone(Pid::from_raw(pid))
}

fn wait_noted(daemon: &mut Running<'_>, dir: &Dir, count: usize) {
    daemon.wait_for("processes of the tunnel run", |_| noted(dir).len() >= count);
}

#[test]
fn nothing_is_sent_before_the_tunnel_is_up() {
    let dir = Dir::new();
    let _fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &lives("readyDelay = 0.5"))
        .args(&["-log", "Tunnel"])
        .start_and_settle();
    let log = daemon.log();
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text}\n{log}"));
    assert!(at("Tunnel for Sync Sync1 not ready. Blocking events") < at("CONNECTING -> UP"));
    assert!(at("Setup of tunnel Tunnel1 sucessfull") < at("recursive full rsync"));
    assert!(
        dir.text("status")
            .contains("Tunnel: name=Tunnel1 status=UP\nRunning processes: 1\n")
    );
    assert_eq!(daemon.terminate(), Some(143));
    assert!(daemon.log().contains("Shutdown tunnel Tunnel1"));
    daemon.wait_all_gone();
}

#[test]
fn a_tunnel_that_is_never_up_holds_up_no_other_sync() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let other = r#"
sync{ default.rsync, source = "@SRC@", target = "@DIR@/other", rsync = { binary = "@RSYNC@" } }
"#;
    let mut daemon = Daemon::new(&dir, &(lives("readyDelay = 600") + other)).start_and_settle();
    assert_eq!(fake.calls().len(), 1);
    assert!(
        fake.calls()[0]
            .argv
            .iter()
            .any(|word| word.ends_with("/other/"))
    );
    wait_noted(&mut daemon, &dir, 1);
    assert_eq!(daemon.terminate(), Some(143));
    daemon.wait_all_gone();
}

#[test]
fn a_process_that_died_is_replaced() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &lives("readyDelay = 0.2")).start_and_settle();
    kill(Pid::from_raw(noted(&dir)[0]), Signal::SIGKILL).unwrap();
    wait_noted(&mut daemon, &dir, 2);
    daemon.wait_log("Tunnel1: process");
    daemon.wait_log("ended by signal 9");
    dir.write("f", "1");
    daemon.wait_for("the change is sent", |_| {
        fake.calls().iter().any(|call| call.lists("/f"))
    });
}

#[test]
fn a_process_that_fails_is_retried() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let command = r#"command = { "sh", "-c", "echo $$ >> @DIR@/tun; echo refused >&2; exit 255" }"#;
    let mut daemon = Daemon::new(&dir, &config(&format!("{command}, retryDelay = 0.1")))
        .args(&["-log", "Tunnel"])
        .start();
    wait_noted(&mut daemon, &dir, 3);
    daemon.wait_log("Tunnel1: refused");
    daemon.wait_log("CONNECTING -> RETRY_TIMEOUT");
    daemon.wait_log("Retry setup Tunnel1");
    assert!(fake.calls().is_empty());
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn a_command_that_cannot_be_executed_is_reported_and_retried() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let tunnel = r#"command = "@DIR@/none -N", retryDelay = 0.1"#;
    let mut daemon = Daemon::new(&dir, &config(tunnel)).start();
    daemon.wait_log(&dir.expand("Failed executing [ @DIR@/none ]!"));
    // A program that exists at a later attempt is run.
    dir.script("none", ": > \"$0.ran\"\nexec sleep 600\n");
    daemon.wait_for("it was retried", |_| dir.path("none.ran").exists());
    assert!(fake.calls().is_empty());
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn the_stop_does_not_wait_for_a_starting_tunnel() {
    let dir = Dir::new();
    let _fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &lives("readyDelay = 600")).start();
    wait_noted(&mut daemon, &dir, 1);
    assert_eq!(daemon.terminate(), Some(143));
    daemon.wait_all_gone();
}

#[test]
fn a_process_that_ignores_term_is_killed() {
    let dir = Dir::new();
    let _fake = Fake::new(&dir);
    let command = r#"{ "sh", "-c",
        "trap '' TERM; echo $$ >> @DIR@/tun; while :; do sleep 0.1; done" }"#;
    let mut daemon = Daemon::new(&dir, &config(&format!("command = {command}"))).start();
    wait_noted(&mut daemon, &dir, 1);
    assert_eq!(daemon.terminate(), Some(143));
    daemon.wait_all_gone();
}

#[test]
fn transfers_end_before_their_tunnel() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.hold();
    let mut daemon = Daemon::new(&dir, &lives("readyDelay = 0.1")).start();
    daemon.wait_for("the startup runs", |_| !fake.calls().is_empty());
    daemon.signal(Signal::SIGTERM);
    daemon.wait_log("waiting for 1 more child processes.");
    assert!(!is_gone(noted(&dir)[0]));
    fake.release();
    assert_eq!(daemon.wait_end().code(), Some(143));
    daemon.wait_all_gone();
}

#[test]
fn hup_ends_the_old_tunnel_and_starts_the_new() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &lives("readyDelay = 0.1")).start_and_settle();
    daemon.signal(Signal::SIGHUP);
    wait_noted(&mut daemon, &dir, 2);
    let pids = noted(&dir);
    assert!(is_gone(pids[0]) && !is_gone(pids[1]));
    daemon.wait_for("the startup transfer runs again", |_| fake.ended() >= 2);
    assert_eq!(daemon.terminate(), Some(143));
    daemon.wait_all_gone();
}

#[test]
fn a_broken_configuration_keeps_the_old_tunnel() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let mut daemon = Daemon::new(&dir, &lives("readyDelay = 0.1")).start_and_settle();
    dir.put("config.lua", "sync{");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("The previous configuration stays in force");
    daemon.wait_for("the startup transfer runs again", |_| fake.ended() >= 2);
    dir.write("f", "1");
    daemon.wait_for("the change is sent", |_| {
        fake.calls().iter().any(|call| call.lists("/f"))
    });
    assert_eq!(daemon.terminate(), Some(143));
    daemon.wait_all_gone();
}

#[test]
fn a_failure_of_the_daemon_leaves_no_tunnel_behind() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[1]);
    let mut daemon = Daemon::new(&dir, &lives("readyDelay = 0.1")).start();
    assert_eq!(daemon.wait_end().code(), Some(255));
    daemon.wait_all_gone();
}

#[test]
fn onepass_goes_through_the_tunnel_and_ends_it() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let stubborn = r#"command = { "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done" }"#;
    let mut daemon = Daemon::new(&dir, &config(&format!("{stubborn}, readyDelay = 0")))
        .args(&["-onepass"])
        .start();
    assert_eq!(daemon.wait_end().code(), Some(0), "{}", daemon.log());
    assert_eq!(fake.ended(), 1);
    daemon.wait_all_gone();
}

#[test]
fn a_pool_gives_its_ports_to_the_transfers_in_turn() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let config = r#"
sync{
    default.rsync, source = "@SRC@", target = "rsync://^localhost:^localport/x", delay = 0,
    rsync = { binary = "@RSYNC@" },
    tunnel = tunnel{
        mode = "pool", name = "p", parallel = 2, readyDelay = 0.2, localhost = "here",
        command = { "sh", "-c", "echo ^localport >> @DIR@/ports; exec sleep 600" },
    },
}
"#;
    let mut daemon = Daemon::new(&dir, config).start_and_settle();
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        dir.write(name, "1");
        daemon.wait_for("it is sent", |_| fake.ended() >= at + 2);
    }
    let text = dir.text("ports");
    let mut wanted: Vec<_> = text
        .lines()
        .map(|port| format!("rsync://here:{port}/x/"))
        .collect();
    let calls = fake.calls();
    let mut used: Vec<_> = calls
        .iter()
        .filter_map(|call| call.argv.last().cloned())
        .collect();
    wanted.sort();
    used.sort();
    used.dedup();
    assert_eq!(wanted.len(), 2);
    assert_eq!(used, wanted);
}

#[test]
fn user_code_gets_the_port_of_a_tunnel() {
    let dir = Dir::new();
    let config = format!(
        r#"
local way = tunnel{{ mode = "pool", command = {LIVES}, readyDelay = 0.1 }}
sync{{
    source = "@SRC@", target = "x", tunnel = way,
    init = function(event)
        local data = event.inlet.getSubstitutionData(event, {{ own = 1 }})
        log("Normal", "host ", data.localhost, " port ", math.type(tonumber(data.localport)),
            " own ", data.own, " status ", way.status, " ready ", way:isReady())
        event.inlet.discardEvent(event)
    end,
    action = function() end,
}}
"#
    );
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_log("host localhost port integer own 1 status 4 ready (true)");
}

#[test]
fn user_code_may_report_a_tunnel_as_down() {
    let dir = Dir::new();
    let config = format!(
        r#"
local way, asked = tunnel{{ command = {LIVES}, readyDelay = 0.1 }}, 0
function way:check()
    asked = asked + 1
    return asked > 1
end
sync{{ source = "@SRC@", tunnel = way, init = function(event)
    log("Normal", "asked ", asked)
    event.inlet.discardEvent(event)
end, action = function() end }}
"#
    );
    let mut daemon = Daemon::new(&dir, &config).args(&["-log", "Tunnel"]).start();
    daemon.wait_log("Tunnel1: status change: UP -> DOWN");
    daemon.wait_log("Normal: asked ");
    let pids = noted(&dir);
    assert_eq!(pids.len(), 2);
    assert!(poll(|| is_gone(pids[0])));
}

#[test]
fn tunnels_are_objects_of_a_class() {
    let dir = Dir::new();
    let config = format!(
        r#"
Tunnel.defaults.readyDelay = 0.1
local asked, made = 0, Tunnel.check
function Tunnel:check()
    asked = asked + 1
    return made(self) and asked > 1
end
local way = Tunnel.new{{ command = {LIVES}, retryDelay = 7 }}
local other = tunnel{{ name = "other", command = {LIVES}, mode = "pool", parallel = 2 }}
assert(way.options.mode == "command" and way.options.readyDelay == 0.1)
assert(way.options.retryDelay == 7 and way.options.name == "Tunnel1" and way.status == 1)
assert(way.options.parallel == 1 and way.options.localhost == "localhost")
assert(other.options.name == "other" and other.options.parallel == 2 and not other:isReady())
way.own = "kept"
sync{{ source = "@SRC@", tunnel = way, init = function(event)
    log("Normal", "asked ", asked, " ", way.own)
    event.inlet.discardEvent(event)
end, action = function() end }}
"#
    );
    let mut daemon = Daemon::new(&dir, &config).args(&["-log", "Tunnel"]).start();
    daemon.wait_log("UP -> DOWN");
    daemon.wait_log("Normal: asked ");
    assert!(daemon.log().contains(" kept"));
}

#[test]
fn invalid_tunnels_are_refused() {
    for (tunnel, text) in [
        (
            "tunnel{ mode = 'x', command = 'ssh' }",
            "unknown tunnel mode:x",
        ),
        ("tunnel{ parallel = 2 }", "tunnel needs a command"),
        (
            "tunnel{ command = 'ssh', parallel = 1e9 }",
            "parallel must be 1000 at most",
        ),
        (
            "tunnel{ command = 'ssh', readyDelay = 'x' }",
            "readyDelay must be a number",
        ),
        ("tunnel{ command = {} }", "tunnel needs a command"),
        ("tunnel('ssh')", "tunnel takes a table"),
        (
            "{ command = 'ssh' }",
            "tunnel must be what tunnel{ ... } returned.",
        ),
        ("true", "tunnel must be what tunnel{ ... } returned."),
    ] {
        let dir = Dir::new();
        let config = format!(
            "sync{{ default.rsync, source = '@SRC@', target = '@TRG@', tunnel = {tunnel} }}"
        );
        let ended = Daemon::new(&dir, &config).run();
        ended.assert_refused();
        assert!(ended.stderr.contains(text), "{tunnel}: {}", ended.stderr);
        assert!(ended.stderr.contains("config.lua:1"), "{}", ended.stderr);
    }
}

#[test]
fn keys_without_effect_are_reported() {
    let dir = Dir::new();
    let _fake = Fake::new(&dir);
    let tunnel = lives("readyDelay = 0.1, checkCommand = 'x', retrydelay = 1");
    let daemon = Daemon::new(&dir, &tunnel).start_and_settle();
    let log = daemon.log();
    assert!(log.contains("checkCommand has no effect"), "{log}");
    assert!(log.contains("Did you mean \"retryDelay\"?"), "{log}");
}

#[test]
fn a_tunnel_may_be_inherited_and_shared() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let config = format!(
        r#"
local base = {{ tunnel = tunnel{{ command = {LIVES}, readyDelay = 0.1 }} }}
for _, name in ipairs {{ "a", "b" }} do
    sync{{
        default.rsync, base, source = "@SRC@", target = "@DIR@/" .. name,
        rsync = {{ binary = "@RSYNC@" }},
    }}
end
"#
    );
    let mut daemon = Daemon::new(&dir, &config).args(&["-log", "Tunnel"]).start();
    daemon.wait_for("both start up", |_| fake.ended() >= 2);
    assert!(daemon.log().contains("Tunnel for Sync Sync2 not ready"));
    assert_eq!(noted(&dir).len(), 1);
    assert!(poll(|| !is_gone(noted(&dir)[0])));
}
