-- Runs a command for each change. ^pathname and other variables are passed to the shell as arguments,
-- so any name is safe. A command that fails ends the sync unless its exit code is in exitcodes.

sync {
    source       = "/srv/incoming",
    delay        = 1,
    maxProcesses = 4,
    onCreate     = "logger -t incoming new ^pathname",
    onModify     = "logger -t incoming changed ^pathname",
    onDelete     = "logger -t incoming deleted ^pathname",
    exitcodes    = { [1] = "again" },
}
