-- Creates one sync for each target of a sync{} with several targets: same source, same filter,
-- separate retries. Watches and pending events are shared; see docs/configuration.md, "Many
-- targets".

local native = ...
local ipairs, pairs, pcall, tostring, type = ipairs, pairs, pcall, tostring, type

-- The number of sync{} with targets, used for the name of those without one.
local families = 0

-- Keys that define the destination of a sync, in any of its tables.
local places = { "targets", "targetsFrom" }

-- Returns the list of targets, which is given as a list, a function that returns one, or a file.
local function list_of(config)
  if config.targets and config.targetsFrom then
    native.fail('"targets" and "targetsFrom" exclude each other', "targetsFrom")
  end
  if config.targetsFrom then return native.targets_from(config.targetsFrom), "targetsFrom" end
  local targets = config.targets
  if type(targets) == "function" then targets = targets() end
  if type(targets) ~= "table" then
    native.fail("targets must be a list, or a function that returns one", "targets")
  end
  return targets, "targets"
end

-- Returns the keys that one target changes. A text is the target, a table has keys.
local function own_keys(entry, config, key)
  if type(entry) == "table" then
    local own = { }
    for name, value in pairs(entry) do own[name] = value end
    return own, entry.name or entry.target
      or (entry.host and tostring(entry.host) .. ":" .. tostring(entry.targetdir))
  elseif type(entry) ~= "string" or entry == "" then
    native.fail(key .. " has an entry that is neither a text nor a table", key)
  elseif config.checkgauge and config.checkgauge.targetdir then
    local host, directory = entry:match("^([^:/]+):(.+)$")
    if not host then
      native.fail(key .. ' has "' .. native.shown(entry) .. '", which is not "HOST:DIRECTORY"', key)
    end
    return { host = host, targetdir = directory }, entry
  end
  return { target = entry }, entry
end

-- Creates the syncs of a sync{} with targets by `make(given, change)`, and returns their inlets in
-- a list; nil without targets. `change` is called with the merged table.
function native.fan_out(opts, config, make)
  if not config.targets and not config.targetsFrom then return end
  if native.owns_targets(config) then return end
  families = families + 1
  local family = config.name or ("targets" .. families)
  if config.target then
    native.fail('"target" and "targets" exclude each other', "target")
  end
  local list, key = list_of(config)
  local inlets, seen = { }, { }
  for _, entry in ipairs(list) do
    local own, name = own_keys(entry, config, key)
    name = tostring(name)
    if seen[name] then
      native.fail(key .. ' has "' .. native.shown(name) .. '" twice', key)
    end
    seen[name] = true
    own[#own + 1] = opts
    own.name = nil
    inlets[#inlets + 1] = make(own, function(config)
      for _, place in ipairs(places) do config[place] = nil end
      config.name = family .. "/" .. name
    end, family)
  end
  if #inlets == 0 then
    native.fail(key .. " names no target", key)
  end
  return inlets
end
