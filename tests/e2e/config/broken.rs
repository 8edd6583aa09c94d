//! No broken configuration makes the daemon panic, abort or hang.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::{Dir, poll};
use crate::support::fake::Fake;

/// Calls each of `%FUNCTIONS%` with values of all types.
const BARRAGE: &str = r#"
local inlets, stale, lists = { }, { }, { }
local seed = 1
local function random(n)
  seed = (seed * 1103515245 + 12345) % 2147483648
  return seed // 65536 % n + 1
end

local function values()
  local v = {
    false, true, 0, 5, -1, 1.5, 0 / 0, math.huge, "", "x", "/x", "a\0b", "\xff", { }, { 1, "x" },
    { { } }, function() return "again" end, function() error({ }) end, now(), now() + 1,
    io.stdout, coroutine.create(print), setmetatable({ }, { __index = function() error("no") end }),
    "Create", "Move", "Modify", inlets[1] or 0, inlets[2] or 0, stale[1] or 0,
    stale[random(#stale + 1)] or 0, lists[1] or 0, lists[random(#lists + 1)] or 0,
    -- settings(default) and settings(lsyncd) would set what the order of keys says before the error.
    Queue.new(), setmetatable({ }, { __index = default }), setmetatable({ }, { __index = lsyncd }),
    _G and string or 0,
    setmetatable({ }, { __tostring = function() error("no") end, __len = function() return 7 end }),
  }
  return v
end

local function functions()
  local f = {
    log, spawn, spawnShell, now, readdir, alarm, dump, substitudeCommands, settings, sync,
    string.starts, string.ends, table.contains, Queue.new, Queue.push, Queue.remove, Queue.first,
    Queue.last, Queue.size, Queue.qpairs, Queue.replace, Queue.inject, Queue.qpairsReverse,
    default.action, default.init, default.collect, default.prepare, default.rsync.action,
    default.rsync.init, default.rsync.full, default.rsync.prepare, lsyncd.exec,
    lsyncd.get_free_port, lsyncd.get_file_size, lsyncd.get_process_info, lsyncd.realdir,
    lsyncd.jiffies_from_seconds, lsyncd.splitQuotedString, lsyncd.configure,
    lsyncd.inotify.addwatch, lsyncd.inotify.rmwatch,
  }
  for _, inlet in ipairs(inlets) do
    for _, name in ipairs { "getEvent", "getEvents", "discardEvent", "getConfig",
      "createBlanketEvent", "createFullEvent", "addExclude", "rmExclude", "appendFilter",
      "getExcludes", "getFilters", "hasFilters", "getSync", "getSubstitutionData" } do
      f[#f + 1] = function(...) return inlet[name](...) end
    end
    f[#f + 1] = function(...) return inlet.getSync():concerns(...) end
    f[#f + 1] = function(...) return inlet.getSync():delay(...) end
    f[#f + 1] = function(k) return inlet.getSync()[k].x end
    f[#f + 1] = function(k) return inlet[k] end
    f[#f + 1] = function() return inlet.getSync().delays:size(), inlet.getSync().processes.size() end
  end
  for _, list in ipairs { lists[1], lists[#lists] } do
    f[#f + 1] = function(...) return list.getPaths(...) end
    f[#f + 1] = function(...) return list.getList(...) end
    f[#f + 1] = function(...) return list.size(...) end
  end
  for _, event in ipairs { stale[1], stale[#stale] } do
    for _, name in ipairs { "config", "inlet", "etype", "isList", "status", "isdir", "name",
      "basename", "path", "pathname", "pathdir", "source", "sourcePath", "sourcePathname",
      "sourcePathdir", "target", "targetPath", "targetPathname", "targetPathdir", "move" } do
      f[#f + 1] = function() return event[name] end
    end
  end
  return f
end

local depth, done = 0, { }
local function barrage(where)
  if depth > 0 or done[where] then return end
  depth = 1
  local v = values()
  for _, f in ipairs(functions()) do
    pcall(f)
    for i = 1, #v do pcall(f, v[i]) end
    for _ = 1, 30 do
      pcall(f, v[random(#v)], v[random(#v)], v[random(#v)], v[random(#v)])
    end
  end
  collectgarbage()
  depth = 0
  done[where] = true
  io.stderr:write("\ndone: " .. where .. "\n")
end

local function keep(event)
  if #stale < 8 then stale[#stale + 1] = event end
end

local i1 = sync {
  source = "@SRC@", target = "@TRG@", delay = 0, checkgauge = false, maxProcesses = 3,
  prepare = function(config) barrage("prepare") default.prepare(config) end,
  init = function(event)
    keep(event)
    if event.status == "wait" then event.inlet.discardEvent(event) end
  end,
  action = function(inlet)
    local event = inlet.getEvent()
    keep(event)
    setmetatable({ }, { __gc = function() barrage("gc") end })
    inlet.getEvents(function(event)
      keep(event)
      barrage("test")
      return true
    end)
    local list = inlet.getEvents()
    lists[#lists + 1] = list
    list.getPaths(function(_, path)
      barrage("mutator")
      return path
    end)
    barrage("action")
    if event.status == "wait" then spawn(event, "true") end
  end,
  collect = function(agent, code)
    keep(agent)
    barrage("collect")
  end,
  full = function(event) barrage("full") if event.status == "wait" then spawn(event, "true") end end,
}
inlets[1] = i1
local i2 = sync { source = "@SRC@", target = "@TRG@", onCreate = function(event, event2)
  keep(event)
  barrage("handler")
end }
inlets[2] = i2
-- The queue of this one is out of the others' reach, so that its event can't be taken away.
sync { source = "@SRC@", onCreate = true, init = function(event)
  barrage("init")
  event.inlet.discardEvent(event)
  alarm(now(), function() barrage("alarm") end)
  i1.createFullEvent("/")
end }
barrage("load")
"#;

#[test]
fn calls_with_arguments_of_all_types_do_not_panic() {
    let places = [
        "prepare", "load", "init", "alarm", "full", "action", "test", "mutator", "collect",
        "handler",
    ];
    let dir = dir();
    let mut daemon = Daemon::new(&dir, BARRAGE).fake_first().start();
    daemon.wait_log("--- Startup ---");
    for (number, place) in places.iter().enumerate() {
        let mut made = 0;
        daemon.wait_for(place, |daemon| {
            // Not in each round: every event slows down the thousands of calls.
            if made % 20 == 0 {
                dir.write(format!("f{number}.{made}"), "x");
            }
            made += 1;
            daemon.log().contains(&format!("done: {place}\n"))
        });
    }
    assert_eq!(daemon.terminate(), Some(143), "{}", daemon.log());
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

/// Returns a work directory in which no configuration can run the real rsync.
fn dir() -> Dir {
    let dir = Dir::new();
    Fake::new(&dir);
    dir
}

/// Waits until the log contains the text, or the daemon has ended. Returns true for the text.
fn says(daemon: &mut Running<'_>, text: &str) -> bool {
    poll(|| daemon.log().contains(text) || daemon.has_ended());
    daemon.log().contains(text)
}

/// Sends TERM unless the daemon has ended. Returns the exit code, 128 + number for a signal.
fn stopped(daemon: &mut Running<'_>) -> i32 {
    if !daemon.has_ended() {
        daemon.signal(Signal::SIGTERM);
    }
    ended(daemon)
}

fn ended(daemon: &mut Running<'_>) -> i32 {
    let status = daemon.wait_end();
    let signal = || 128 + status.signal().unwrap_or_default();
    status.code().unwrap_or_else(signal)
}

/// An uncaught error in any callback ends the daemon with a line and a backtrace.
#[test]
fn uncaught_errors_end_with_a_line() {
    let wrong = [
        "spawn()",
        "spawn(inlet, 'true')",
        "inlet.discardEvent()",
        "inlet.discardEvent(inlet)",
        "inlet.foo()",
        "inlet.getEvents(5)[3]()",
        "inlet.createFullEvent({ })",
        "inlet.appendFilter('nonsense')",
        "error()",
        "error({ })",
        "error(setmetatable({ }, { __tostring = function() error('x') end }))",
        "alarm()",
        "now() + now()",
        "new_global = 1",
        "log(print)",
        "(nil)()",
        "sync { }",
        "settings { nonsense = 1 }",
        "local function f() f() end f()",
        "return ('x'):rep(1 << 60)",
        "coroutine.wrap(function() spawn() end)()",
    ];
    let places = [
        "init = function(event) local inlet = event.inlet CODE end",
        "action = function(inlet) CODE end",
        "onCreate = function(event) local inlet = event.inlet spawn(event, 'true') end,
         collect = function(event) local inlet = event.inlet CODE end",
        "init = function(event) local inlet = event.inlet
           inlet.discardEvent(event) alarm(now(), function() CODE end) end, onCreate = true",
        "action = function(inlet)
           inlet.getEvents(function() CODE end)
           inlet.getEvents(function() return true end).getPaths(function() CODE end) end",
    ];
    each(&wrong, |number, code| {
        // An expression is no statement in Lua, so it is assigned.
        let code = if code.starts_with(['n', '(']) && !code.starts_with("new") {
            format!("local _ = {code}")
        } else {
            (*code).to_owned()
        };
        let place = places[number % places.len()].replace("CODE", &code);
        let dir = dir();
        let config = format!("sync{{ source = '@SRC@', delay = 0, {place} }}");
        let mut daemon = Daemon::new(&dir, &config).fake_first().start();
        // A change before all is watched causes no event.
        let mut made = 0;
        poll(|| {
            dir.mkdir(format!("d{made}"));
            made += 1;
            daemon.has_ended()
        });
        let code = ended(&mut daemon);
        let log = daemon.log();
        assert_eq!(code, 255, "{place}: {log}");
        let line = log.lines().find(|line| line.contains("Error: in Lua: "));
        assert!(line.is_some(), "{place}: {log}");
        assert!(!log.contains("panicked"), "{place}: {log}");
    });
}

/// Calls a function for each item, for several items at the same time.
fn each<T: std::marker::Sync>(items: &[T], test: impl Fn(usize, &T) + std::marker::Sync) {
    const THREADS: usize = 4;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let test = &test;
            scope.spawn(move || {
                for (number, item) in items.iter().enumerate().skip(thread).step_by(THREADS) {
                    test(number, item);
                }
            });
        }
    });
}

const CONFIGS: [&str; 6] = [
    r#"settings { logfile = "@DIR@/log", statusFile = "@DIR@/status", nodaemon = true, insist = 1 }
sync { default.rsync, source = "@SRC@", target = "@TRG@", delay = 0.1, init = false,
  exclude = { "*.bak", "/x/**" }, filter = { "+ /a", "- /b" }, delete = "running",
  rsync = { archive = true, compress = false, _extra = { "-v", "--bwlimit=5" }, bwlimit = 3 } }"#,
    r#"sync { source = "@SRC@", target = "@TRG@", delay = 0, maxProcesses = 2,
  onCreate = "true ^sourcePathname ^targetPathname", onModify = "/bin/true ^path x^target.y",
  onMove = "true ^o.path ^d.path", onStartup = [[
    if [[ -d ^source ]]; then true; fi
  ]], exitcodes = { [0] = "ok", [1] = "again" } }"#,
    r#"local function list(n)
  local t = { }
  for i = 1, n do t[#t + 1] = "/bin/true" end
  return t
end
local my = { delay = 0, maxProcesses = 3,
  action = function(inlet)
    local events = inlet.getEvents(function(event) return event.etype ~= "Init" end)
    if events.size() == 0 then return end
    log("Normal", "paths ", table.concat(events.getPaths(), ","))
    spawn(events, "true", list(3), "<", events.getPaths(function(e, p, q) return p, q end))
  end,
  collect = function(agent, code)
    if code ~= 0 then return "again" end
    return default.collect(agent, code)
  end }
sync { my, source = "@SRC@", checkgauge = { mine = true }, mine = 5 }"#,
    r#"local q = Queue.new()
q:push("a") q:inject("b") q:push({ 1 })
for i, v in q:qpairs() do print(i, v) end
alarm(now() + 0.01, function(time, extra) log("Normal", time.seconds, extra) end, "e")
sync { source = "@SRC@", target = "@TRG@",
  init = function(event) local i = event.inlet i.createFullEvent("/") i.discardEvent(event) end,
  full = function(event) spawnShell(event, "exit $1", 0) end,
  onCreate = function(event)
    event.mine = rawget(event, "mine") or event.sourcePath
    spawn(event, "true", event.mine, event.targetPathname, event.config.name)
  end,
  prepare = function(config, level) config.target = config.target .. "/x" default.prepare(config, level) end }"#,
    r#"default.delay = 0
local count = 0
while count < 2 do
  count = count + 1
  sync { default.rsync, name = "s" .. count, source = "@SRC@", target = "@TRG@/" .. count,
    action = function(inlet) return default.rsync.action(inlet) end,
    init = function(event) return default.rsync.init(event) end,
    prepare = function(config, level) return default.rsync.prepare(config, level) end }
end
print(settings("insist"), lsyncd_version, #readdir("@DIR@"), lsyncd.get_process_info())"#,
    r#"local base = { checkgauge = { default.rsync.checkgauge, extra = true }, onMove = true,
  { rsync = { _merge = true, _verbatim = true, [1] = "x" }, extra = { _merge = { a = true }, a = 1 } } }
local inlet = sync { base, source = "@SRC@", target = "@TRG@", subdirs = false,
  action = function(inlet)
    local event, event2 = inlet.getEvent()
    if event.etype == "Init" then inlet.discardEvent(event) return end
    inlet.createBlanketEvent()
    inlet.addExclude("*.tmp") inlet.rmExclude("x") inlet.appendFilter("+ y")
    local s = inlet.getSync()
    print(s.initDone, s:concerns("@SRC@/f"), s.delays:size(), s.processes:size())
    inlet.discardEvent(event)
  end }
inlet.addExclude("load")"#,
];

/// Each mutation has one mistake; the position of the mistake varies.
#[test]
fn mutated_configurations_do_not_panic() {
    let mut mutants = Vec::new();
    let others = [
        "",
        "nil",
        "{ }",
        "5",
        "-1",
        "\"x\"",
        "true",
        "function() end",
        "{ nil }",
        "now()",
        "end",
        "\"\\0\"",
        "default",
        "1e400",
    ];
    for (number, config) in CONFIGS.iter().enumerate() {
        for (place, (start, end)) in tokens(config).into_iter().enumerate() {
            // Each token gets one mutation, which differs between configurations.
            let (before, after) = (&config[..start], &config[end..]);
            let other = others[(place * 5 + number * 3) % others.len()];
            mutants.push(format!("{before} {other} {after}"));
        }
    }
    assert!(mutants.len() > 500, "{}", mutants.len());
    // All mutations take minutes and run only with LSYNCD_TEST_ALL; otherwise a part of them runs.
    let step = match std::env::var_os("LSYNCD_TEST_ALL") {
        Some(_) => 1,
        None => 3,
    };
    let chosen: Vec<&String> = mutants.iter().step_by(step).collect();
    each(&chosen, |_, config| {
        let dir = dir();
        dir.write("there", "x");
        let mut daemon = Daemon::new(&dir, config).fake_first().start();
        if says(&mut daemon, "--- Startup ---") {
            dir.write("new", "x");
            // No condition holds for all of these, so the test waits for a fixed time.
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let code = stopped(&mut daemon);
        let log = daemon.log();
        let fine = [255, 143].contains(&code) && !log.contains("panicked");
        assert!(fine, "{code} from:\n{config}\n{log}");
        let told = code == 143 || log.contains("Error: ");
        assert!(told, "no error for:\n{config}\n{log}");
    });
}

/// Returns the byte ranges of names, numbers, strings and symbols.
fn tokens(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        at += match bytes[at] {
            b' ' | b'\n' => 1,
            quote @ b'"' => 2 + bytes[at + 1..].iter().take_while(|b| **b != quote).count(),
            byte if word(byte) => bytes[at..].iter().take_while(|b| word(**b)).count(),
            _ => 1,
        };
        if bytes[start] > b' ' {
            tokens.push((start, at));
        }
    }
    tokens
}

/// The code loops while the configuration is loaded, or in an action.
#[test]
fn term_ends_endless_code() {
    let endless = "print('in it') io.stdout:flush()
        while true do pcall(function() while true do end end) end";
    let at_work = format!(
        "sync{{ source = '@SRC@', init = function(event) {endless} end, onCreate = true }}"
    );
    for config in [endless, &at_work] {
        let dir = dir();
        let mut daemon = Daemon::new(&dir, config).start();
        daemon.wait_log("in it");
        assert_eq!(daemon.terminate(), Some(143), "{}", daemon.log());
    }
}

/// Each call of the action causes the next event.
#[test]
fn term_ends_an_action_that_causes_its_own_events() {
    let dir = dir();
    let config = "sync{ source = '@SRC@', delay = 0, init = false, action = function(inlet)
           inlet.discardEvent(inlet.getEvent())
           inlet.createBlanketEvent()
           print('again') io.stdout:flush()
         end }";
    let mut daemon = Daemon::new(&dir, config).start();
    let mut made = 0;
    daemon.wait_for("a call", |daemon| {
        dir.write(format!("f{made}"), "x");
        made += 1;
        daemon.log().contains("again")
    });
    assert_eq!(daemon.terminate(), Some(143));
}

/// They are called at load, in functions, in coroutines and within pcall.
#[test]
fn terminate_and_os_exit_end_with_their_exit_code() {
    let codes = [
        ("terminate(5)", 5),
        ("pcall(terminate, 6) print('on')", 6),
        ("return pcall(terminate, 6)", 6),
        ("while true do pcall(terminate, 7) end", 7),
        (
            "coroutine.wrap(function() pcall(terminate, 8) error('x') end)()",
            8,
        ),
        ("terminate('9')", 9),
        ("os.exit(10)", 10),
        ("os.exit(11, true)", 11),
        ("os.exit(true, true)", 0),
        ("os.exit(false)", 1),
    ];
    each(&codes, |_, (code, expected)| {
        let at_work = format!(
            "sync{{ source = '@SRC@', onCreate = true, init = function(event) {code} end }}"
        );
        for config in [*code, &at_work] {
            let dir = dir();
            let mut daemon = Daemon::new(&dir, config).start();
            assert_eq!(ended(&mut daemon), *expected, "{config}: {}", daemon.log());
            assert!(!daemon.log().contains("on\n"), "{config}");
        }
    });
}
