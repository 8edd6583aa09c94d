-- default.direct: keeps a local target directory current. The daemon copies, renames and
-- deletes files itself; rsync is called at startup only, if it has options of its own.

local native = ...
local setmetatable = setmetatable

-- The default of maxProcesses can be read here but is not inherited, so that the settings apply.
local direct = setmetatable({
  delay = 1,
  delete = true,
  onMove = true,

  rsync = default.rsync.rsync,
  rsyncExitCodes = default.rsyncExitCodes,

  checkgauge = native.gauge("direct"),
}, { __index = { maxProcesses = 1 } })
default.direct = direct

-- Copies all due entries, including Moves, in the order of their events.
function direct.action(inlet)
  local event = inlet.getEvent()
  if event.etype == "Blanket" then
    return inlet.discardEvent(event)
  end
  native.direct(native.changes(inlet))
end

-- Options of rsync that have no effect beyond that of a copy.
local as_copied = {
  acls = true, archive = true, compress = true, delete_excluded = true, executability = true,
  group = true, hard_links = true, links = true, owner = true, perms = true,
  protect_args = true, quiet = true, sparse = true, times = true, verbose = true,
  whole_file = true, xattrs = true, list = true, inc_recursive = true, _computed = true,
}

-- Returns true if the rsync options of this configuration have the effect of a copy.
local function wants_rsync(rsync)
  if rsync.binary ~= "rsync" or rsync.links ~= true or rsync.times ~= true then
    return true
  end
  for option, value in pairs(rsync) do
    if option ~= "binary" and value and not as_copied[option] then return true end
  end
  return false
end

local function whole(event)
  if event.config._wants_rsync then
    return default.rsync.full(event)
  end
  native.direct(event)
end
direct.init = whole
direct.full = whole

-- A failed path is retried alone (code 23) and does not delay the others. A code that a user's
-- table does not contain causes a retry.
function direct.collect(agent, exitcode, signal, errors)
  local config = agent.config
  local codes = config.exitcodes or config.rsyncExitCodes
  local result = native.verdict(codes, exitcode, signal, errors)
  if not agent.isList and agent.etype == "Init" then
    return native.collect_startup(result, codes, native.startup_texts(agent, exitcode), errors)
  end
  if result == "ok" or result == "die" then return result end
  return "again"
end
direct.collect = native.public(direct.collect)

function direct.prepare(config, level)
  default.rsync.prepare(config, (level or 3) + 1)
  config._wants_rsync = wants_rsync(config.rsync)
end
direct.prepare = native.public(direct.prepare)
