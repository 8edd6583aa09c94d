//! Objects that the user functions of a sync get: events, lists, the inlet; inheritance, and calls
//! of the built-in kinds.

use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;
use crate::support::fake::Fake;

/// Waits for these lines on standard output, in this order.
fn wait_lines(daemon: &mut Running<'_>, lines: &[&str]) {
    let text = lines.join("\n") + "\n";
    daemon.wait_log(&text);
}

/// Starts the daemon with `init = false` replaced by a startup function, and waits until that has
/// run, when all is watched.
fn watching<'d>(dir: &'d Dir, config: &str) -> Running<'d> {
    let init = "init = function(event) print('watching') event.inlet.discardEvent(event) end";
    assert!(config.contains("init = false"));
    let mut daemon = Daemon::new(dir, &config.replace("init = false", init)).start();
    daemon.wait_log("watching\n");
    daemon
}

/// Lua that shows all fields of an event in one line.
const SHOW: &str = r#"
local function show(event, names)
  local values = { }
  for i, name in ipairs(names) do
    values[i] = tostring(event[name])
  end
  return table.concat(values, "|")
end
"#;

#[test]
fn fields_of_events() {
    let dir = Dir::new();
    let config = format!(
        r#"{SHOW}
        local names = {{ "etype", "isList", "status", "isdir", "name", "basename", "path",
          "pathname", "pathdir", "source", "sourcePath", "sourcePathname", "sourcePathdir",
          "target", "targetPath", "targetPathname", "targetPathdir", "move" }}
        local function say(event, event2)
          print(show(event, names))
          if event2 then print(show(event2, names)) end
          local ok, err = pcall(function() return event.nonsense end)
          assert(err:find('event does not have field "nonsense"', 1, true))
          assert(rawget(event, "path") == nil and event.config.mine == 5)
        end
        sync {{ source = "@SRC@", target = "@TRG@", delay = 0, mine = 5,
          checkgauge = {{ mine = true }}, onStartup = say, onCreate = say, onMove = say,
          onDelete = say, onModify = function() end }}"#
    );
    let mut daemon = Daemon::new(&dir, &config).start();
    wait_lines(
        &mut daemon,
        &[
            "Init|false|wait|false|nil|nil||||@SRC@/|@SRC@/|@SRC@/|@SRC@/|@TRG@|@TRG@|@TRG@|@TRG@|nil",
        ],
    );
    dir.mkdir("d");
    wait_lines(
        &mut daemon,
        &[
            "Create|false|wait|true|d/|d|d/|d||@SRC@/|@SRC@//d/|@SRC@//d|@SRC@//|@TRG@|@TRG@/d/|@TRG@/d|@TRG@/|nil",
        ],
    );
    // A link causes only a Create.
    dir.symlink("nowhere", "d/g h");
    wait_lines(
        &mut daemon,
        &[
            "Create|false|wait|false|g h|g h|d/g h|d/g h|d/|@SRC@/|@SRC@//d/g h|@SRC@//d/g h|@SRC@//d/|@TRG@|@TRG@/d/g h|@TRG@/d/g h|@TRG@/d/|nil",
        ],
    );
    dir.mv("d/g h", "f");
    wait_lines(
        &mut daemon,
        &[
            "Move|false|wait|false|g h|g h|d/g h|d/g h|d/|@SRC@/|@SRC@//d/g h|@SRC@//d/g h|@SRC@//d/|@TRG@|@TRG@/d/g h|@TRG@/d/g h|@TRG@/d/|Fr",
            "Move|false|wait|false|f|f|f|f||@SRC@/|@SRC@//f|@SRC@//f|@SRC@//|@TRG@|@TRG@/f|@TRG@/f|@TRG@/|To",
        ],
    );
    dir.rm("d");
    wait_lines(
        &mut daemon,
        &[
            "Delete|false|wait|true|d/|d|d/|d||@SRC@/|@SRC@//d/|@SRC@//d|@SRC@//|@TRG@|@TRG@/d/|@TRG@/d|@TRG@/|nil",
        ],
    );
}

