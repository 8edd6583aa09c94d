//! Mistakes of all kinds in a configuration: the daemon exits at once with 255 and a message with
//! file, line and mistake.

use crate::support::daemon::Daemon;
use crate::support::dir::Dir;
use crate::support::fake::Fake;

/// Line 3 of the configuration, and a part of the message. `RSYNC(…)` stands for a sync of
/// default.rsync with these keys, `SYNC(…)` for a sync without a kind.
const MISTAKES: &[(&str, &str)] = &[
    // Errors of Lua.
    ("x = = 1", "unexpected symbol near '='"),
    ("sync{ default.rsync, source = ", "unexpected symbol"),
    ("local x <const> = 5 x = 6", "const variable 'x'"),
    ("goto nowhere", "no visible label 'nowhere'"),
    ("\0", "unexpected symbol"),
    ("\u{feff}", "unexpected symbol"),
    ("dofile('/nonexistent')", "cannot open /nonexistent"),
    ("require 'nonexistent'", "module 'nonexistent' not found"),
    (
        "local function f() return f() + 1 end f()",
        "stack overflow",
    ),
    (
        "local t = setmetatable({}, {__index = function(t, k) return t[k] end}) print(t.x)",
        "stack overflow",
    ),
    ("string.rep('x', 1e10)", "resulting string too large"),
    ("coroutine.yield()", "attempt to yield"),
    (
        "setmetatable(_G, {__index = function() error('none') end}) x = y",
        "none",
    ),
    (
        "for k in pairs(_G) do _G[k] = nil end error('x')",
        "a nil value",
    ),
    // Keys of other tables.
    (
        "RSYNC(ssh = { port = 2222 })",
        "rsync = { rsh = \"ssh -p 2222\" }",
    ),
    ("RSYNC(logfile = '/l')", "It belongs in settings{ ... }."),
    (
        "RSYNC(rsync = { partial = true })",
        "_extra = { \"--partial\" }",
    ),
    (
        "RSYNC(filter = { '*.txt' })",
        "A rule is \"+ PATTERN\" or \"- PATTERN\".",
    ),
    (
        "debug.getregistry()",
        "debug.getregistry is not for configurations",
    ),
    // Error values that are no strings.
    ("error({ code = 5 })", "(the error is a table)"),
    ("error()", "nil"),
    ("error('a\\0b')", "a"),
    (
        "error(setmetatable({}, {__tostring = function() error('within') end}))",
        "within",
    ),
    (
        "RSYNC(prepare = function() error({}) end)",
        "(the error is a table)",
    ),
    // Misspelt names.
    (
        "sync{ default.rsnyc, source = '@SRC@' }",
        "Did you mean \"default.rsync\"?",
    ),
    (
        "sync{ default.Rsync, source = '@SRC@' }",
        "Did you mean \"default.rsync\"?",
    ),
    (
        "sync{ defualt.rsync, source = '@SRC@' }",
        "Did you mean \"default\"?",
    ),
    (
        "snyc{ default.rsync, source = '@SRC@' }",
        "Did you mean \"sync\"?",
    ),
    ("setting{ nodaemon = true }", "Did you mean \"settings\"?"),
    (
        "RSYNC(exitcodes = default.rsyncExitCode)",
        "Did you mean \"default.rsyncExitCodes\"?",
    ),
    ("RSYNC(soruce = 5)", "Did you mean \"source\"?"),
    ("RSYNC(archive = true)", "It belongs in rsync = { ... }."),
    (
        "RSYNC(rsync = { exclude = 'x' })",
        "It belongs in sync{ ... } itself.",
    ),
    ("RSYNC(rsyncOpts = '-a')", "Write rsync = { ... }"),
    ("RSYNC(host = 'x')", "default.rsyncssh has it"),
    (
        "SYNC(onCraete = function() end)",
        "Did you mean \"onCreate\"?",
    ),
    (
        "sync{ source = '@SRC@', checkgauge = false, action = false, onCraete = 'x' }",
        "Did you mean \"onCreate\" instead of \"onCraete\"?",
    ),
    ("settings{ logFile = 'x' }", "Did you mean \"logfile\"?"),
    ("settings{ delay = 5 }", "A delay is set in each sync{}."),
    // Tables that contain themselves.
    ("local t = {} t.self = t sync(t)", "contains itself"),
    (
        "local a, b = {}, {} a[1] = b b[1] = a sync{ a }",
        "contains itself",
    ),
    ("local t = {} t.t = t RSYNC(rsync = t)", "contains itself"),
    // Invalid values.
    ("RSYNC(delay = 0/0)", "delay must be a number and >= 0"),
    ("RSYNC(delay = -1/0)", "delay must be a number and >= 0"),
    ("RSYNC(delay = {})", "delay must be a number and >= 0"),
    (
        "RSYNC(maxProcesses = -1)",
        "maxProcesses must be a number, 1 or more",
    ),
    (
        "RSYNC(maxProcesses = 0/0)",
        "maxProcesses must be a number, 1 or more",
    ),
    ("RSYNC(maxDelays = {})", "maxDelays must be a number"),
    ("RSYNC(maxDelays = 0/0)", "maxDelays must be a number"),
    (
        "RSYNC(init = true)",
        "init must be a function or false, not true.",
    ),
    (
        "RSYNC(action = 5)",
        "action must be a function, not a number.",
    ),
    (
        "RSYNC(collect = {})",
        "collect must be a function, not a table.",
    ),
    (
        "RSYNC(prepare = 5)",
        "prepare must be a function, not a number.",
    ),
    (
        "RSYNC(prepare = function(c) c.source = nil end)",
        "source missing from sync.",
    ),
    ("RSYNC(name = {})", "name must be a text, not a table."),
    ("RSYNC(name = '')", "name must not be empty."),
    ("RSYNC(inotifyMode = 'x')", "'x' not a valid inotfiyMode."),
    (
        "RSYNC(inotifyMode = 5)",
        "inotifyMode must be a text, not a number.",
    ),
    (
        "RSYNC(exclude = { function() end })",
        "type for exclude must be table or string",
    ),
    ("RSYNC(excludeFrom = '@DIR@')", "Cannot open exclude file"),
    ("RSYNC(filter = { 5 })", "Unknown filter rule: \"5\""),
    (
        "RSYNC(exitcodes = 5)",
        "exitcodes must be a table, not a number.",
    ),
    (
        "RSYNC(exitcodes = { [0] = 'okay' })",
        "exitcodes[0] must be \"ok\", \"again\" or \"die\".",
    ),
    (
        "RSYNC(checkgauge = 5)",
        "checkgauge must be a table or false, not a number.",
    ),
    (
        "RSYNC(rsync = { _extra = 5 })",
        "Parameter \"rsync._extra\" must be a list of texts.",
    ),
    (
        "RSYNC(rsync = { binary = 5 })",
        "rsync.binary must be the name of a program.",
    ),
    (
        "RSYNC(rsync = { binary = 'a\\0b' })",
        "rsync.binary contains a NUL byte.",
    ),
    (
        "RSYNC(rsync = { bwlimit = {} })",
        "rsync.bwlimit needs entries such as",
    ),
    (
        "RSYNC(rsync = { chmod = {} })",
        "must be a text or a number, not a table.",
    ),
    (
        "RSYNC(backup = { dir = '@TRG@' })",
        "backup.dir must not be the target, or contain it.",
    ),
    (
        "RSYNC(backup = { dir = 'old', keep = 30 })",
        "backup.keep must be a number of days or weeks",
    ),
    ("RSYNC(rsync = { list = 'x' })", "rsync.list must be"),
    (
        "sync{ default.rsync, source = '@SRC@', target = '/x\\0' }",
        "target contains a NUL byte.",
    ),
    (
        "sync{ default.rsync, source = '@SRC@\\0', target = '/x' }",
        "@SRC@\\000",
    ),
    (
        "sync{ default.rsyncssh, source = '@SRC@', host = '-oProxyCommand=x', targetdir = '/x' }",
        "host must not begin with a dash.",
    ),
    (
        "sync{ default.rsyncssh, source = '@SRC@', host = '', targetdir = '/x' }",
        "host must not be empty.",
    ),
    (
        "SYNC(onCreate = 5)",
        "onCreate must be a function or a text, not a number.",
    ),
    ("SYNC(onCreate = 'a\\0b')", "onCreate contains a NUL byte."),
    (
        "sync{ source = '@SRC@', onCreate = 'x ^targetPath' }",
        "but the sync has no target.",
    ),
    ("sync()", "sync takes a table, not nil"),
    ("sync('x')", "sync takes a table, not a text"),
    (
        "sync{ 'default.rsync', source = '@SRC@' }",
        "Write default.rsync without quotes.",
    ),
    (
        "sync{ default.direct, source = '@SRC@', target = '/x', '/y' }",
        "\"/y\" has no key; several targets are written targets = {",
    ),
    (
        "RSYNC(rsync = { 'archive' })",
        "Write archive = true instead of \"archive\".",
    ),
    (
        "sync{ source = '@SRC@', target = '/x', rsync = { archive = true } }",
        "It requires a kind such as default.rsync",
    ),
    (
        "sync{ default.rsync, source = { '@SRC@' }, target = '/x' }",
        "source must be a text, not a table. Each source has a sync{ ... } of its own.",
    ),
    (
        "sync{ default.rsync, source = '~/x', target = '/x' }",
        "\"~\" is not expanded in a configuration, write os.getenv(\"HOME\") .. \"/x\"",
    ),
    (
        "sync{ default.direct, source = '@SRC@', target = { '/x', '/y' } }",
        "target must be a text, not a table. Several targets are written targets = {",
    ),
    (
        "sync{ default.rsyncssh, source = '@SRC@', host = { 'x', 'y' }, targetdir = '/x' }",
        "host must be a text, not a table. Several targets are written targets = {",
    ),
    (
        "sync{ default.rsyncssh, source = '@SRC@', target = 'web2:/srv/x' }",
        "Write host = \"web2\", targetdir = \"/srv/x\" instead of target.",
    ),
    (
        "sync{ default.direct, source = '@SRC@', target = '/x', onModify = 'echo' }",
        "onModify needs a sync of its own, without a kind",
    ),
    (
        "sync{ default.rsync, source = '@SRC@' target = '/x' }",
        "Perhaps a comma is missing before target.",
    ),
    (
        "sync{ default.rsync, source = “@SRC@”, target = '/x' }",
        "Texts are written in plain quotes",
    ),
    (
        "sync{ default.rsync, source = '@SRC@', target = '/x', delay = 5s }",
        "A number has no unit.",
    ),
    ("settings = { nodaemon = true }", "settings)"),
    (
        "settings = { nodaemon = true } RSYNC(delay = 1)",
        "settings)",
    ),
    (
        "settings.nodaemon = true",
        "attempt to index a function value (global 'settings'). Write settings{ KEY = VALUE }.",
    ),
    (
        "settings{ RSYNC(delay = 1) }",
        "Write sync{ ... } after settings{ ... }, not in it.",
    ),
    ("settings{ source = '@SRC@' }", "It belongs in sync{ ... }."),
    (
        "settings{ statusInterval = 0/0 }",
        "must be a number of seconds, 0 or more.",
    ),
    (
        "settings{ stopTimeout = -1 }",
        "must be a number of seconds, 0 or more.",
    ),
    (
        "settings{ maxProcesses = 0 }",
        "setting \"maxProcesses\" must be a number, 1 or more.",
    ),
    (
        "settings{ pidfile = {} }",
        "setting \"pidfile\" must be a text, not a table.",
    ),
    (
        "settings{ logfile = 'a\\0b' }",
        "setting \"logfile\" contains a NUL byte.",
    ),
    (
        "settings{ logfile = '' }",
        "setting \"logfile\" must not be empty.",
    ),
    (
        "settings{ inotifyMode = 'x' }",
        "'x' not a valid inotfiyMode.",
    ),
    (
        "settings{ logfacility = 'x' }",
        "Logging facility 'x' unknown.",
    ),
    (
        "settings{ {} }",
        "the name of a setting must be a text, not a table.",
    ),
    (
        "settings()",
        "settings takes a table or the name of a setting",
    ),
    // Misuse of the functions.
    ("alarm(5, print)", "alarm needs a timestamp"),
    ("alarm(now(), 5)", "function expected, got number"),
    ("local x = now() + now()", "Cannot add two timestamps!"),
    ("local x = now() < 5", "number"),
    ("spawn()", "spawning with an invalid agent"),
    ("spawn({}, 'x')", "spawning with an unknown agent"),
    ("terminate()", "terminate needs an exit code"),
    ("readdir()", "string expected, got nil"),
    ("log('x', print)", "log does not take functions"),
    (
        "Queue.new():remove(1)",
        "Removing nonexisting item in Queue",
    ),
    ("Queue.new().x = 1", "Queues are not directly assignable."),
    (
        "local i = RSYNC(delay = 1) i.foo()",
        "inlet does not have function \"foo\"",
    ),
    ("local i = RSYNC(delay = 1) i.getEvent()", "no event is due"),
    (
        "local i = RSYNC(delay = 1) i.discardEvent({})",
        "discardEvent needs an event",
    ),
    (
        "local i = RSYNC(delay = 1) i.appendFilter('x')",
        "Unknown filter rule: \"x\"",
    ),
    ("substitudeCommands('x', 5)", "without a table of data"),
    ("string.starts()", "attempt to index a nil value"),
    // Globals that the preludes need are removed.
    ("default = nil RSYNC(delay = 1)", "global 'default'"),
    ("default.prepare = nil RSYNC(delay = 1)", "'prepare'"),
    ("sync = nil sync{}", "global 'sync'"),
    (
        "error, pcall, tostring, type = nil RSYNC(dealy = 1)",
        "Did you mean \"delay\"?",
    ),
];

