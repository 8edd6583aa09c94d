//! Configurations that lsyncd accepts: loose values, changes by `prepare`, user-defined kinds and
//! their code.

use std::fs;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support::daemon::Daemon;
use crate::support::dir::Dir;
use crate::support::fake::{Call, Fake};

/// Returns a `sync{}` with the recording stand-in, of this kind and with these keys.
fn sync(kind: &str, keys: &str) -> String {
    format!("sync{{ {kind}, source = \"@SRC@\", rsync = {{ binary = \"@RSYNC@\" }}, {keys} }}\n")
}

/// Starts the daemon, makes a change and returns the calls for the startup and the change.
pub(super) fn startup_and_change(dir: &Dir, fake: &Fake<'_>, config: &str) -> (Vec<Call>, String) {
    let mut daemon = Daemon::new(dir, config).start();
    daemon.wait_for("startup", |_| fake.ended() >= 1);
    daemon.wait_log("Startup of");
    // Files are changed until a change is noticed: the startup may have sent the first ones.
    let mut number = 0;
    daemon.wait_for("a batch", |_| {
        number += 1;
        fs::write(dir.path("src/f"), number.to_string()).unwrap();
        fake.ended() >= 2
    });
    assert_eq!(daemon.terminate(), Some(143));
    (fake.calls(), daemon.log())
}

#[test]
fn limits_below_one_end_every_delay() {
    let kinds = [
        ("default.rsync", "target = \"@TRG@\","),
        ("default.rsyncssh", "host = \"h\", targetdir = \"/t\","),
    ];
    for (kind, target) in kinds {
        for (limit, in_settings) in [("0", true), ("0.5", true), ("0", false), ("-2", false)] {
            let dir = Dir::new();
            let fake = Fake::new(&dir);
            let limit = format!("maxDelays = {limit},");
            let (settings, own) = if in_settings {
                (format!("settings{{ {limit} }}\n"), String::new())
            } else {
                (String::new(), limit.clone())
            };
            let keys = format!("{target} {own} delay = 86400,");
            let config = settings + &sync(kind, &keys);
            let (calls, _) = startup_and_change(&dir, &fake, &config);
            assert!(calls[1].lists("/f"), "{kind} {limit}");
        }
    }
}

#[test]
fn limits_below_one_end_the_delays_of_other_kinds() {
    for (kind, target) in [
        ("default.direct, target = \"@TRG@\"", "trg"),
        (
            "onCreate = 'cp ^sourcePathname @DIR@/fake', init = false",
            "fake",
        ),
    ] {
        let dir = Dir::new();
        let config =
            format!("sync{{ {kind}, source = \"@SRC@\", delay = 86400, maxDelays = 0.9 }}");
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.wait_log("--- Startup ---");
        let mut number = 0;
        daemon.wait_for("the change arrives", |_| {
            number += 1;
            dir.write(number.to_string(), "");
            fs::read_dir(dir.path(target)).unwrap().next().is_some()
        });
    }
}

#[test]
fn values_that_lsyncd_takes_are_warnings() {
    let cases = [
        ("delete = \"yes\",", "", "delete must be"),
        ("delete = 1,", "", "delete must be"),
        (
            "exitcodes = { [0] = \"ok\", [23] = \"warn\" },",
            "",
            "exitcodes[23] must be",
        ),
        (
            "",
            "settings{ statusFile = \"\" }\n",
            "there is no status file",
        ),
    ];
    for (keys, settings, text) in cases {
        let dir = Dir::new();
        let fake = Fake::new(&dir);
        let keys = format!("target = \"@TRG@\", delay = 0, {keys}");
        let config = format!("{settings}{}", sync("default.rsync", &keys));
        let (calls, log) = startup_and_change(&dir, &fake, &config);
        let warned = |line: &str| line.contains("Warn") && line.contains(text);
        assert!(log.lines().any(warned), "{keys}: {log}");
        let deletes = keys.contains("delete");
        assert!(
            calls.iter().all(|call| call.has("--delete") != deletes),
            "{keys}"
        );
    }
}