/// Without a target, the target fields are nil.
#[test]
fn events_without_a_target() {
    let dir = Dir::new();
    let config = r#"sync { source = "@SRC@", onStartup = function(event)
        assert(event.target == nil)
        print(pcall(function() return event.targetPath end))
        terminate(0)
      end }"#;
    let ended = Daemon::new(&dir, config).run();
    assert!(
        ended.stdout.contains("the sync has no target"),
        "{}{}",
        ended.stdout,
        ended.stderr
    );
}

/// A key that an action sets in an event is still there when its process has ended.
#[test]
fn user_keys_stay_in_their_event() {
    let dir = Dir::new();
    let config = r#"
        sync { source = "@SRC@", delay = 0, onMove = true, init = false,
          action = function(inlet)
            local event, event2 = inlet.getEvent()
            assert(inlet.getEvent() == event and rawget(event, "mine") == nil)
            event.mine = event.etype .. (event2 and event2.path or event.path)
            spawn(event, "true")
            assert(event.status == "active")
            event, event2 = nil, nil
            collectgarbage()
          end,
          collect = function(event, code)
            print("collected", rawget(event, "mine"), code, event.status)
          end }"#;
    let mut daemon = watching(&dir, config);
    dir.mkdir("d");
    wait_lines(&mut daemon, &["collected\tCreated/\t0\tactive"]);
    dir.mv("d", "e");
    wait_lines(&mut daemon, &["collected\tMovee/\t0\tactive"]);
}

