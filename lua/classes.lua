-- Classes and helpers for user code: queues, functions for texts and tables, and debug output.

local error, ipairs, next, pairs, print, rawget, setmetatable, tostring, type =
  error, ipairs, next, pairs, print, rawget, setmetatable, tostring, type
local concat, log, move, sort, traceback =
  table.concat, log, table.move, table.sort, debug.traceback

-- Makes standard output line buffered, also for pipes and files.
io.stdout:setvbuf("line")
io.stderr:setvbuf("line")

function string.starts(s, t) return s:sub(1, #t) == t end

function string.ends(s, t) return t == "" or s:sub(-#t) == t end

function table.contains(list, value)
  for _, v in ipairs(list) do
    if v == value then return true end
  end
  return false
end

-- A list with successive positions. Positions may be zero or negative, since items can be
-- inserted at the front. Removing an item moves the following ones up.
Queue = { }

-- Fields of a queue: its items, its first and last position, and the positions of iterators.
local items, head, tail, walks = { }, { }, { }, { }

local methods = { }

local queue_meta = {
  __index = function(queue, key)
    if type(key) == "number" then return rawget(queue, items)[key] end
    return methods[key] or error('Key "' .. tostring(key) .. '" invalid for Queue', 2)
  end,
  __newindex = function()
    error("Queues are not directly assignable.", 2)
  end,
}

function Queue.new()
  return setmetatable({
    [items] = { }, [head] = 1, [tail] = 0, [walks] = setmetatable({ }, { __mode = "k" }),
  }, queue_meta)
end

-- Appends a value; returns its position.
function methods.push(queue, value)
  if value == nil then error("Queue pushing nil value", 2) end
  queue[tail] = queue[tail] + 1
  queue[items][queue[tail]] = value
  return queue[tail]
end

-- Inserts a value at the front; returns its position.
function methods.inject(queue, value)
  if value == nil then error("Queue pushing nil value", 2) end
  queue[head] = queue[head] - 1
  queue[items][queue[head]] = value
  return queue[head]
end

function methods.remove(queue, position)
  local values, first, last = queue[items], queue[head], queue[tail]
  if position == nil or values[position] == nil then
    error("Removing nonexisting item in Queue", 2)
  end
  if first == last then
    values[position] = nil
    queue[head], queue[tail] = 1, 0
  elseif position == first then
    values[position] = nil
    queue[head] = first + 1
  else
    move(values, position + 1, last, position)
    values[last] = nil
    queue[tail] = last - 1
    for walk in pairs(queue[walks]) do
      if walk.at >= position then walk.at = walk.at - 1 end
    end
  end
end

function methods.replace(queue, position, value)
  if value == nil then error("Queue pushing nil value", 2) end
  if position == nil or queue[items][position] == nil then
    error("Trying to replace an unset Queue entry.", 2)
  end
  queue[items][position] = value
end

function methods.first(queue) return queue[items][queue[head]] end

function methods.last(queue) return queue[items][queue[tail]] end

function methods.size(queue) return queue[tail] - queue[head] + 1 end

-- Iterates over positions and values, from the first to the last. Items may be removed during
-- the iteration.
function methods.qpairs(queue)
  local walk = { at = queue[head] - 1 }
  queue[walks][walk] = true
  return function()
    local at = walk.at + 1
    if at < queue[head] then at = queue[head] end
    walk.at = at
    local value = queue[items][at]
    if value ~= nil then return at, value end
  end
end

-- As qpairs, from the last to the first.
function methods.qpairsReverse(queue)
  local at = queue[tail] + 1
  return function()
    at = at - 1
    if at > queue[tail] then at = queue[tail] end
    local value = queue[items][at]
    if value ~= nil then return at, value end
  end
end

for name, method in pairs(methods) do
  Queue[name] = method
end

local function substitute(text, data, keys)
  local result, at = { }, 1
  while true do
    local caret = text:find("^", at, true)
    if not caret then break end
    local key
    for _, candidate in ipairs(keys) do
      if text:sub(caret + 1, caret + #candidate) == candidate then
        key = candidate
        break
      end
    end
    result[#result + 1] = text:sub(at, caret - 1)
    result[#result + 1] = key and tostring(data[key]) or "^"
    at = caret + 1 + (key and #key or 0)
  end
  return concat(result) .. text:sub(at)
end

-- Replaces "^KEY" by the value of KEY in `data`, in a text or in each item of a list. The
-- longest key counts.
function substitudeCommands(commands, data)
  if type(data) ~= "table" then
    error("Using substitudeCommands without a table of data.", 2)
  end
  local keys = { }
  for key in pairs(data) do
    if type(key) == "string" then keys[#keys + 1] = key end
  end
  sort(keys, function(a, b) return #a > #b or (#a == #b and a < b) end)

  if type(commands) == "string" then
    return substitute(commands, data, keys)
  elseif type(commands) == "table" then
    local result = { }
    for at, text in ipairs(commands) do
      result[at] = type(text) == "string" and substitute(text, data, keys) or text
    end
    return result
  end
  log("Error", "Unsupported type in substitudeCommands")
  return nil
end

-- The correctly spelt name.
substituteCommands = substitudeCommands

local function shown(value)
  if type(value) == "string" then return ("%q"):format(value) end
  return tostring(value)
end

local function dump_below(value, indent, seen)
  for key, item in next, value do
    if type(item) == "table" and not seen[item] then
      seen[item] = true
      print(indent .. tostring(key) .. ":")
      dump_below(item, indent .. "  ", seen)
      seen[item] = nil
    else
      print(indent .. tostring(key) .. ": " .. shown(item))
    end
  end
end

-- Prints the contents of a table, recursively.
function dump(value, indent)
  indent = type(indent) == "number" and (" "):rep(indent) or indent or ""
  if type(value) == "table" then
    dump_below(value, indent, { [value] = true })
  else
    print(indent .. shown(value))
  end
end

lsyncd.dump = dump

-- Prints a stack trace.
function lsyncd.stackdump()
  print(traceback("stack", 2))
end
