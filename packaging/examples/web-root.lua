-- A web server's files on a second host. Renames are carried out there, not sent anew.
--
-- Once, as the user lsyncd runs as (root for the service):
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
