//! Functions that a configuration may call: globals, the `lsyncd` table, Queue, timestamps.
//!
//! The checks are calls of Lua's `assert`, so a failure is reported with its line.

use std::fs;
use std::path::PathBuf;

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, skip};

/// Runs a configuration that contains checks.
fn holds(dir: &Dir, lua: &str) {
    let config = format!("{lua}\nprint('all true') os.exit(0)");
    let ended = Daemon::new(dir, &config).run();
    let text = format!("{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("all true"), "{text}");
    assert_eq!(ended.code(), Some(0), "{text}");
}

/// Runs checks in the startup function of a sync.
fn holds_at_work(dir: &Dir, lua: &str) {
    let config = format!(
        "sync{{ source = '@SRC@', target = '@TRG@', onCreate = 'true', init = function(event)
           local inlet = event.inlet
           {lua}
           print('all true') terminate(0)
         end }}"
    );
    let ended = Daemon::new(dir, &config).run();
    let text = format!("{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("all true"), "{text}");
    assert_eq!(ended.code(), Some(0), "{text}");
}

#[test]
fn helpers_for_strings_and_tables() {
    holds(
        &Dir::new(),
        r#"
        assert(string.starts("abc", "ab") and not string.starts("abc", "b"))
        assert(("abc"):ends("bc") and ("abc"):ends("") and not ("abc"):ends("ab"))
        assert(table.contains({ 1, "x" }, "x") and not table.contains({ x = 1 }, 1))
        assert(substitudeCommands("^a ^ab x^a ^z ^", { a = 1 }) == "1 1b x1 ^z ^")
        assert(substitudeCommands("^ab", { a = 1, ab = 2 }) == "2")
        local list = substitudeCommands({ "^a", "y^a", "^a^a" }, { a = "q" })
        assert(table.concat(list, ",") == "q,yq,qq")
        assert(substitudeCommands == substituteCommands)
        assert(substitudeCommands(5, { }) == nil)
        "#,
    );
}

#[test]
fn the_kinds_are_tables_with_their_settings() {
    holds(
        &Dir::new(),
        r#"
        assert(default.direct.maxProcesses == 1 and default.rsyncssh.maxProcesses == 1)
        assert(default.maxProcesses == 1 and default.rsync.maxProcesses == nil)
        settings{ maxProcesses = 4 }
        local function of(kind, keys)
            keys.source, keys[1] = "@SRC@", kind
            return sync(keys).getConfig().maxProcesses
        end
        assert(of(default.direct, { target = "@TRG@" }) == 4)
        assert(of(default.direct, { target = "@TRG@", maxProcesses = 2 }) == 2)
        default.direct.maxProcesses = 3
        assert(of(default.direct, { target = "@TRG@" }) == 3)
        "#,
    );
}

#[test]
fn splits_at_any_white_space() {
    holds(
        &Dir::new(),
        r#"
        local function split(text) return table.concat(lsyncd.splitQuotedString(text), "|") end
        assert(split("-p 22\t-v\n-4") == "-p|22|-v|-4")
        assert(split("\r\n a\v\fb ") == "a|b" and split(" \t") == "")
        assert(split("'a\tb' \"c\nd\"") == "a b|c d")
        "#,
    );
}

