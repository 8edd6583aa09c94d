//! `observefd`: descriptors that user code observes.

use std::fs;
use std::fs::OpenOptions;
use std::io::Write;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;

/// Opens a FIFO and finds its descriptor; `@READY@` is called when it is readable.
fn config(ready: &str) -> String {
    format!(
        r#"
local function fifos()
    local found, list = {{ }}, io.popen("ls -l /proc/$PPID/fd")
    for line in list:lines() do
        if line:find("@DIR@/fifo", 1, true) then found[tonumber(line:match("(%d+) %->"))] = true end
    end
    list:close()
    return found
end
-- After HUP the one before is still open.
local before = fifos()
local fifo = io.open("@DIR@/fifo", "r+")
fifo:setvbuf("no")
local fd
for number in pairs(fifos()) do
    if not before[number] then fd = number end
end
observefd(fd, function(fd) {ready} end, nil)
sync{{ source = "@SRC@", action = function(inlet) inlet.discardEvent((inlet.getEvent())) end }}
alarm(now(), function() log("Normal", "at work") end)
"#
    )
}

fn start<'d>(dir: &'d Dir, ready: &str) -> Running<'d> {
    mkfifo(&dir.path("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
    let mut daemon = Daemon::new(dir, &config(ready)).start();
    daemon.wait_log("at work");
    daemon
}

fn say(dir: &Dir, text: &str) {
    let mut fifo = OpenOptions::new()
        .write(true)
        .open(dir.path("fifo"))
        .unwrap();
    fifo.write_all(text.as_bytes()).unwrap();
}

/// Returns how many descriptors of the daemon are the FIFO.
fn open(daemon: &Running<'_>, dir: &Dir) -> usize {
    let fds = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    let links = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    links.filter(|link| *link == dir.path("fifo")).count()
}

#[test]
fn the_function_is_called_while_the_descriptor_is_readable() {
    let dir = Dir::new();
    let ready = r#"log("Normal", "read ", fifo:read(1), " of ", math.type(fd))"#;
    let mut daemon = start(&dir, ready);
    say(&dir, "abc");
    for letter in ["a", "b", "c"] {
        daemon.wait_log(&format!("read {letter} of float"));
    }
    say(&dir, "d");
    daemon.wait_log("read d of float");
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn nonobservefd_closes_the_descriptor() {
    let dir = Dir::new();
    let mut daemon = start(&dir, r#"nonobservefd(fd) log("Normal", "stopped")"#);
    assert_eq!(open(&daemon, &dir), 1);
    say(&dir, "abc");
    daemon.wait_log("stopped");
    assert_eq!(open(&daemon, &dir), 0);
    assert_eq!(daemon.terminate(), Some(143));
    assert_eq!(daemon.log().matches("stopped").count(), 1);
}

/// The next file would get the number of a descriptor that is closed, and what the daemon and its
/// children print would be written to it.
#[test]
fn nonobservefd_replaces_standard_descriptors() {
    for fd in 0..3 {
        let dir = Dir::new();
        let config = format!(
            r#"
            observefd({fd})
            nonobservefd({fd})
            sync{{ source = "@SRC@", onCreate = true }}
            alarm(now(), function() io.open("@DIR@/ready", "w"):close() end)
            "#
        );
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.wait_for("the alarm", |_| dir.path("ready").exists());
        let link = |fd| fs::read_link(format!("/proc/{}/fd/{fd}", daemon.pid())).unwrap();
        for other in 0..3 {
            let is_null = link(other).as_os_str() == "/dev/null";
            assert_eq!(is_null, other == fd || other == 0, "{fd}: {other}");
        }
        assert_eq!(daemon.terminate(), Some(143));
    }
}

#[test]
fn a_descriptor_closed_by_user_code_is_forgotten() {
    let dir = Dir::new();
    let mut daemon = start(&dir, "fifo:close()");
    say(&dir, "a");
    daemon.wait_log("was closed while it was observed");
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn an_error_of_the_function_ends_the_daemon() {
    let dir = Dir::new();
    let mut daemon = start(&dir, r#"error("no such luck")"#);
    say(&dir, "a");
    assert_eq!(daemon.wait_end().code(), Some(255));
    assert!(daemon.log().contains("in Lua:"), "{}", daemon.log());
    assert!(daemon.log().contains("no such luck"), "{}", daemon.log());
}

#[test]
fn hup_closes_observed_descriptors() {
    let dir = Dir::new();
    let mut daemon = start(&dir, r#"log("Normal", "read ", fifo:read(1))"#);
    for round in 2..5 {
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for("it works again", |daemon| {
            daemon.log().matches("at work").count() == round
        });
        assert_eq!(open(&daemon, &dir), 1);
    }
    say(&dir, "x");
    daemon.wait_log("read x");
}

/// Lua does not close a descriptor whose owner was collected.
#[test]
fn hup_closes_descriptors_without_owner() {
    let dir = Dir::new();
    let mut daemon = start(&dir, r#"log("Normal", "read ", fifo:read(1))"#);
    let kept = "_G.kept = fifo getmetatable(fifo).__gc = nil getmetatable(fifo).__close = nil\n";
    let text = dir.text("config.lua") + kept;
    dir.put("config.lua", text);
    for round in 2..5 {
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for("it works again", |daemon| {
            daemon.log().matches("at work").count() == round
        });
        assert_eq!(open(&daemon, &dir), 1);
    }
}

#[test]
fn a_broken_configuration_keeps_the_observation() {
    let dir = Dir::new();
    let mut daemon = start(&dir, r#"log("Normal", "read ", fifo:read(1))"#);
    dir.put("config.lua", "sync{");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("The previous configuration stays in force");
    say(&dir, "x");
    daemon.wait_log("read x");
}

#[test]
fn descriptors_that_cannot_be_observed_are_refused() {
    for (call, text) in [
        ("observefd(999, print)", "descriptor 999: Bad file number"),
        ("observefd('x', print)", "needs the number of a descriptor"),
        ("observefd(-1, print)", "needs the number of a descriptor"),
        ("observefd(0, 'x')", "takes functions, not a string"),
        ("nonobservefd(5)", "descriptor 5 is not observed"),
    ] {
        let dir = Dir::new();
        let ended = Daemon::new(&dir, call).run();
        ended.assert_refused();
        assert!(ended.stderr.contains(text), "{call}: {}", ended.stderr);
        assert!(ended.stderr.contains("config.lua:1:"), "{}", ended.stderr);
    }
}

/// Children inherit no descriptors of the parent of the daemon or of user code.
#[test]
fn children_have_three_descriptors() {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    let dir = Dir::new();
    let inherited = std::fs::File::open(dir.root()).unwrap();
    fcntl(&inherited, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let list = "ls /proc/$$/fd > '@DIR@/'$1.part; mv '@DIR@/'$1.part '@DIR@/'$1\n";
    dir.script("list", list);
    dir.script("rsync-lists", "exec '@DIR@/list' rsync\n");
    let config = r#"
        kept = io.open("@DIR@/kept", "w")
        opened = false
        sync{
            source = "@SRC@", delay = 0,
            onCreate = function(event)
                opened = io.open("@DIR@/opened", "w")
                spawn(event, "@DIR@/list", "own")
            end,
            onModify = "@DIR@/list layer3",
        }
        sync{ default.rsync, source = "@SRC@", target = "@TRG@", rsync = { binary = "@DIR@/rsync-lists" } }
    "#;
    let mut daemon = Daemon::new(&dir, config).start();
    daemon.wait_log("Startup of");
    dir.write("f", "1");
    daemon.wait_for("the child of user code", |_| dir.path("own").exists());
    dir.append("f", "1");
    daemon.wait_for("the child of a text", |_| dir.path("layer3").exists());
    daemon.wait_for("rsync", |_| dir.path("rsync").exists());
    for name in ["own", "layer3", "rsync"] {
        let open = dir.text(name);
        let open: Vec<&str> = open.lines().collect();
        // The shell has its script open.
        let low = open.iter().filter(|number| number.len() == 1);
        assert!(low.eq(&["0", "1", "2"]), "{name}: {open:?}");
    }
    drop(inherited);
}
