//! What a kind makes of an exit code: the transfer has succeeded (`ok`), is repeated (`again`), or
//! ends the sync (`die`).

use crate::support::daemon::Daemon;
use crate::support::dir::Dir;

/// Prints a letter for each exit code from 0 to 255, for each of the calls below.
const SCRIPT: &str = r#"
local function letters(name, collect, agent, signal, errors)
  local all = {}
  for code = 0, 255 do
    all[#all + 1] = (collect(agent, code, signal, errors) or "nil"):sub(1, 1)
  end
  print(name .. " " .. table.concat(all))
end
local function list(config) return { isList = true, config = config } end
local function init(config)
  return { isList = false, etype = "Init", source = "/s/", sourcePath = "/s/", target = "/t/", config = config }
end
local function single(config)
  return { isList = false, etype = "Create", source = "/s/", sourcePath = "/s/f", config = config }
end
local built_in = default.rsyncExitCodes
local own = { [0] = "ok", [7] = "again", [8] = "die", [9] = "ok" }
local lost = "rsync: connection unexpectedly closed (0 bytes received so far) [sender]\n"
for _, insist in ipairs { false, true } do
  settings{ insist = insist }
  local name = insist and "insist-" or ""
  letters(name .. "rsync-init", default.collect, init{ exitcodes = built_in })
  letters(name .. "own-init", default.collect, init{ exitcodes = own })
  letters(name .. "ssh-init", default.rsyncssh.collect, init{ rsyncExitCodes = built_in })
  letters(name .. "direct-init", default.direct.collect, init{ rsyncExitCodes = built_in })
end
settings{ insist = false }
for name, agent in pairs{ list = list, single = single } do
  letters("rsync-" .. name, default.collect, agent{ exitcodes = built_in })
  letters("own-" .. name, default.collect, agent{ exitcodes = own })
  letters("none-" .. name, default.collect, agent{ })
  letters("ssh-" .. name, default.rsyncssh.collect, agent{ rsyncExitCodes = built_in })
  letters("ssh-own-" .. name, default.rsyncssh.collect, agent{ exitcodes = own, rsyncExitCodes = built_in })
  letters("direct-" .. name, default.direct.collect, agent{ rsyncExitCodes = built_in })
  letters("direct-own-" .. name, default.direct.collect, agent{ exitcodes = own, rsyncExitCodes = built_in })
  letters("killed-" .. name, default.collect, agent{ exitcodes = own }, 9)
  letters("lost-" .. name, default.collect, agent{ exitcodes = built_in }, nil, lost)
  letters("lost-own-" .. name, default.collect, agent{ exitcodes = own }, nil, lost)
  letters("ssh-lost-" .. name, default.rsyncssh.collect, agent{ rsyncExitCodes = built_in }, nil, lost)
end
"#;

/// Returns the letters of all exit codes; those that are not listed have `other`.
fn letters(ok: &[usize], again: &[usize], die: &[usize], other: char) -> String {
    let letter = |code| {
        let listed = [(ok, 'o'), (again, 'a'), (die, 'd')];
        let mut listed = listed.into_iter();
        let found = listed.find(|(codes, _)| codes.contains(&code));
        found.map_or(other, |(_, letter)| letter)
    };
    (0..256).map(letter).collect()
}

#[test]
fn each_exit_code_has_its_meaning() {
    let dir = Dir::new();
    let stdout = Daemon::new(&dir, SCRIPT).run().stdout;
    // rsync(1), "EXIT VALUES". 23 and 24 mean that some files were not transferred; which ones is
    // read from the messages.
    let built_in = letters(&[0, 23, 24], &[], &[1, 2, 4, 25], 'a');
    let own = letters(&[0, 9], &[7], &[8], 'd');
    let own_again = letters(&[0, 9], &[7], &[8], 'a');
    let none = letters(&[0], &[], &[], 'd');
    let killed = letters(&[], &[], &[], 'a');
    let lost = letters(&[0, 23, 24], &[], &[], 'a');
    // Without insist, a startup that would be repeated ends the daemon.
    let refused = letters(&[0, 23, 24], &[], &[], 'd');
    let own_refused = letters(&[0, 9], &[], &[], 'd');
    let mut expected = vec![
        ("rsync-init", &refused),
        ("own-init", &own_refused),
        ("ssh-init", &refused),
        ("direct-init", &refused),
        ("insist-rsync-init", &built_in),
        ("insist-own-init", &own),
        ("insist-ssh-init", &built_in),
        ("insist-direct-init", &built_in),
    ];
    for (list, single, letters) in [
        ("rsync-list", "rsync-single", &built_in),
        ("own-list", "own-single", &own),
        ("none-list", "none-single", &none),
        ("ssh-list", "ssh-single", &built_in),
        ("ssh-own-list", "ssh-own-single", &own),
        ("direct-list", "direct-single", &built_in),
        ("direct-own-list", "direct-own-single", &own_again),
        ("killed-list", "killed-single", &killed),
        ("lost-list", "lost-single", &lost),
        ("lost-own-list", "lost-own-single", &own),
        ("ssh-lost-list", "ssh-lost-single", &lost),
    ] {
        expected.extend([(list, letters), (single, letters)]);
    }
    for (name, letters) in expected {
        let begin = format!("{name} ");
        let found = stdout.lines().find_map(|line| line.strip_prefix(&begin));
        assert_eq!(found, Some(letters.as_str()), "{name}\n{stdout}");
    }
}
