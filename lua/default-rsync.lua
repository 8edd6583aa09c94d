-- default.rsync: keeps the target current with one rsync call for each batch of changes.

local native = ...
local default, log = default, log

local rsync = {
  delay = 15,
  delete = true,
  exitcodes = default.rsyncExitCodes,

  checkgauge = native.gauge("rsync"),

  rsync = { binary = "rsync", links = true, times = true, protect_args = true },
}
default.rsync = rsync

-- Sends a list. With `check`, its files have been checked before.
local function send(list)
  local transfer = native.transfer(list)
  log("Normal", "Calling rsync with filter-list of new/modified files/dirs\n" .. transfer.names)
  native.spawn(list, list.config.rsync.binary, transfer)
end

-- Transfers all due entries in one call, except those that go alone (Init, Full) or only wait
-- for others (Blanket).
function rsync.action(inlet)
  local event = inlet.getEvent()
  if event.etype == "Blanket" then
    return inlet.discardEvent(event)
  end
  native.when_checked(native.batch(inlet), send)
end

-- Compares the whole source in one recursive call, at startup and for full comparisons. rsync's
-- quick check (size and whole seconds) misses a file that changed within the second of its
-- transfer; if the event may be lost, files of around that time are compared by content.
local function whole(event)
  local inlet = event.inlet
  local config = inlet.getConfig()
  local words, delete = { }, config.delete
  -- Blocked files are protected at the target. If there are too many for filter rules, nothing is
  -- deleted.
  local protection = native.protection(inlet)
  if protection and (delete == true or delete == "startup") then
    words = { "--delete", "--ignore-errors" }
  end
  local all = protection and not native.misses_mounts(inlet)
  if all and config.rsync.delete_excluded == true then
    words[#words + 1] = "--delete-excluded"
  end

  local common = config.startup and config.startup._computed or config.rsync._computed
  local source, target = native.rsync_source(inlet), native.rsync_target(config)
  local way = native.shown(config.source) .. " -> " .. native.shown(target)
  local changed = native.changed_directories(inlet)
  if changed then
    log("Normal", "rsync of changed directories: " .. way .. "\n"
      .. changed.shown)
    native.spawn(event, config.rsync.binary, "<", changed.list, protection, changed.rules, words,
      common, "-d", "--from0", "--files-from=-", source, target)
    return
  end

  native.compares_all(inlet)
  words = native.accepted(inlet, words)
  local option, rules = native.filter_input(inlet)
  way = "recursive full rsync: " .. way
  if not option then
    log("Normal", way)
    native.spawn(event, config.rsync.binary, protection, words, common, "-r", source, target)
    return
  end
  log("Normal", way .. (inlet.hasFilters() and " filtering\n" or " excluding\n") .. rules)
  native.spawn(event, config.rsync.binary, "<", rules, protection, option, words,
    common, "-r", source, target)
end
function rsync.init(event)
  native.when_checked(event, whole)
end
rsync.full = rsync.init

-- Checks the configuration and computes the arguments common to all rsync calls.
function rsync.prepare(config, level, skip_target)
  default.prepare(config, (level or 3) + 1)
  if not skip_target and not config.target then
    native.fail('default.rsync needs "target" configured')
  end
  config.rsync._computed = native.rsync_words(config)
  native.prepare_startup(config)
  if config.target and not skip_target then
    config.target = native.as_directory(config.target, "target")
  end
end
rsync.prepare = native.public(rsync.prepare)