#[test]
fn options_that_are_a_text_have_no_effect_and_are_reported() {
    for (kind, keys, text) in [
        (
            "default.rsync",
            "target = '@TRG@', rsync = { binary = '@RSYNC@', _extra = '--one --two' }",
            "rsync._extra is a text",
        ),
        (
            "default.rsyncssh",
            "host = 'h', targetdir = '/t', ssh = { _extra = '-4' }, rsync = { binary = '@RSYNC@' }",
            "ssh._extra is a text",
        ),
    ] {
        let dir = Dir::new();
        let fake = Fake::new(&dir);
        let config = format!("sync{{ {kind}, source = '@SRC@', delay = 0, {keys} }}");
        let (calls, log) = startup_and_change(&dir, &fake, &config);
        assert!(log.contains(text), "{log}");
        let extra = |call: &Call| call.argv.iter().any(|word| word.contains("--one"));
        assert!(!calls.iter().any(extra), "{kind}");
        assert!(
            !calls[0]
                .argv
                .iter()
                .any(|word| word.split(' ').any(|part| part == "-4")),
            "{kind}"
        );
    }
}

/// The target is inside the source, and options of rsync exclude it.
#[test]
fn a_target_inside_the_source_may_be_left_out_by_options_of_rsync() {
    for options in [
        "'--include=f', '--exclude=*'",
        "'--exclude', '/in'",
        "'--exclude-from=@DIR@/list'",
        "'-f', '- in/'",
        "'-F', '--exclude=*/'",
    ] {
        let dir = Dir::new();
        dir.put("list", "/in/\n");
        dir.mkdir("in/trg");
        dir.write("f", "0");
        let config = format!(
            "sync{{ default.rsync, source = '@SRC@', target = '@SRC@/in/trg', delay = 0,
               rsync = {{ archive = true, _extra = {{ {options} }} }} }}"
        );
        let mut daemon = Daemon::new(&dir, &config).start_and_settle();
        dir.write("f", "changed");
        daemon.wait_for("the change arrives", |_| {
            fs::read(dir.src("in/trg/f")).is_ok_and(|text| text == b"changed")
        });
        assert!(!dir.src("in/trg/in").exists(), "{options}");
        let told = daemon.log().contains("is inside the source");
        assert_eq!(told, options.contains("-F"), "{options}");
    }
}

#[test]
fn an_empty_filter_has_no_effect() {
    for filter in ["{ }", "\"\""] {
        let dir = Dir::new();
        let fake = Fake::new(&dir);
        let keys = format!("target = \"@TRG@\", delay = 0, filter = {filter}");
        let config = sync("default.rsync", &keys);
        let mut daemon = Daemon::new(&dir, &config).start();
        if filter == "{ }" {
            daemon.wait_log("finished.");
            let filters = |word: &String| word.starts_with("--filter");
            assert!(!fake.calls()[0].argv.iter().any(filters));
        } else {
            assert_eq!(daemon.wait_end().code(), Some(255));
            assert!(
                daemon.log().contains("Unknown filter rule"),
                "{}",
                daemon.log()
            );
        }
    }
}

/// Without the `prepare` of the kind, rsync's options are not computed.
#[test]
fn a_user_defined_prepare_may_replace_that_of_the_kind() {
    for prepare in ["false", "function() end"] {
        let dir = Dir::new();
        let fake = Fake::new(&dir);
        let keys = format!("target = \"@TRG@/\", delay = 0, prepare = {prepare}");
        let (calls, _) = startup_and_change(&dir, &fake, &sync("default.rsync", &keys));
        assert!(calls[1].lists("/f"), "{prepare}");
    }
}

