//! Commands and functions for each change, and kinds that people made.

use super::Idiom;

#[test]
fn shell_commands() {
    Idiom::new(
        r#"
        local bash = {
            delay = 0.2,
            maxProcesses = 3,
            onStartup = [[rm -rf ^target && cp -r ^source ^target]],
            onCreate = [[cp -r ^sourcePath ^targetPathdir || :]],
            onModify = [[cp -r ^sourcePath ^targetPathdir || :]],
            onDelete = [[rm -rf ^targetPathname]],
            onMove = [[mv ^o.targetPathname ^d.targetPathname || :]],
        }
        sync { bash, source = "/data/www", target = "/backup/www" }"#,
    )
    .run();
}

#[test]
fn program_for_every_change() {
    Idiom::new(
        r#"
        local run = "/opt/sync.sh "
        sync {
            source = "/data/www", target = "/backup/www",
            delay = 0.2,
            onStartup = run .. "^source ^target/",
            onAttrib = run .. "^source ^target/", onCreate = run .. "^source ^target/",
            onModify = run .. "^source ^target/", onDelete = run .. "^source ^target/",
        }"#,
    )
    .script("/opt/sync.sh", "exec rsync -a --delete \"$1\" \"$2\"\n")
    .run();
}

#[test]
fn functions() {
    Idiom::new(
        r#"
        local function copy(event)
            spawnShell(event, [[mkdir -p "$(dirname "$2")" && cp -r "$1" "$2" || true]],
                event.sourcePathname, event.targetPathname)
        end
        sync {
            source = "/data/www", target = "/backup/www",
            delay = 0.2,
            maxProcesses = 1,
            onStartup = function(event)
                spawn(event, "rsync", "-a", "--delete", event.source, event.target .. "/")
            end,
            onCreate = function(event) if not event.isdir then copy(event) end end,
            onModify = copy,
            onDelete = function(event) spawn(event, "rm", "-rf", event.targetPathname) end,
        }"#,
    )
    .run();
}

#[test]
fn action_for_all_at_once() {
    Idiom::new(
        r#"
        -- Whatever changed: one rsync, and what comes meanwhile waits for the next.
        local whole = {
            delay = 0.3,
            action = function(inlet)
                local config = inlet.getConfig()
                local blanket = inlet.createBlanketEvent()
                for _, event in ipairs{ inlet.getEvents(function(e) return e.etype ~= "Blanket" end) } do
                    log("Normal", "changed: ", table.concat(event.getPaths(), " "))
                    spawn(event, "rsync", "-a", "--delete", config.source, config.target .. "/")
                end
                inlet.discardEvent(blanket)
            end,
            init = function(event)
                spawn(event, "rsync", "-a", "--delete", event.source, event.target .. "/")
            end,
            collect = function(agent, exitcode)
                if exitcode ~= 0 then return "again" end
                return "ok"
            end,
            prepare = function(config) if not config.target then error("no target") end end,
        }
        sync { whole, source = "/data/www", target = "/backup/www" }"#,
    )
    .run();
}

#[test]
fn list_given_to_rsync() {
    Idiom::new(
        r#"
        local listed = {
            default.rsync,
            delay = 0.3,
            action = function(inlet)
                local list = inlet.getEvents()
                local config = inlet.getConfig()
                local names = list.getPaths(function(etype, path)
                    return path:sub(2)
                end)
                spawn(list, "rsync", "<", table.concat(names, "\n"), "-lptr", "--delete",
                    "--delete-missing-args", "--ignore-missing-args", "--files-from=-",
                    config.source, config.target)
            end,
        }
        sync { listed, source = "/data/www", target = "/backup/www" }"#,
    )
    .keeps()
    .run();
}

#[test]
fn more_after_every_transfer() {
    let site = Idiom::new(
        r#"
        -- A command on the other host after each transfer.
        local post = {
            default.rsync,
            checkgauge = { default.rsync.checkgauge, host = true, postcmd = true },
            delay = 0.3,
            action = function(inlet)
                local event = inlet.getEvent()
                local config = inlet.getConfig()
                if event.etype == "Modify" and rawget(event, "never") then return end
                return default.rsync.action(inlet)
            end,
            collect = function(agent, exitcode)
                if exitcode == 0 and agent.isList then
                    os.execute("ssh " .. agent.config.host .. " " .. agent.config.postcmd)
                end
                return default.collect(agent, exitcode)
            end,
            prepare = function(config, level)
                if not config.postcmd then error("postcmd missing", 4) end
                config.target = config.host .. ":" .. config.target
                return default.rsync.prepare(config, level + 1)
            end,
        }
        sync { post, source = "/data/www", host = "backup.example.org", target = "/backup/www",
               postcmd = "'echo after >>/var/log/lsyncd/after'" }"#,
    )
    .run();
    assert!(site.text("/var/log/lsyncd/after").contains("after"));
}

#[test]
fn rsyncssh_with_an_action_of_ones_own() {
    Idiom::new(
        r#"
        local count = 0
        sync {
            default.rsyncssh,
            source = "/data/www", host = "backup.example.org", targetdir = "/backup/www", delay = 0.3,
            action = function(inlet)
                count = count + 1
                log("Normal", "action ", count)
                default.rsyncssh.action(inlet)
            end,
        }"#,
    )
    .run();
}

#[test]
fn excludes_added_at_run_time() {
    let site = Idiom::new(
        r#"
        sync {
            default.rsync,
            source = "/data/www", target = "/backup/www", delay = 0.3,
            init = function(event)
                event.inlet.addExclude("*.tmp")
                log("Normal", "excludes: ", table.concat(event.inlet.getExcludes(), ","))
                return default.rsync.init(event)
            end,
        }"#,
    )
    .hidden(&["x.tmp"])
    .run();
    assert!(site.said().contains("excludes: *.tmp"));
}

#[test]
fn images_of_images() {
    let site = Idiom::new(
        r#"
        -- As lsyncd's example that makes pictures of several formats.
        local formats = { jpg = true, png = true }
        local convert = {
            delay = 0, maxProcesses = 99,
            action = function(inlet)
                local event = inlet.getEvent()
                if event.isdir or event.etype ~= "Create" and event.etype ~= "Modify" then
                    inlet.discardEvent(event)
                    return
                end
                local base, ext = string.match(event.pathname, "(.*)%.([^./]+)$")
                if not base or not formats[ext] then
                    inlet.discardEvent(event)
                    return
                end
                local cmd = ""
                for format in pairs(formats) do
                    if format ~= ext then
                        cmd = cmd .. ' && cp "$1" "$2.' .. format .. '.made"'
                    end
                end
                spawnShell(event, string.sub(cmd, 5), event.sourcePath, event.source .. base)
            end,
            collect = function(agent, exitcode)
                if exitcode ~= 0 then log("Error", "failed ", agent.path) end
                return
            end,
        }
        sync { convert, source = "/data/wiki" }
        sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
               onMove = nil }
        sync { source = "/data/www", onCreate = [[printf x >/data/wiki/"pic".jpg]] }"#,
    )
    .until("/data/wiki/pic.png.made")
    .run();
    assert_eq!(site.text("/data/wiki/pic.png.made"), "x");
}
