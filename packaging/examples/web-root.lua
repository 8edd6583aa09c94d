-- Mirrors a web root to a second host. Renamed files are renamed there instead of being transferred
-- again.
--
-- Once, as the user of the daemon (root for the service):
--     ssh-keygen -t ed25519 -N "" -f ~/.ssh/lsyncd
--     ssh-copy-id -i ~/.ssh/lsyncd.pub deploy@web2

settings {
    logfile    = "/var/log/lsyncd/lsyncd.log",
    statusFile = "/var/log/lsyncd/lsyncd.status",
    insist     = true,
}

sync {
    default.rsyncssh,
    source    = "/var/www",
    host      = "deploy@web2",
    targetdir = "/var/www",
    delay     = 5,
    exclude   = { "*.tmp", "*.swp", "/cache/" },
    rsync     = { archive = true, compress = true },
    ssh       = { identityFile = "/root/.ssh/lsyncd" },
}
