-- The functions a configuration calls (sync, settings), and the `default` table whose fields
-- a sync inherits.
--
-- `native` is the Rust side. Its functions raise errors as plain texts with the position of
-- the user's line; see `public`.

local native = ...
local error, getmetatable, pairs, pcall, rawset, setmetatable, tostring, type =
  error, getmetatable, pairs, pcall, rawset, setmetatable, tostring, type

-- Raises the error of a native function as a text with the caller's line. The wrapper below
-- ends in a tail call, so level 2 is the user's own function.
local function finish(ok, ...)
  if ok then return ... end
  error(native.message(..., 2), 0)
end

-- Wraps a native function for user code. If it has a name, its calls are logged in the
-- category Call.
local function public(f, name)
  if name and native.log_calls then
    return function(...)
      native.called(name, ...)
      return finish(pcall(f, ...))
    end
  end
  return function(...) return finish(pcall(f, ...)) end
end
native.public = public

for name, f in pairs(native.globals) do
  _G[name] = public(f, name)
end
for name, f in pairs(native.lsyncd_functions) do
  lsyncd[name] = public(f, "lsyncd." .. name)
end
lsyncd.inotify = { }
for name, f in pairs(native.inotify) do
  lsyncd.inotify[name] = public(f, "lsyncd.inotify." .. name)
end
local log, spawn = log, spawn
for _, f in ipairs { "log", "now", "readdir", "terminate" } do
  lsyncd[f] = _G[f]
end

lsyncd_version = native.version

-- Errors in calculations with timestamps are raised as texts, too.
local timestamp_meta = debug.getmetatable(now())
for _, name in ipairs { "__add", "__sub", "__lt", "__le", "__eq", "__concat", "__index" } do
  timestamp_meta[name] = public(timestamp_meta[name])
end

native.event_meta.__index = public(native.event_field)
native.list_meta.__index = public(native.list_field)

-- An inlet is a plain table of functions that are called with a dot.
local inlet_meta = {
  __index = public(function(_, name)
    native.fail('inlet does not have function "' .. tostring(name) .. '"')
  end),
}

function native.make_inlet(inlet, functions)
  for name, f in pairs(functions) do
    inlet[name] = public(f, "inlet." .. name)
  end
  return setmetatable(inlet, inlet_meta)
end

-- Starts a shell command; further arguments are "$1", "$2" … of the command.
function spawnShell(agent, command, ...)
  return spawn(agent, "sh", "-c", command, "sh", ...)
end

-- settings{ key = value, "switch" } sets values; settings("key") returns one.
settings = public(native.settings, "settings")
local settings = settings

default = {
  checkgauge = native.gauge("default"),

  -- The only keys that every sync inherits from `default`.
  _merge = {
    action = true, checkgauge = true, collect = true, delay = true, init = true,
    maxDelays = true, maxProcesses = true, prepare = true,
  },

  maxDelays = 1000,
  maxProcesses = 1,
  statusInterval = 10,
}

setmetatable(default, { __index = public(native.missing_default) })

-- Marks the built-in table of rsync's exit codes; syncs that inherit it have a copy with this mark.
-- A table of the user's own has none.
local built_in = { }

default.rsyncExitCodes = setmetatable({
  _merge = false,
  _verbatim = true,
  [0] = "ok", [1] = "die", [2] = "die", [3] = "again", [4] = "die", [5] = "again",
  [6] = "again", [10] = "again", [11] = "again", [12] = "again", [14] = "again",
  [20] = "again", [21] = "again", [22] = "again", [23] = "ok", [24] = "ok", [25] = "die",
  [30] = "again", [35] = "again", [255] = "again",
}, built_in)

default.sshExitCodes = { _merge = false, _verbatim = true, [0] = "ok", [255] = "again" }

-- Creates a sync. Missing keys are inherited from the tables at its integer keys and, last,
-- from `default`.
function sync(opts)
  native.check_phase()
  local config = native.inherit(opts, default)
  local function make(config, family)
    if type(config.prepare) == "function" then
      config.prepare(config, 4)
    end
    config._family = family
    return native.create(config)
  end
  local inlets = native.fan_out(opts, config, function(given, change, family)
    local config = native.inherit(given, default)
    change(config)
    return make(config, family)
  end)
  return inlets or make(config)