#[test]
fn each_mistake_is_reported_with_file_and_line() {
    const THREADS: usize = 4;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for (mistake, said) in MISTAKES.iter().skip(thread).step_by(THREADS) {
                    refused(mistake, said);
                }
            });
        }
    });
}

fn refused(mistake: &str, said: &str) {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let line = expand(mistake);
    let ended = Daemon::new(&dir, &format!("-- first\n\n{line}"))
        .fake_first()
        .run();
    ended.assert_refused();
    let stderr = &ended.stderr;
    let clear = stderr.contains("Error: ")
        && stderr
            .lines()
            .any(|text| text.contains("config.lua:3:") && text.contains(&dir.expand(said)));
    assert!(clear, "{mistake}: {said:?} is not said:\n{stderr}");
    assert!(!stderr.contains("panicked"), "{mistake}:\n{stderr}");
    assert!(fake.calls().is_empty(), "{mistake}");
}

fn expand(mistake: &str) -> String {
    for (short, begin) in [
        (
            "RSYNC(",
            "sync{ default.rsync, source = '@SRC@', target = '@TRG@', ",
        ),
        ("SYNC(", "sync{ source = '@SRC@', target = '@TRG@', "),
    ] {
        let Some(at) = mistake.find(short) else {
            continue;
        };
        let rest = &mistake[at + short.len()..];
        let mut open = 1;
        let end = rest.find(|c| {
            open += i32::from(c == '(') - i32::from(c == ')');
            open == 0
        });
        let end = end.expect("closed");
        let (more, behind) = (&rest[..end], &rest[end + 1..]);
        return format!("{}{begin}{more} }}{behind}", &mistake[..at]);
    }
    mistake.to_owned()
}

/// The limit of Lua's memory is reached before the memory of the machine is used up.
#[test]
fn endless_memory_ends_with_an_error() {
    let dir = Dir::new();
    let config = "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1 << 26) end";
    let ended = Daemon::new(&dir, config).run();
    ended.assert_refused();
    assert!(
        ended.stderr.contains("not enough memory"),
        "{}",
        ended.stderr
    );
}

/// `sync` can be called only while the configuration is loaded.
#[test]
fn sync_at_run_time_is_an_error() {
    let dir = Dir::new();
    let config = "sync{ source = '@SRC@', onStartup = function()
        sync{ source = '@SRC@', onCreate = 'true' }
    end }";
    let ended = Daemon::new(&dir, config).run();
    ended.assert_refused();
    let said = "Sync can only be created during initialization.";
    let text = ended.stdout + &ended.stderr;
    assert!(text.contains(said), "{text}");
    assert!(text.contains("config.lua:2:"), "{text}");
}
