//! Where the control socket is, when nobody says.

use std::path::PathBuf;

/// The environment variable that names it, for `lsyncdctl`.
pub const VARIABLE: &str = "LSYNCD_SOCKET";

/// The directory of a service for what lives as long as it does (`RuntimeDirectory=` in
/// systemd.exec(5)).
pub fn of_service() -> Option<PathBuf> {
    let given = std::env::var_os("RUNTIME_DIRECTORY")?;
    let directory = std::env::split_paths(&given).find(|path| path.is_absolute())?;
    Some(directory.join("lsyncd.sock"))
}

/// Where a daemon makes its control socket if nothing else is known: no configuration, no
/// service, no pid file.
pub fn usual() -> Vec<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        // The directory is the service's, and is there only while that runs.
        return vec!["/run/lsyncd/lsyncd.sock".into(), "/run/lsyncd.sock".into()];
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    own.into_iter()
        .map(|dir| PathBuf::from(dir).join("lsyncd.sock"))
        .collect()
}

/// Where `lsyncdctl` looks, in this order: the above, where a user's service has it, and beside
/// the usual pid files.
pub fn searched() -> Vec<PathBuf> {
    let users = usual()
        .into_iter()
        .map(|path| path.with_file_name("lsyncd").join("lsyncd.sock"));
    let beside = ["/run/lsyncd.sock", "/run/lsyncd/lsyncd.sock"];
    let mut places: Vec<PathBuf> = of_service().into_iter().chain(usual()).collect();
    for path in users.chain(beside.map(PathBuf::from)) {
        if !places.contains(&path) {
            places.push(path);
        }
    }
    places
}
