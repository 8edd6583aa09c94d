-- Mirrors one source to several hosts. Each sync has its own retries and does not wait for the others.

local hosts = { "web2", "web3", "web4" }

settings { insist = true, statusFile = "/var/log/lsyncd/lsyncd.status" }

for _, host in ipairs(hosts) do
    sync {
        default.rsync,
        name   = host,
        source = "/var/www",
        target = "deploy@" .. host .. ":/var/www",
        delay  = 5,
        rsync  = { archive = true, compress = true },
    }
end