end
sync = public(sync, "sync")

-- Calls the handler for one event, then discards the event unless the handler has spawned.
function default.action(inlet)
  local event, event2 = inlet.getEvent()
  local handler = inlet.getConfig()["on" .. event.etype]
  if type(handler) == "function" then
    handler(event, event2)
  end
  if event.status == "wait" then
    inlet.discardEvent(event)
  end
end

-- Called for the Init event of a sync.
function default.init(event)
  local config = event.config
  if type(config.onStartup) == "function" then
    config.onStartup(event)
  end
  if event.status == "wait" then
    event.inlet.discardEvent(event)
  end
end

-- Returns the meaning of an exit code from the table. Without a table, every code except 0 is
-- "die". If the table has no entry for 0, 0 is "ok". A child that was ended by a signal is repeated,
-- regardless of an entry for 128 + signal. With the built-in table, a lost connection is no reason
-- to end.
local function verdict(codes, exitcode, signal, errors)
  if signal then return "again" end
  if getmetatable(codes) == built_in then
    native.used_default_exit_codes()
    if codes[exitcode] == "die" and native.is_connection_lost(errors or "") then return "again" end
  end
  if type(codes) == "table" and (codes[exitcode] or exitcode ~= 0) then return codes[exitcode] end
  return exitcode == 0 and "ok" or "die"
end
native.verdict = verdict

-- Returns the meaning of a code that is not in the table. The built-in table contains only rsync's
-- codes, so other codes, such as those of a wrapper, are repeated. A user's table is complete.
function native.unknown(codes)
  for code, result in pairs(default.rsyncExitCodes) do
    if type(code) == "number" and codes[code] ~= result then return "die" end
  end
  return "again"
end

-- Returns the error output line with the reason of a failure, to be appended to a message.
function native.because(errors)
  local line = native.reason(errors or "")
  return line ~= "" and " (" .. native.shown(line) .. ")" or ""
end

-- Evaluates the exit code of a startup transfer. `texts` are the log texts of the kind.
function native.collect_startup(result, codes, texts, errors)
  if result == "ok" then
    log("Normal", texts.ok)
  elseif result == "again" and settings("insist") then
    log("Normal", texts.again .. native.because(errors))
  elseif result == "again" then
    log("Error", texts.refused .. native.because(errors))
    native.failed_startup()
    return "die"
  elseif result == "die" then
    log("Error", texts.die .. native.because(errors))
  else
    log("Error", texts.unknown .. native.because(errors))
    result = settings("insist") and native.unknown(codes) or "die"
  end
  return result
end

-- Evaluates the exit code of a child of an event or a list of events.
function default.collect(agent, exitcode, signal, errors)
  local config = agent.config
  local result = verdict(config.exitcodes, exitcode, signal, errors)

  if not agent.isList and agent.etype == "Init" then
    local target = agent.target and native.shown(agent.target) or "(nil)"
    local way = native.shown(agent.source) .. " -> " .. target
    return native.collect_startup(result, config.exitcodes, {
      ok = "Startup of " .. way .. " finished.",
      again = "Retrying startup of " .. way .. ": " .. exitcode,
      refused = "Temporary or permanent failure on startup of " .. way
        .. '. Terminating since "insist" is not set.',
      die = "Failure on startup of " .. way .. ".",
      unknown = 'Unknown exitcode "' .. exitcode .. '" on startup of ' .. way .. ".",
    }, errors)
  end

  if agent.isList then
    if result == "ok" then
      log("Normal", "Finished a list after exitcode: " .. exitcode)
    elseif result == "again" then
      log("Normal", "Retrying a list after exitcode = " .. exitcode .. native.because(errors))
    elseif result == "die" then
      log("Error", "Failure with a list with exitcode = " .. exitcode .. native.because(errors))
    else
      log("Error", 'Unknown exitcode "' .. exitcode .. '" with a list')
      result = native.unknown(config.exitcodes)
    end
    return result
  end

  local what = agent.etype .. " on " .. native.shown(agent.sourcePath) .. " = " .. exitcode
  if result == "ok" then
    log("Normal", "Finished " .. what)
  elseif result == "again" then
    log("Normal", "Retrying " .. what)
  elseif result == "die" then
    log("Error", "Failure with " .. what)
  else
    log("Normal", 'Unknown exitcode "' .. exitcode .. '" with ' .. what)
    result = native.unknown(config.exitcodes)
  end
  return result
