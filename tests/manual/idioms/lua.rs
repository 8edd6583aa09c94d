//! What configurations do with Lua, and the loose ways they are written.

use super::Idiom;

#[test]
fn loose_settings() {
    Idiom::new(
        r#"
        settings {
            insist = 1, statusInterval = "5", inotifyMode = Modify, logfacility = daemon, log = all,
            maxProcesses = "2",
        }
        sync{default.rsync, source="/data/www", target="/backup/www", delay=0.3}"#,
    )
    .run();
}

#[test]
fn settings_twice_and_asked() {
    Idiom::new(
        r#"
        settings { insist = "true" }
        settings { statusFile = "/var/log/lsyncd/status", "onepass" }
        settings { onepass = false }
        assert(settings("insist") and not settings("onepass"))
        sync{default.rsync, source="/data/www", target="/backup/www", delay=0.3}"#,
    )
    .run();
}

#[test]
fn kind_behind_the_keys() {
    Idiom::new(r#"sync { source="/data/www"; target="/backup/www"; delay=0.3; default.rsync; }"#)
        .run();
}

#[test]
fn loop_over_a_list() {
    Idiom::new(
        r#"
        local servers = { "a", "b" }
        for _, server in ipairs(servers) do
            for i, name in ipairs{ "www", "wiki" } do
                sync {
                    default.rsync,
                    source = "/data/" .. name,
                    target = "user@backup.example.org:/backup/" .. server .. name,
                    delay = i / 4,
                }
            end
        end"#,
    )
    .pair("/data/www", "/backup/awww")
    .pair("/data/wiki", "/backup/awiki")
    .run();
}

#[test]
fn loop_over_a_map() {
    Idiom::new(
        r#"
        local map = { ["/data/www"] = "/backup/www", ["/data/wiki"] = "/backup/wiki" }
        for from, to in pairs(map) do
            sync { default.rsync, source = from, target = to, delay = 0.3 }
        end"#,
    )
    .pair("/data/www", "/backup/www")
    .pair("/data/wiki", "/backup/wiki")
    .run();
}

#[test]
fn directory_of_parts() {
    Idiom::new(
        r#"
        local parts = io.popen("ls /etc/lsyncd/sync.d/*.lua")
        for part in parts:lines() do dofile(part) end
        parts:close()"#,
    )
    .file(
        "/etc/lsyncd/sync.d/www.lua",
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3 }"#,
    )
    .file(
        "/etc/lsyncd/sync.d/wiki.lua",
        r#"sync { default.rsync, source = "/data/wiki", target = "/backup/wiki", delay = 0.3 }"#,
    )
    .pair("/data/www", "/backup/www")
    .pair("/data/wiki", "/backup/wiki")
    .run();
}

#[test]
fn module_of_ones_own() {
    Idiom::new(
        r#"
        package.path = "/etc/lsyncd/?.lua;" .. package.path
        local common = require("common")
        sync { common.kind, source = "/data/www", target = common.target("www") }"#,
    )
    .file(
        "/etc/lsyncd/common.lua",
        r#"
        local M = { kind = { default.rsync, delay = 0.3, rsync = { archive = true } } }
        function M.target(name) return "/backup/" .. name end
        return M"#,
    )
    .run();
}

#[test]
fn environment_and_files_at_load() {
    Idiom::new(
        r#"
        local home = os.getenv("HOME") or "/root"
        os.execute("mkdir -p " .. home .. "/backup" .. "/made")
        local list = assert(io.open("/etc/lsyncd/exclude"))
        local exclude = { }
        for line in list:lines() do exclude[#exclude + 1] = line end
        list:close()
        print(os.date("%Y"), debug.getinfo(1).short_src)
        sync { default.rsync, source = home .. "/data" .. "/www", target = home .. "/backup" .. "/made",
               delay = 0.3, exclude = exclude }"#,
    )
    .file("/etc/lsyncd/exclude", "*.tmp\n")
    .pair("/data/www", "/backup/made")
    .hidden(&["x.tmp"])
    .run();
}

#[test]
fn comments_long_texts_and_unset_names() {
    Idiom::new(
        r#"
        --[[ Grüße, 同步
             sync { nothing } ]]
        if TARGET == nil then TARGET = [[/backup/www]] end
        sync { -- the site
            default.rsync,
            source = '/data/www', -- from
            target = TARGET,
            delay = 1/4,
            -- exclude = { "*" },
            rsync = { archive = true, perms = nil, _extra = { --[[ none ]] } },
        };"#,
    )
    .run();
}

#[test]
fn default_changed_for_all() {
    Idiom::new(
        r#"
        default.delay = 99
        default.rsync.delay = 0.3
        default.rsync.rsync.archive = true
        sync { default.rsync, source = "/data/www", target = "/backup/www" }"#,
    )
    .run();
}

#[test]
fn kind_with_parents() {
    Idiom::new(
        r#"
        local base = { default.rsync, delay = 0.3, exclude = { "*.tmp" }, rsync = { archive = true } }
        local web = { base, exclude = { "*.log" }, rsync = { compress = true } }
        sync { web, source = "/data/www", target = "/backup/www", exclude = { "*.bak" } }"#,
    )
    .hidden(&["a.tmp", "a.log", "a.bak"])
    .run();
}
