-- default.direct: keeps another local directory current. The daemon copies, renames and
-- removes by itself; rsync is called at startup only, if it is given options of its own.

local native = ...
local setmetatable = setmetatable

-- The limit of processes is to be read here, but not inherited, so that settings may say another.
local direct = setmetatable({
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
}, { __index = { maxProcesses = 1 } })
default.direct = direct

-- Everything that may go now, Moves among it: it is done in the order it happened.
function direct.action(inlet)
  local event = inlet.getEvent()
  if event.etype == "Blanket" then
    return inlet.discardEvent(event)
  end
  native.direct(inlet.getEvents(native.is_change))
end

-- Options of rsync that ask for nothing a copy does not do anyway.
local as_copied = {
  acls = true, archive = true, compress = true, delete_excluded = true, executability = true,
  group = true, hard_links = true, links = true, owner = true, perms = true,
  protect_args = true, quiet = true, sparse = true, times = true, verbose = true,
  whole_file = true, xattrs = true, list = true, _computed = true,
}

-- Whether the rsync of this configuration is to do what a copy does.
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
  if wants_rsync(event.config.rsync) then
    return default.rsync.full(event)
  end
  native.direct(event)
end
direct.init = whole
direct.full = whole

-- A path that failed is tried again by itself (23); it is no reason to hold up all others. What a
-- table of the configuration's own does not know is done again, not forgotten.
function direct.collect(agent, exitcode, signal, errors)
  local config = agent.config
  local codes = config.exitcodes or config.rsyncExitCodes
  local result = native.verdict(codes, exitcode, signal)
  if not agent.isList and agent.etype == "Init" then
    return native.collect_startup(result, codes, native.startup_texts(agent, exitcode), errors)
  end
  if result == "ok" or result == "die" then return result end
  return "again"
end
direct.collect = native.public(direct.collect)

function direct.prepare(config, level)
  default.rsync.prepare(config, (level or 3) + 1)
end
direct.prepare = native.public(direct.prepare)
