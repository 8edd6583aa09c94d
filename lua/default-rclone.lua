-- default.rclone: keeps a remote of rclone(1) current, such as an object store. Each batch of
-- changes is one call, which examines the paths of the batch only.

local native = ...
local default, log = default, log
local byte, concat, ipairs, type = string.byte, table.concat, ipairs, type

local rclone = {
  delay = 15,
  delete = true,
  -- rclone(1), "List of exit codes". 3 and 4 mean that a path has disappeared in the meantime.
  exitcodes = {
    _merge = false, _verbatim = true,
    [0] = "ok", [1] = "again", [2] = "die", [3] = "again", [4] = "again", [5] = "again",
    [6] = "again", [7] = "die", [8] = "again", [9] = "ok",
  },

  checkgauge = native.gauge("rclone"),

  rclone = { binary = "rclone", options = { } },
}
default.rclone = rclone

-- Returns rclone's pattern for a path. A character that a filter file cannot contain becomes a
-- wildcard; other paths that match are compared as well.
local function exactly(path)
  path = path:gsub("[%*%?%[%]{}\\]", "\\%0"):gsub("[\r\n]", "?"):gsub("%s$", "?")
  if not utf8.len(path) then path = path:gsub("[\128-\255]+", "*") end
  return path
end

-- Returns the excludes as rclone filters. A pattern without a trailing slash also matches
-- directories.
local function excludes(config)
  local rules = { }
  local list = config.exclude or { }
  if type(list) ~= "table" then list = { list } end
  for _, pattern in ipairs(list) do
    local name = pattern:gsub("/$", "")
    local bare = name:gsub("[{}]", "\\%0")
    if name == pattern then rules[#rules + 1] = "- " .. bare end
    rules[#rules + 1] = "- " .. bare .. "/**"
  end
  return rules
end

-- Runs rclone with these rules. `delete`: files that the source does not have are deleted.
local function run(agent, config, rules, delete)
  native.spawn(agent, config.rclone.binary, "<", concat(rules, "\n") .. "\n",
    delete and "sync" or "copy", "--filter-from", "-", "--links", config.rclone.options,
    config.source, config.target)
end

-- Transfers all due entries in one call. A path may have changed between file and directory.
function rclone.action(inlet)
  local event = inlet.getEvent()
  if event.etype == "Blanket" then
    return inlet.discardEvent(event)
  end
  local config = inlet.getConfig()
  local list = native.changes(inlet)
  local rules = excludes(config)
  local names = { }
  list.getPaths(function(etype, path)
    names[#names + 1] = native.shown(path)
    local bare = exactly((path:gsub("/$", "")))
    -- The contents of a directory have events of their own, and so has its removal.
    if path ~= "/" and (etype ~= "Attrib" or byte(path, -1) ~= 47) then
      rules[#rules + 1] = "+ " .. bare
      rules[#rules + 1] = "+ " .. bare .. "/**"
    end
  end)
  rules[#rules + 1] = "- *"
  log("Normal", "Calling rclone with new/modified files/dirs\n" .. concat(names, "\n"))
  run(list, config, rules, config.delete == true or config.delete == "running")
end
rclone.action = native.public(rclone.action)

-- Compares the whole source, at startup and for full comparisons.
local function whole(event)
  local config = event.config
  log("Normal", "full rclone: " .. native.shown(config.source) .. " -> " .. native.shown(config.target))
  local rules = excludes(config)
  rules[#rules + 1] = "+ **"
  run(event, config, rules, config.delete == true or config.delete == "startup")
end
rclone.init = whole
rclone.full = whole

function rclone.prepare(config, level)
  default.prepare(config, (level or 3) + 1)
  if type(config.target) ~= "string" then
    native.fail('default.rclone needs "target" configured, as "REMOTE:PATH"', "target")
  end
  if type(config.rclone.options) ~= "table" then
    native.fail("rclone.options must be a list of texts", "options")
  end
end
rclone.prepare = native.public(rclone.prepare)