#[test]
fn values_set_by_prepare_are_used() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fs::create_dir(dir.path("other")).unwrap();
    let config = r#"
        local kind = { default.rsync,
          checkgauge = { default.rsync.checkgauge, host = true, targetdir = true, from = true },
          prepare = function(config, level)
            config.target = config.host .. "::module/" .. config.targetdir
            config.source = config.from
            config.delete = "startup"
            config.rsync.bwlimit = 7
            return default.rsync.prepare(config, level)
          end }
        sync{ kind, source = "@SRC@", from = "@DIR@/other", host = "web2", targetdir = "site",
          delay = 0, rsync = { binary = "@RSYNC@" } }"#;
    let mut daemon = Daemon::new(&dir, config).start_and_settle();
    let mut number = 0;
    daemon.wait_for("a batch", |_| {
        number += 1;
        fs::write(dir.path("other/f"), number.to_string()).unwrap();
        fake.ended() >= 2
    });
    let calls = fake.calls();
    for call in &calls {
        assert_eq!(
            call.argv.last().unwrap(),
            "web2::module/site/",
            "{:?}",
            call.argv
        );
        assert!(call.has(&dir.expand("@DIR@/other/")) && call.has("--bwlimit=7"));
    }
    assert!(calls[0].has("--delete") && !calls[1].has("--delete"));
    assert!(daemon.log().contains("-> web2::module/site/ finished"));
}

#[test]
fn values_set_after_prepare_of_the_kind_are_used() {
    for (change, seen) in [
        ("config.host = 'h2' config.targetdir = '/t2/'", "h2:/t2/"),
        ("config.target = 'h3:/t3/'", "h3:/t3/"),
    ] {
        let dir = Dir::new();
        let fake = Fake::new(&dir);
        let keys = format!(
            "host = 'h', targetdir = '/t', delay = 0, prepare = function(config, level)
               default.rsyncssh.prepare(config, level) {change} end"
        );
        let config = sync("default.rsyncssh", &keys);
        let (calls, _) = startup_and_change(&dir, &fake, &config);
        for call in &calls {
            assert_eq!(call.argv.last().unwrap(), seen);
        }
    }
}

/// A local target that `prepare` sets is checked even if the configured target is remote.
#[test]
fn a_dangerous_target_that_prepare_sets_is_refused() {
    let dir = Dir::new();
    let config = "sync{ default.rsync, source = '@SRC@', host = 'h', targetdir = 'd',
        checkgauge = { default.rsync.checkgauge, host = true, targetdir = true },
        prepare = function(config, level)
          config.target = '@DIR@'
          return default.rsync.prepare(config, level)
        end }";
    let ended = Daemon::new(&dir, config).run();
    ended.assert_refused();
    assert!(
        ended.stderr.contains("contains the source"),
        "{}",
        ended.stderr
    );
}

/// The action selects one kind of event, and spawns a process for the list.
#[test]
fn a_process_for_an_empty_list_is_no_progress() {
    for processes in [1, 3] {
        let config = format!(
            r#"
            local asked, ticks = 0, 0
            local function tick()
                ticks = ticks + 1
                log("Normal", "ticks: ", ticks, ", asked: ", asked)
                alarm(now() + 0.1, tick)
            end
            sync{{ source = "@SRC@", delay = 0, init = false, maxProcesses = {processes},
              action = function(inlet)
                if asked == 0 then alarm(now(), tick) end
                asked = asked + 1
                local list = inlet.getEvents(function(event) return event.etype == "Delete" end)
                spawn(list, "true")
            end,
            collect = function(list, code)
                if list.size() > 0 then log("Normal", "done ", list.getPaths()[1]) end
            end }}"#
        );
        let dir = Dir::new();
        dir.write("g", "");
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.wait_log("--- Startup ---");
        daemon.wait_for("an event waits", |daemon| {
            fs::write(dir.path("src/f"), "1").unwrap();
            daemon.log().contains("ticks: ")
        });
        daemon.wait_log("asked: 3");
        daemon.wait_log("ticks: 4");
        for ticks in ["ticks: 1,", "ticks: 2,"] {
            for asked in 3..100 {
                let often = format!("{ticks} asked: {asked}\n");
                assert!(!daemon.log().contains(&often), "{}", daemon.log());
            }
        }
        // Events of that kind are processed.
        fs::remove_file(dir.path("src/g")).unwrap();
        daemon.wait_log("done /g");
    }
}