end

-- Checks the keys of a sync against its gauge of known keys.
function default.prepare(config, level)
  native.check_gauge(config)
end
default.prepare = public(default.prepare)

-- Returns a text that is equal for equal configurations of a sync, regardless of its name and of
-- options of rsync that change only how data is sent. Nil if it has a user function, since the
-- functions it calls may have changed.
local getinfo, getupvalue, concat, sort = debug.getinfo, debug.getupvalue, table.concat, table.sort
function native.fingerprint(config)
  local parts, seen, own = { }, { }, false
  local show = { }
  local function add(value)
    parts[#parts + 1] = type(value)
    local how = show[type(value)]
    if how and not seen[value] then
      seen[value] = true
      how(value)
    else
      parts[#parts + 1] = tostring(how and "" or value)
    end
  end
  show["function"] = function(f)
    local info = getinfo(f, "S")
    own = own or info.what ~= "C" and info.source:sub(1, 8) ~= "=lsyncd/"
    parts[#parts + 1] = info.source .. ":" .. info.linedefined
    -- All public wrappers share their code; the wrapped function is an upvalue.
    for n = 1, 255 do
      local name, value = getupvalue(f, n)
      if not name then break end
      if type(value) == "function" then add(value) end
    end
  end
  local function table_of(value) return type(value) == "table" and value or { } end
  local startup = table_of(config.startup)
  local of_rsync = { [table_of(config.rsync)] = true, [table_of(startup.rsync)] = true }
  local extra = { }
  for t in pairs(of_rsync) do extra[table_of(t._extra)] = true end
  -- The words of all options are computed from the others.
  local function is_left_out(t, key)
    if t == config then return key == "name" or key == "_family" end
    if not of_rsync[t] then return t == startup and key == "_computed" end
    return native.only_how[key] or key == "_computed"
      or key == "_extra" and type(t[key]) == "table" and #native.essential(t[key]) == 0
  end
  show.table = function(t)
    if extra[t] then t = native.essential(t) end
    local keys = { }
    for key in pairs(t) do keys[#keys + 1] = key end
    sort(keys, function(a, b) return type(a) .. tostring(a) < type(b) .. tostring(b) end)
    for _, key in ipairs(keys) do
      if not is_left_out(t, key) then
        add(key)
        add(t[key])
      end
    end
    parts[#parts + 1] = "end"
  end
  add(config)
  if not own then return concat(parts, "\0") end
end

-- The registry holds the tables of the daemon, so user code must not change it.
function debug.getregistry()
  error("debug.getregistry is not for configurations", 2)
end

-- Ends the daemon as `terminate` does, so that children end and the pid file is removed.
local terminate = terminate
function os.exit(code)
  if code == nil or code == true then code = 0 end
  return terminate(code or 1)
end

-- Once the syncs have started, creating a global or reading an undefined one is an error.
function native.lock()
  local function exempt(name)
    return name == "_" or (type(name) == "string" and name:sub(1, 2) == "__")
  end
  setmetatable(_G, {
    __newindex = function(globals, name, value)
      if not exempt(name) then
        error('Lsyncd does not allow GLOBALS to be created on the fly. Declare "'
          .. tostring(name) .. '" local or declare global on load.', 2)
      end
      rawset(globals, name, value)
    end,
    __index = function(_, name)
      if not exempt(name) then
        error('Access of non-existing global "' .. tostring(name) .. '"', 2)
      end
    end,
  })
end