#[test]
fn a_queue_may_be_changed_during_iteration() {
    holds(
        &Dir::new(),
        r#"
        local function queue(n)
            local q = Queue.new()
            for i = 1, n do q:push(i) end
            return q
        end
        local function seen(pairs, q, drop)
            local text = ""
            for at, value in pairs(q) do
                text = text .. value
                if drop[value] then q:remove(at) end
            end
            local rest = ""
            for _, value in q:qpairs() do rest = rest .. value end
            return text, rest
        end
        local function same(pairs, order)
            for dropped = 0, 63 do
                local q, drop, rest = queue(6), { }, ""
                for i = 1, 6 do
                    drop[i] = dropped >> (i - 1) & 1 == 1
                    if not drop[i] then rest = rest .. i end
                end
                local text, left = seen(pairs, q, drop)
                assert(text == order and left == rest and q:size() == #rest, text .. " " .. left)
            end
        end
        same(Queue.qpairs, "123456")
        same(Queue.qpairsReverse, "654321")
        "#,
    );
}

#[test]
fn dump_prints_tables_in_tables() {
    let dir = Dir::new();
    let config = "local t = { a = 1, b = { c = 'x' } } t.b.t = t dump(t) lsyncd.dump({ 'y' }, 2)
                  lsyncd.stackdump() os.exit(0)";
    let text = Daemon::new(&dir, config).run().stdout;
    for line in ["a: 1", "b:", "  c: \"x\"", "  1: \"y\"", "in main chunk"] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn queue_has_the_functions_of_lsyncd() {
    holds(
        &Dir::new(),
        r#"
        local q = Queue.new()
        assert(q:size() == 0 and q:first() == nil and q:last() == nil)
        assert(q:push("a") == 1 and q:push("b") == 2 and q:inject("z") == 0)
        assert(q:size() == 3 and q[0] == "z" and q[2] == "b" and q[7] == nil)
        assert(q:first() == "z" and q:last() == "b")
        local text = ""
        for i, v in q:qpairs() do text = text .. i .. v end
        for i, v in q:qpairsReverse() do text = text .. i .. v end
        assert(text == "0z1a2b2b1a0z")
        q:replace(1, "A")
        q:remove(0)
        assert(q:first() == "A" and q:size() == 2)
        -- Taking one out of the middle keeps those behind it.
        q:push("c") q:push("d") q:remove(3)
        local rest = ""
        for i, v in q:qpairs() do rest = rest .. i .. v end
        assert(rest == "1A2b3d", rest)
        q:remove(1) q:remove(3) q:remove(2)
        assert(q:size() == 0 and q:push("new") == 1)
        local function fails(text, f, ...)
          local ok, err = pcall(f, ...)
          assert(not ok and err:find(text, 1, true), err)
        end
        fails("Queue pushing nil value", function() q:push(nil) end)
        fails("Removing nonexisting item in Queue", function() q:remove(9) end)
        fails("Trying to replace an unset Queue entry.", function() q:replace(9, 1) end)
        fails('Key "x" invalid for Queue', function() return q.x end)
        fails("Queues are not directly assignable.", function() q.x = 1 end)
        "#,
    );
}

/// Random calls compared with a sorted list of pairs.
#[test]
fn queue_behaves_like_a_sorted_list_of_pairs() {
    holds(
        &Dir::new(),
        r#"
        math.randomseed(20)
        for _ = 1, 300 do
          local q, model = Queue.new(), { }
          for step = 1, math.random(60) do
            local what = math.random(5)
            if what <= 2 then
              local at = #model == 0 and 1 or model[#model][1] + 1
              assert(q:push(step) == at)
              model[#model + 1] = { at, step }
            elseif what == 3 then
              local at = #model == 0 and 0 or model[1][1] - 1
              assert(q:inject(step) == at)
              table.insert(model, 1, { at, step })
            elseif #model > 0 then
              local which = math.random(#model)
              local at = model[which][1]
              if what == 4 then
                q:remove(at)
                table.remove(model, which)
                if which > 1 then
                  for behind = which, #model do model[behind][1] = model[behind][1] - 1 end
                end
              else
                q:replace(at, -step)
                model[which][2] = -step
              end
            end
            local n = 0
            for at, value in q:qpairs() do
              n = n + 1
              assert(at == model[n][1] and value == model[n][2] and q[at] == value)
            end
            assert(n == #model and q:size() == n)
            for at, value in q:qpairsReverse() do
              assert(at == model[n][1] and value == model[n][2])
              n = n - 1
            end
            assert(n == 0)
            assert(q:first() == (model[1] or { })[2] and q:last() == (model[#model] or { })[2])
          end
        end
        "#,
    );
}

#[test]
fn timestamps_are_compared_and_added() {
    holds(
        &Dir::new(),
        r#"
        local t = now()
        assert(type(t) == "userdata" and t == t and not (t == 5))
        assert((t + 1.5) - t == 1.5 and 2 + t == t + 2 and t - 1 < t and t <= t)
        assert(math.type(t.seconds) == "integer" and t.string == tostring(t.seconds))
        assert(t.other == nil and ("at " .. t):find("^at %d+%.%d%d%d%d%d%d$"))
        assert(lsyncd.now() >= t)
        assert(lsyncd.jiffies_from_seconds(5).seconds == 5)
        local ok, err = pcall(function() return t + t end)
        assert(not ok and err:find("Cannot add two timestamps!", 1, true))
        assert(not pcall(function() return t < 1 end))
        assert(not pcall(function() return 1 - t end))
        "#,
    );
}

#[test]
fn readdir_and_file_functions() {
    let dir = Dir::new();
    dir.mkdir("d");
    dir.write("f", "12345");
    dir.symlink("d", "link");
    dir.write("with\nnewline", "");
    holds(
        &dir,
        r#"
        local names = readdir("@SRC@")
        assert(names.d == true and names.f == false and names.link == false)
        assert(names["."] == nil and names["with\nnewline"] == false)
        assert(readdir("@DIR@/none") == nil and lsyncd.readdir("@SRC@/d").x == nil)
        assert(lsyncd.get_file_size("@SRC@/f") == 5)
        assert(lsyncd.get_file_size("@DIR@/none") == nil)
        assert(lsyncd.realdir("@SRC@/link") == "@SRC@/d/")
        assert(lsyncd.realdir("@DIR@/none") == nil)
        local words = lsyncd.splitQuotedString([[-p  22 -i '/a b/c' "x y" z]])
        assert(table.concat(words, "|") == "-p|22|-i|/a b/c|x y|z")
        "#,
    );
}

#[test]
fn functions_for_processes() {
    let dir = Dir::new();
    holds_at_work(
        &dir,
        r#"
        local pid = lsyncd.exec("sh", "-c", "echo $1 > @DIR@/said; exec sleep 600", "sh", 5)
        assert(math.type(pid) == "integer")
        assert(lsyncd.kill(pid, 0) == 0 and lsyncd.kill(pid, 15) == 0)
        assert(lsyncd.kill(1 << 40, 0) == -1 and lsyncd.kill(pid, 9999) == -1)
        assert(lsyncd.kill(0, 9) == -1 and lsyncd.kill(-1, 9) == -1)
        assert(lsyncd.inotify.addwatch("@SRC@", "Modify") == -1)
        assert(lsyncd.inotify.rmwatch(5) == nil)
        assert(lsyncd.exec("@DIR@/none") == nil)
        local port = lsyncd.get_free_port()
        assert(math.type(port) == "integer" and port > 0)
        local running, limit = lsyncd.get_process_info()
        assert(running == 0 and limit == nil)
        "#,
    );
}

#[test]
fn settings_can_be_read() {
    holds(
        &Dir::new(),
        r#"
        settings { insist = true, statusInterval = 5, "onepass" }
        assert(settings("insist") == true and settings("onepass") == true)
        assert(settings("statusInterval") == 5 and settings("nonsense") == nil)
        settings { insist = false }
        assert(settings("insist") == false)
        assert(lsyncd_version:find("^%d+%.%d+%.%d+$") and arg == nil)
        lsyncd.configure("logident", "mine")
        assert(settings("logident") == "mine")
        assert(not pcall(lsyncd.configure, "nonsense", 1))
        "#,
    );
}

#[test]
fn log_takes_values_of_all_types() {
    let dir = Dir::new();
    let config = r#"
        log("Error", "a", 1, 1.5, nil, true, false, { }, now(), "z")
        log("Error")
        lsyncd.log("Warn", "warned")
        assert(not pcall(log, "Error", print))
        os.exit(0)"#;
    let ended = Daemon::new(&dir, config).run();
    let text = ended.stdout + &ended.stderr;
    assert!(text.contains("a11.5(nil)(true)(false)(Table: 0x"), "{text}");
    assert!(text.contains(")(Timestamp: "), "{text}");
    assert!(text.contains("Warn: warned"), "{text}");
}

#[test]
fn alarms_ring_in_order_with_what_they_were_given() {
    let dir = Dir::new();
    let config = r#"
        local planned = now() + 0.2
        local rung = { }
        alarm(planned, function(time, extra)
          rung[#rung + 1] = extra
          assert(time == planned)
          -- An alarm set by an alarm, for a time that has passed, rings as well.
          alarm(now() - 1, function()
            assert(table.concat(rung, ",") == "early,late")
            print("all true")
            terminate(3)
          end)
        end, "late")
        alarm(now() + 0.1, function(time, extra) rung[#rung + 1] = extra end, "early")
        sync { source = "@SRC@", onCreate = "true" }"#;
    let ended = Daemon::new(&dir, config).run();
    assert!(ended.stdout.contains("all true"), "{}", ended.stderr);
    assert_eq!(ended.code(), Some(3));
}

#[test]
fn globals_are_locked_after_the_load() {
    let dir = Dir::new();
    holds_at_work(
        &dir,
        r#"
        local function fails(text, f)
          local ok, err = pcall(f)
          assert(not ok and err:find(text, 1, true), err)
        end
        fails('Declare "new" local or declare global on load.', function() new = 1 end)
        fails('Access of non-existing global "none"', function() return none end)
        _, __mine = 1, 2
        assert(_ == 1 and __mine == 2 and __none == nil)
        lsyncd_version = lsyncd_version
        "#,
    );
}

/// The daemon keeps its own references to standard functions.
#[test]
fn changed_standard_functions_have_no_effect_on_the_daemon() {
    let dir = Dir::new();
    holds_at_work(
        &dir,
        r#"
        table.concat, string.sub, ipairs, next = nil
        local q = inlet.getSync().delays
        assert(q:size() == 1 and q:first().etype == "Init")
        "#,
    );
}

/// C modules of the distribution use the Lua functions of this program.
#[test]
fn c_modules_of_the_distribution_work() {
    for (module, check) in [
        ("socket", "assert(module.gettime() > 0 and module.tcp())"),
        ("posix", "assert(module.getpid)"),
    ] {
        let dir = Dir::new();
        let roots = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from);
        let triplets = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let built = roots
            .into_iter()
            .chain(triplets.map(|entry| entry.path()))
            .map(|lib| lib.join("lua/5.4"))
            .any(|at| at.join(format!("{module}.so")).exists() || at.join(module).is_dir());
        if !built {
            skip(&format!("no rock {module} for Lua 5.4"));
            continue;
        }
        holds(&dir, &format!("local module = require '{module}' {check}"));
    }
}
