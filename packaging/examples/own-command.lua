-- A command of one's own for each change. ^pathname and the others are put in as arguments of
-- the shell, so any name is safe. A command that fails ends the daemon unless its exit code is
-- named in exitcodes.

sync {
    source       = "/srv/incoming",
    delay        = 1,
    maxProcesses = 4,
    onCreate     = "logger -t incoming new ^pathname",
    onModify     = "logger -t incoming changed ^pathname",
    onDelete     = "logger -t incoming gone ^pathname",
    exitcodes    = { [1] = "again" },
}
