-- default.direct: keeps another local directory current with cp, mv, rm and mkdir, and with
-- rsync at startup and for what these cannot do.

local native = ...

-- That only one process runs at a time is what `default` says, so that settings may say another.
local direct = {
  delay = 1,
  delete = true,
  onMove = true,

  rsync = default.rsync.rsync,
  rsyncExitCodes = default.rsyncExitCodes,

  checkgauge = {
    onCreate = false, onModify = false, onDelete = false, onStartup = false, onMove = true,
    delete = true, exclude = true, excludeFrom = true, filter = true, filterFrom = true,
    target = true, batchSizeLimit = true, rsyncExitCodes = true,
    rsync = default.rsync.checkgauge.rsync,
  },
}
default.direct = direct

-- What cp -p carries over, for the paths that rsync has to do.
local as_cp = "-lptgoD"

function direct.action(inlet)
  local event = inlet.getEvent()
  if event.etype == "Full" then
    return direct.full(event)
  elseif event.etype == "Blanket" then
    return inlet.discardEvent(event)
  end

  local step, words = native.direct_step(event, rawget(event, "waited"))
  if step == "wait" then
    -- Left waiting, it is asked for again in a second.
    event.waited = true
  elseif step == "run" then
    event.tool = words[1]
    native.spawn(event, table.unpack(words))
  elseif step == "transfer" then
    event.tool = "rsync"
    log("Normal", "Calling rsync for " .. native.shown(event.path))
    native.spawn(event, inlet.getConfig().rsync.binary, as_cp, native.transfer(event))
  elseif step == "split" then
    native.send_moved(event)
  else
    if step == "attributes" then
      native.take_attributes(event)
    end
    inlet.discardEvent(event)
  end
end
direct.action = native.public(direct.action)

direct.init = default.rsync.init
direct.full = default.rsync.full

-- A tool that failed for one path is told and is no reason to stop, nor to hold up all others.
function direct.collect(agent, exitcode, signal, errors)
  local config = agent.config
  local codes = config.exitcodes or config.rsyncExitCodes
  local result = native.verdict(codes, exitcode, signal)
  if agent.isList then
    return result == "again" and "again" or "ok"
  end
  if agent.etype == "Init" then
    return native.collect_startup(result, codes, native.startup_texts(agent, exitcode), errors)
  end
  if signal then
    return "again"
  end

  local tool = rawget(agent, "tool")
  if tool == "sh" then
    if native.has_moved(exitcode, errors) then return "ok" end
    return native.send_moved(agent)
  end
  if tool == "rsync" or agent.etype == "Full" then
    if result == "again" then return "again" end
  elseif exitcode ~= 0 and native.has_vanished(agent) then
    -- Its Delete or Move is on the way and makes this another event.
    return agent.etype == "Delete" and "ok" or "redo"
  elseif exitcode == 0 and tool == "mkdir" then
    native.take_attributes(agent)
  end
  if exitcode ~= 0 then
    log("Warn", (tool or "rsync") .. " failed for " .. native.shown(agent.path)
      .. " with exitcode " .. exitcode)
  end
  return "ok"
end
direct.collect = native.public(direct.collect)

function direct.prepare(config, level)
  default.rsync.prepare(config, (level or 3) + 1)
end
direct.prepare = native.public(direct.prepare)
