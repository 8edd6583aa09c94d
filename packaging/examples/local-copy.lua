-- Mirrors between two directories of one host. Nothing is deleted in the copy.

sync {
    default.rsync,
    source = "/srv/data",
    target = "/mnt/backup/data",
    delay  = 10,
    delete = false,
    rsync  = { archive = true, whole_file = true },
}