#[test]
fn items_of_a_list_are_queue_entries() {
    let dir = Dir::new();
    let config = r#"
        sync{ source = "@SRC@", delay = 0.3, onMove = true,
          init = function(event) print("watching") event.inlet.discardEvent(event) end,
          action = function(inlet)
            local list = inlet.getEvents()
            for _, entry in ipairs(list.getList()) do
              assert(entry.alarm <= now() + 1 and entry.status == "wait" and entry.inlet == inlet)
              print(entry.etype .. " " .. entry.path .. " " .. tostring(entry.path2))
            end
            spawn(list, "true")
          end }"#;
    let mut daemon = Daemon::new(&dir, config).start();
    daemon.wait_log("watching\n");
    dir.mkdir("d");
    daemon.wait_log("Create /d/ nil\n");
    // A Move behind a running Create is split.
    daemon.wait_log("Finished a list");
    dir.mv("d", "e");
    daemon.wait_log("Move /d/ /e/\n");
}

#[test]
fn output_of_user_code_is_flushed_at_each_line() {
    let dir = Dir::new();
    let config = r#"
        sync{ source = "@SRC@", delay = 0, init = false, onCreate = function(event)
            io.write("written ", event.name, "\n")
            io.stdout:write("by ", "stdout\n")
            io.stderr:write("by ", "stderr\n")
        end }"#;
    let mut daemon = Daemon::new(&dir, config).start();
    daemon.wait_log("--- Startup ---");
    let mut number = 0;
    daemon.wait_for("the lines are out", |daemon| {
        number += 1;
        fs::write(dir.path(format!("src/{number}")), "").unwrap();
        let log = daemon.log();
        ["written ", "by stdout\n", "by stderr\n"]
            .iter()
            .all(|text| log.contains(text))
    });
}

/// After the end of the observation, neither the daemon nor its children have the descriptor.
#[test]
fn an_observed_standard_descriptor_is_let_go() {
    let dir = Dir::new();
    mkfifo(&dir.path("in"), Mode::from_bits_truncate(0o600)).unwrap();
    let config = r#"
        observefd(0, function(fd)
            log("Normal", "heard ", io.read("l"))
            nonobservefd(fd)
        end, nil)
        sync{ source = "@SRC@", delay = 0, init = false, onCreate = function(event)
            spawn(event, "readlink", "/proc/self/fd/0")
        end }"#;
    let mut daemon = Daemon::new(&dir, config)
        .wrapped(&[
            "sh",
            "-c",
            "exec 0<>\"$0\"; echo ping >&0; exec \"$@\"",
            "@DIR@/in",
        ])
        .start();
    daemon.wait_log("heard ping");
    let mut number = 0;
    daemon.wait_for("a child tells its input", |daemon| {
        number += 1;
        fs::write(dir.path(format!("src/{number}")), "").unwrap();
        daemon.log().contains("Finished Create")
    });
    assert!(
        !daemon.log().contains(&dir.expand("@DIR@/in\n")),
        "{}",
        daemon.log()
    );
    let held = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    let links = held
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok());
    assert_eq!(links.filter(|link| *link == dir.path("in")).count(), 0);
}

#[test]
fn scripts_run_without_a_configuration() {
    let run = |first: &str, second: &str| {
        let dir = Dir::new();
        dir.put("1.lua", dir.expand(first));
        dir.put("2.lua", dir.expand(second));
        let words = [
            "-script",
            "@DIR@/1.lua",
            "-nodaemon",
            "-script",
            "@DIR@/2.lua",
        ];
        Daemon::bare(&dir).args(&words).run()
    };
    let ended = run("print('one')", "print('two') os.exit(7)");
    assert_eq!(
        (ended.code(), ended.stdout.as_str()),
        (Some(7), "one\ntwo\n")
    );
    // The help text is printed as without a file.
    let ended = run(
        "print('one')",
        "sync{ onCreate = 'true', source = '@SRC@' }",
    );
    ended.assert_refused();
    assert!(
        ended.stdout.starts_with("one\nlsyncd version: "),
        "{}",
        ended.stdout
    );
    let ended = run("error('broken')", "print('two')");
    ended.assert_refused();
    assert!(ended.stderr.contains("broken") && !ended.stdout.contains("two"));
}
