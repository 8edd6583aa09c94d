-- default.rsyncssh: as default.rsync, but moves at the source are executed at the target by ssh.

local native = ...

local rsyncssh = {
  default.rsync,

  delay = 15,
  maxProcesses = 1,
  onMove = true,

  exitcodes = false,
  rsyncExitCodes = default.rsyncExitCodes,
  sshExitCodes = default.sshExitCodes,

  checkgauge = native.gauge("rsyncssh"),

  ssh = { binary = "ssh", _extra = { } },
}
default.rsyncssh = rsyncssh

-- Transfers all due entries up to the first Move in one rsync call. A Move goes alone.
function rsyncssh.action(inlet)
  local event, event2 = inlet.getEvent()
  local config = inlet.getConfig()
  if event.etype == "Blanket" then
    return inlet.discardEvent(event)
  end
  if event.etype ~= "Move" then
    local list = native.batch_before_move(inlet)
    local transfer = native.transfer(list)
    log("Normal", "Calling rsync with filter-list of new/modified files/dirs\n" .. transfer.names)
    return native.spawn(list, config.rsync.binary, transfer)
  end

  log("Normal", "Moving " .. native.shown(event.path) .. " -> " .. native.shown(event2.path))
  -- Otherwise the target may have kept a directory at the destination, or files in the origin.
  local is_equal = config.delete == true and not native.filter_input(inlet)
  local move = native.remote_move(config, event.path, event2.path, is_equal)
  native.spawn(event, config.ssh.binary, config.ssh._computed, config.host, move)
end
rsyncssh.action = native.public(rsyncssh.action)

-- Returns true if a Move succeeded. If the origin is deleted after a failed mv, the exit code is
-- that of the deletion, so the error output of mv is tested.
function native.has_moved(exitcode, errors)
  return exitcode == 0 and not (errors or ""):find("mv: ", 1, true)
end

-- Replaces a Move that failed at the target by a deletion and a transfer.
function native.send_moved(event)
  log("Normal", "The move of " .. native.shown(event.path)
    .. " could not be executed on the target, sending it instead.")
  native.split_move(event)
  return "ok"
end

-- Log texts and categories for the results of transfers other than the startup.
local ends = {
  ok = { "Normal", "Finished " },
  again = { "Normal", "Retrying " },
  die = { "Error", "Failure " },
}

function rsyncssh.collect(agent, exitcode, signal, errors)
  local config = agent.config
  local move = not agent.isList and agent.etype == "Move"
  local codes = config.exitcodes or config.rsyncExitCodes
  if move then codes = config.sshExitCodes end
  local result = native.verdict(codes, exitcode, signal, errors)

  if not agent.isList and agent.etype == "Init" then
    return native.collect_startup(result, codes, native.startup_texts(agent, exitcode), errors)
  end
  if move and result ~= "die" then
    local send
    if result == "again" then
      send = native.shell_failed(agent, exitcode)
    else
      native.shell_works(agent)
      send = result ~= "ok" or not native.has_moved(0, errors)
    end
    if send then return native.send_moved(agent) end
  end

  local what = "(list)"
  if not agent.isList then
    what = agent.etype .. " " .. native.shown(agent.sourcePath)
  end
  local known = ends[result]
  if not known then
    log("Error", "Unknown exitcode " .. what .. ": " .. exitcode)
    return native.unknown(codes)
  end
  local category, word = table.unpack(known)
  if move then category = "Normal" end
  local why = result == "ok" and "" or native.because(errors)
  log(category, word .. what .. ": " .. exitcode .. why)
  return result
end
rsyncssh.collect = native.public(rsyncssh.collect)

-- Log texts for the result of the startup, for default.rsyncssh and default.direct.
function native.startup_texts(agent, exitcode)
  local source = native.shown(agent.source)
  local way = ' startup of "' .. source .. '"'
  return {
    ok = "Startup of \"" .. source .. '" finished: ' .. exitcode,
    again = "Retrying" .. way .. ": " .. exitcode,
    refused = "Temporary or permanent failure on" .. way
      .. '. Terminating since "insist" is not set.',
    die = "Failure on" .. way .. ": " .. exitcode,
    unknown = 'Unknown exitcode on startup of "' .. source .. ': "' .. exitcode,
  }
end

-- Checks the configuration and computes the arguments of ssh, for moves and for rsync.
function rsyncssh.prepare(config, level)
  default.rsync.prepare(config, (level or 3) + 1, true)
  if not config.host then
    native.fail('default.rsyncssh needs "host" configured')
  end
  if not config.targetdir then
    native.fail('default.rsyncssh needs "targetdir" configured')
  end
  if config.targetdir == "" then
    native.fail('"targetdir" is empty; the home directory of the remote user is "./"', "targetdir")
  end
  if config.maxProcesses ~= 1 then
    native.fail("default.rsyncssh must have maxProcesses set to 1.", "maxProcesses")
  end
  native.prepare_ssh(config)
  config.targetdir = native.as_directory(config.targetdir, "targetdir")
end
rsyncssh.prepare = native.public(rsyncssh.prepare)
