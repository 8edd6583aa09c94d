//! Keys of kinds that users define, whose names have a meaning in built-in kinds.

use std::fs;

use super::drop_in::startup_and_change;
use crate::support::daemon::{Daemon, Running};
use crate::support::dir::Dir;
use crate::support::fake::Fake;

/// Values that are invalid here, for keys that lsyncd does not have.
const OWN_VALUES: [(&str, &str); 13] = [
    ("check", "'/sums/'"),
    ("check", "true"),
    ("guard", "'me'"),
    ("inotifyMode", "'fast'"),
    ("ionice", "{ 'a' }"),
    ("maxPending", "'many'"),
    ("nice", "'very'"),
    ("onFailed", "'mail'"),
    ("onRecovered", "'mail'"),
    ("onSynced", "'touch'"),
    ("targets", "{ 'a', 'b' }"),
    ("targetsFrom", "{ 'a' }"),
    ("waitForSource", "'5 s'"),
];

/// The ways in which a kind declares keys of its own.
const WAYS: [&str; 3] = [
    "checkgauge = { @KEY@ = true }",
    "checkgauge = false",
    "prepare = function(config) assert(config.@KEY@ ~= nil) end",
];

#[test]
fn kinds_of_the_users_have_keys_of_their_own() {
    for (number, way) in WAYS.iter().enumerate() {
        // One daemon for all keys: each sync prints the value that its action gets.
        let dir = Dir::new();
        let mut config = String::from(
            "local function show(v)\n if type(v) ~= 'table' then return tostring(v) end\n local words = { } for _, w in ipairs(v) do words[#words + 1] = w end\n return '{' .. table.concat(words, ',') .. '}' end\n",
        );
        for (index, (key, value)) in OWN_VALUES.iter().enumerate() {
            let way = way.replace("@KEY@", key);
            config += &format!(
                "local kind = {{ {way}, init = false, action = function(inlet)
                   local event = inlet.getEvent()
                   print('sees{index} {key} ' .. show(inlet.getConfig().{key}) .. ' ' .. show(event.config.{key}))
                   inlet.discardEvent(event)
                 end }}
                 sync{{ kind, source = '@SRC@', delay = 0, {key} = {value} }}\n"
            );
        }
        let mut daemon = Daemon::new(&dir, &config).start();
        daemon.wait_log("--- Startup ---");
        let seen = |daemon: &Running<'_>| {
            let log = daemon.log();
            (0..OWN_VALUES.len()).all(|index| log.contains(&format!("sees{index} ")))
        };
        let mut change = 0;
        daemon.wait_for("each action is called", |daemon| {
            change += 1;
            fs::write(dir.path("src/f"), change.to_string()).unwrap();
            seen(daemon)
        });
        let log = daemon.log();
        for (index, (key, value)) in OWN_VALUES.iter().enumerate() {
            let shown = value.replace(['\'', ' '], "");
            let line = if value.contains("5 s") {
                format!("sees{index} {key} 5 s 5 s")
            } else {
                format!("sees{index} {key} {shown} {shown}")
            };
            assert!(log.contains(&line), "way {number}, {line}: {log}");
        }
        assert!(log.contains("Warn") && log.contains("is left to the functions"));
    }
}

/// If lsyncd would refuse the key, or no part of the kind is user-defined, the value must be valid.
#[test]
fn wrong_values_of_new_keys_are_refused_where_lsyncd_refuses_the_key() {
    for (key, value) in OWN_VALUES {
        let own = "action = function(inlet) inlet.discardEvent((inlet.getEvent())) end";
        let prepared = "default.rsync, target = '@TRG@',
            prepare = function(config, level) return default.rsync.prepare(config, level) end";
        for kind in ["default.rsync, target = '@TRG@'", own, prepared] {
            // All kinds accept `targets`, and `waitForSource` accepts any value.
            if key.starts_with("targets") || key == "waitForSource" {
                continue;
            }
            let dir = Dir::new();
            let config = format!("sync{{ {kind}, source = '@SRC@', {key} = {value} }}");
            let ended = Daemon::new(&dir, &config).run();
            ended.assert_refused();
            let name = key.replace("inotify", "inotfiy");
            assert!(
                ended.stderr.contains(&name) || ended.stderr.contains(key),
                "{key}, {kind}: {}",
                ended.stderr
            );
        }
    }
}

/// Otherwise a mistake in the configuration would disable the check.
#[test]
fn a_check_is_never_taken_for_a_key_of_a_built_in_kind() {
    for check in ["{ comand = { 'scan' } }", "'scan'", "{ }"] {
        let dir = Dir::new();
        let config = format!(
            "sync{{ default.rsync, source = '@SRC@', target = '@TRG@', checkgauge = false,
               check = {check} }}"
        );
        let ended = Daemon::new(&dir, &config).run();
        ended.assert_refused();
        assert!(ended.stderr.contains("check"), "{}", ended.stderr);
    }
}

/// Keys in the gauge of a kind that is based on default.rsync belong to the kind; its batches are
/// built in.
#[test]
fn a_kind_on_top_of_a_built_in_one_has_keys_of_its_own() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let config = r#"
        local kind = { default.rsync,
          checkgauge = { default.rsync.checkgauge, targets = true, nice = true },
          prepare = function(config, level)
            config.target = config.targets.first
            config.rsync._extra = { config.nice }
            return default.rsync.prepare(config, level)
          end }
        sync{ kind, source = "@SRC@", targets = { first = "@DIR@/t1", second = "@DIR@/t2" },
          nice = "--bwlimit=9", delay = 0, rsync = { binary = "@RSYNC@" } }"#;
    let (calls, log) = startup_and_change(&dir, &fake, config);
    for call in &calls {
        assert_eq!(call.argv.last().unwrap(), &dir.expand("@DIR@/t1/"), "{log}");
        assert!(call.has("--bwlimit=9"));
    }
}

#[test]
fn user_defined_kinds_have_any_targets_and_hosts() {
    let dir = Dir::new();
    let config = r#"
        sync{ source = "@SRC@", delay = 0, init = false, checkgauge = false,
          target = { "a", "b" }, host = { name = "h" }, batchSizeLimit = "10M",
          action = function(inlet)
            local event = inlet.getEvent()
            local config = inlet.getConfig()
            assert(event.target == config.target and config.batchSizeLimit == "10M")
            print("to " .. event.target[1] .. event.target[2] .. config.host.name)
            inlet.discardEvent(event)
          end }"#;
    let mut daemon = Daemon::new(&dir, config).start();
    daemon.wait_log("--- Startup ---");
    let mut number = 0;
    daemon.wait_for("the action is called", |daemon| {
        number += 1;
        fs::write(dir.path("src/f"), number.to_string()).unwrap();
        daemon.log().contains("to abh")
    });
}