#[test]
fn lists_of_events() {
    let dir = Dir::new();
    let config = r#"
        local first = true
        sync { source = "@SRC@", delay = 0.3, onMove = true, init = false, maxProcesses = 4,
          action = function(inlet)
            local list = inlet.getEvents(function(event, event2)
              if event.pathname == "stop" then return "break" end
              return event.etype ~= "Delete" and event.pathname ~= "skip"
            end)
            if list.size() == 0 then
              for _, event in ipairs(inlet.getEvents().getList()) do
                if event.status == "wait" then inlet.discardEvent(event) end
              end
              return
            end
            list.mine = "kept"
            assert(list.isList == true and list.config == inlet.getConfig())
            local ok, err = pcall(function() return list.nonsense end)
            assert(err:find('event list does not have function "nonsense"', 1, true))
            assert(type(select(2, pcall(list.getPaths, 5))) == "string")
            print("paths " .. table.concat(list.getPaths(), " "))
            print("changed " .. table.concat(list.getPaths(function(etype, path, path2)
              return etype .. path, path2
            end), " "))
            assert(list.size() == #list.getList() and list.getList()[1].inlet == inlet)
            spawn(list, "true")
          end,
          collect = function(list, code)
            print("collected", list.isList, rawget(list, "mine"), code)
          end }"#;
    let mut daemon = watching(&dir, config);
    daemon.stop();
    for name in ["a", "skip", "b", "stop", "c"] {
        dir.mkdir(name);
    }
    daemon.cont();
    wait_lines(
        &mut daemon,
        &[
            "paths /a/ /b/",
            "changed Create/a/ Create/b/",
            "collected\ttrue\tkept\t0",
        ],
    );
    dir.mv("a", "z");
    wait_lines(&mut daemon, &["paths /a/ /z/", "changed Move/a/ /z/"]);
}

#[test]
fn arguments_of_spawn() {
    let dir = Dir::new();
    let config = r#"
        local function told(name, ...)
          local more = { ... }
          return function(event)
            local script = "for a; do echo \"[$a]\"; done > @DIR@/" .. name .. "; cat >> @DIR@/" .. name
            if more[1] == "<" then
              spawn(event, "sh", "<", more[2], "-c", script, "sh", table.unpack(more, 3, 9))
            else
              spawn(event, "sh", "-c", script, "sh", table.unpack(more, 1, 9))
            end
          end
        end
        sync { source = "@SRC@", onStartup = told("plain", "a b", 5, 1.5, nil, { "x", 7 }, { }, "<"),
          onCreate = true }
        sync { source = "@SRC@", onStartup = told("input", "<", "line 1\nline 2\n", "w"), onCreate = true }
        sync { source = "@SRC@", onCreate = true, onStartup = function(event)
          spawnShell(event, 'echo "$2$1" > @DIR@/shell', 1, "two")
        end }"#;
    let mut daemon = Daemon::new(&dir, config).start();
    daemon.wait_for("what was told", |_| {
        dir.text("plain") == "[a b]\n[5]\n[1.5]\n[x]\n[7]\n[<]\n"
            && dir.text("input") == "[w]\nline 1\nline 2\n"
            && dir.text("shell") == "two1\n"
    });
}

#[test]
fn wrong_arguments_of_spawn_are_errors() {
    let dir = Dir::new();
    let config = r#"
        local function fails(text, ...)
          local ok, err = pcall(...)
          assert(not ok and err:find(text, 1, true), err)
        end
        sync { source = "@SRC@", onCreate = true, onStartup = function(event)
          fails("spawning with an invalid agent", spawn, nil, "true")
          fails("spawning with an unknown agent", spawn, { }, "true")
          fails("binary is not a string", spawn, event)
          fails("not a table", spawn, event, "true", { { } })
          fails("NUL byte", spawn, event, "true", "a\0b")
          spawn(event, "true")
          fails("spawn() called on an non-waiting event", spawn, event, "true")
          event.inlet.discardEvent(event)
          print("all told")
        end }"#;
    let mut daemon = Daemon::new(&dir, config).start();
    daemon.wait_log("all told");
    daemon.wait_log("Ignored cancel of a non-waiting event of type Init");
}

#[test]
fn results_of_collect() {
    let dir = Dir::new();
    let config = r#"
        local tries = 0
        sync { source = "@SRC@", delay = 0, onCreate = true,
          init = function(event) spawnShell(event, "exit 3") end,
          collect = function(event, code)
            tries = tries + 1
            print("try", tries, code, event.etype)
            if tries < 2 then return "again" end
            return "die"
          end }"#;
    let ended = Daemon::new(&dir, config).run();
    ended.assert_refused();
    assert!(
        ended.stdout.contains("try\t1\t3\tInit\n") && ended.stdout.contains("try\t2\t3\tInit\n"),
        "{}",
        ended.stdout
    );
    let text = ended.stdout + &ended.stderr;
    assert!(text.contains("Critical exitcode."), "{text}");
}

#[test]
fn full_and_blanket_events() {
    let dir = Dir::new();
    let config = r#"
        sync { source = "@SRC@", delay = 0, init = false, maxProcesses = 2,
          action = function(inlet)
            local event = inlet.getEvent()
            print("action", event.etype, event.path)
            if event.path == "d/" then
              local full = inlet.createFullEvent("/x/")
              assert(full.etype == "Full" and full.path == "x/" and full.sourcePath == "@SRC@//x/")
              local blanket = inlet.createBlanketEvent()
              assert(blanket.etype == "Blanket" and blanket.path == "")
              blanket.mine = "b"
            end
            if event.etype == "Blanket" then assert(rawget(event, "mine") == "b") end
            inlet.discardEvent(event)
          end,
          full = function(event)
            print("full", event.path)
            spawn(event, "true")
          end,
          collect = function(event, code) print("collected", event.etype) end }"#;
    let mut daemon = watching(&dir, config);
    dir.mkdir("d");
    daemon.wait_log("full\tx/\n");
    daemon.wait_log("action\tBlanket\t\n");
    daemon.wait_log("collected\tFull\n");
}

#[test]
fn excludes_can_be_changed_at_run_time() {
    let dir = Dir::new();
    let config = r#"
        local inlet
        inlet = sync { source = "@SRC@", delay = 0, init = false, exclude = { "*.tmp" },
          checkgauge = { exclude = true },
          onCreate = function(event)
            print("created", event.pathname)
            if event.pathname == "change" then
              inlet.addExclude("*.bak")
              inlet.rmExclude("*.tmp")
              inlet.rmExclude("none")
              inlet.appendFilter("- /f*")
              inlet.appendFilter("+", "/f1")
              print(table.concat(inlet.getExcludes(), " "), inlet.hasFilters())
              print(table.concat(inlet.getFilters(), "; "))
            end
          end }
        assert(table.concat(inlet.getExcludes()) == "*.tmp" and inlet.hasFilters() == false)
        assert(inlet.getFilters()[1] == "- *.tmp")
        assert(inlet.getConfig().name == "Sync1")"#;
    let mut daemon = watching(&dir, config);
    for name in ["a.tmp", "a.bak", "change"] {
        dir.mkdir(name);
    }
    wait_lines(&mut daemon, &["created\ta.bak", "created\tchange"]);
    wait_lines(&mut daemon, &["*.bak\ttrue", "- /f*; + /f1; - *.bak"]);
    daemon.wait_log("Removing not excluded exclude \"none\"");
    for name in ["b.bak", "f1", "b.tmp"] {
        dir.mkdir(name);
    }
    wait_lines(&mut daemon, &["- /f*; + /f1; - *.bak", "created\tb.tmp"]);
}

#[test]
fn the_sync_object() {
    let dir = Dir::new();
    let config = r#"
        local inlet = sync { source = "@SRC@", delay = 0.1, exclude = "*.tmp", onMove = true,
          checkgauge = { exclude = true }, onCreate = function(event) print("got", event.path) end }
        local s = inlet.getSync()
        assert(s == inlet.getSync() and s.source == "@SRC@/" and s.config == inlet.getConfig())
        assert(s.inlet == inlet and s.name == "Sync1" and s.initDone == false)
        assert(s:concerns("@SRC@/f") and not s:concerns("@SRC@/f.tmp") and not s:concerns("/f"))
        assert(s.excludes.list["*.tmp"] and s.processes:size() == 0 and s.delays:size() == 0)
        s:delay("Create", now(), "/made up")
        s:delay("Move", now(), "/a", "/b")
        assert(s.delays:size() == 2 and s.delays:first().etype == "Create")
        assert(s.delays:last().path2 == "/b" and s.delays:last().status == "wait")
        assert(not pcall(s.delay, s, "Nonsense", now(), "/x"))
        assert(not pcall(s.delay, s, "Create", now(), "x"))"#;
    let mut daemon = Daemon::new(&dir, config).start();
    wait_lines(&mut daemon, &["got\tmade up"]);
}

#[test]
fn inheritance() {
    let dir = Dir::new();
    let config = r#"
        local grand = { deep = "grand", shared = { g = 1 }, list = { "g" } }
        local parent = { grand, deep = "parent", kept = "parent", shared = { p = 1 }, list = { "p" },
          closed = { _merge = false, p = 1 },
          some = { _merge = { wanted = true }, wanted = 1, other = 2 },
          codes = { _verbatim = true, [1] = "one", [2] = "two" } }
        local inlet = sync { parent, source = "@SRC@", onCreate = true, checkgauge = false,
          kept = false, shared = { own = 1 }, list = { "own" }, closed = { own = 1 }, some = { } }
        local c = inlet.getConfig()
        assert(c.deep == "parent" and c.kept == false)
        assert(c.shared.own == 1 and c.shared.p == 1 and c.shared.g == 1)
        assert(table.concat(c.list, ",") == "own,p,g", table.concat(c.list, ","))
        assert(c.closed.own == 1 and c.closed.p == nil)
        assert(c.some.wanted == 1 and c.some.other == nil and c.some._merge == nil)
        assert(c.codes[1] == "one" and c.codes[2] == "two" and c.codes._verbatim == nil)
        assert(c.delay == nil and c.maxDelays == 1000 and c.maxProcesses == 1)
        assert(c.action == default.action and c.init == default.init)
        assert(c.monitor == "inotify" and c._source == "@SRC@" and c.source == "@SRC@/")
        -- What is inherited is a copy.
        c.shared.p = 2
        assert(parent.shared.p == 1)

        default.delay = 7
        default._merge.delay = true
        assert(sync { source = "@SRC@", onCreate = true }.getConfig().delay == 7)
        print("all true") os.exit(0)"#;
    let ended = Daemon::new(&dir, config).run();
    assert!(ended.stdout.contains("all true"), "{}", ended.stderr);
}

/// The limit of all syncs is not the limit of each, and rsyncssh has one child only.
#[test]
fn limit_of_all_syncs_with_rsyncssh() {
    let dir = Dir::new();
    let config = r#"
        settings { maxProcesses = 5 }
        local sync = sync { default.rsyncssh, source = "@SRC@", host = "h", targetdir = "/t" }
        assert(sync.getConfig().maxProcesses == 1)
        print("all true") os.exit(0)"#;
    let ended = Daemon::new(&dir, config).run();
    assert!(ended.stdout.contains("all true"), "{}", ended.stderr);
}

#[test]
fn built_in_functions_called_by_user_code() {
    let dir = Dir::new();
    Fake::passing(&dir);
    let config = r#"
        local my = { default.rsync }
        my.checkgauge = { default.rsync.checkgauge, mine = true }
        my.action = function(inlet) print("my action") return default.rsync.action(inlet) end
        my.init = function(event)
          print("my init", event.config.mine)
          return default.rsync.init(event)
        end
        my.collect = function(agent, code)
          print("my collect", agent.isList, code)
          return default.collect(agent, code)
        end
        my.prepare = function(config, level)
          config.rsync.verbose = true
          print("my prepare", level)
          return default.rsync.prepare(config, level)
        end
        sync { my, source = "@SRC@", target = "@TRG@", mine = 5, delay = 0,
          rsync = { binary = "@RSYNC@" } }"#;
    dir.write("there", "before");
    let mut daemon = Daemon::new(&dir, config).start();
    wait_lines(&mut daemon, &["my prepare\t4"]);
    wait_lines(&mut daemon, &["my init\t5"]);
    wait_lines(&mut daemon, &["my collect\tfalse\t0"]);
    dir.write("new", "later");
    wait_lines(&mut daemon, &["my action"]);
    wait_lines(&mut daemon, &["my collect\ttrue\t0"]);
    daemon.wait_equal();
}

/// The watches have the events of all syncs; each sync ignores the others.
#[test]
fn each_sync_has_its_own_inotify_mode() {
    let dir = Dir::new();
    dir.write("f", "");
    let config = r#"
        local function say(mode)
          return sync { source = "@SRC@", name = mode, inotifyMode = mode, delay = 0, init = false,
            onModify = function(event) print(mode, event.path) end }
        end
        say("CloseWrite")
        say("Modify")
        settings { inotifyMode = "Modify" }
        sync { source = "@SRC@", delay = 0, init = false,
          onModify = function(event) print("by the setting", event.path) end }"#;
    let mut daemon = watching(&dir, config);
    let mut open = std::fs::File::options()
        .append(true)
        .open(dir.src("f"))
        .unwrap();
    std::io::Write::write_all(&mut open, b"x").unwrap();
    daemon.wait_log("Modify\tf\n");
    daemon.wait_log("by the setting\tf\n");
    assert!(!daemon.log().contains("CloseWrite\tf"), "{}", daemon.log());
    let before = daemon.log().matches("Modify\tf\n").count();
    drop(open);
    daemon.wait_log("CloseWrite\tf\n");
    // Syncs get an event in the order of the configuration, so the second one would have printed
    // the close event before the first one prints the next change.
    dir.write("g", "x");
    daemon.wait_log("CloseWrite\tg\n");
    assert_eq!(
        daemon.log().matches("\nModify\tf\n").count(),
        before,
        "{}",
        daemon.log()
    );
}

#[test]
fn requests_are_executed_in_the_order_of_the_calls() {
    let dir = Dir::new();
    let config = r#"
        settings { log = "Exec" }
        sync { default.direct, source = "@SRC@", target = "@TRG@", delay = 0, init = false,
          action = function(inlet)
            if inlet.getEvents().size() < 2 then return end
            spawn(inlet.getEvent(), "/bin/true", "spawned")
            default.direct.action(inlet)
          end }"#;
    let mut daemon = watching(&dir, config);
    daemon.stop();
    dir.write("first", "1");
    dir.write("second", "2");
    daemon.cont();
    let place = |log: &str| {
        (
            log.find("Exec: /bin/true [spawned]"),
            log.find("Exec: create [/"),
        )
    };
    daemon.wait_for("a process and a copy", |daemon| {
        matches!(place(&daemon.log()), (Some(_), Some(_)))
    });
    let (spawn, copy) = place(&daemon.log());
    assert!(spawn < copy, "{}", daemon.log());
}
