//! The default paths of the control socket.

use std::path::PathBuf;

/// The environment variable with the path, for `lsyncdctl`.
pub const VARIABLE: &str = "LSYNCD_SOCKET";

/// Returns the runtime directory of a service (`RuntimeDirectory=` in systemd.exec(5)).
pub fn of_service() -> Option<PathBuf> {
    let given = std::env::var_os("RUNTIME_DIRECTORY")?;
    let directory = std::env::split_paths(&given).find(|path| path.is_absolute())?;
    Some(directory.join("lsyncd.sock"))
}

/// Returns the paths at which a daemon creates its control socket if neither configuration nor
/// service nor pid file determine one.
pub fn usual() -> Vec<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        // The directory belongs to the service and exists only while that runs.
        return vec!["/run/lsyncd/lsyncd.sock".into(), "/run/lsyncd.sock".into()];
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    own.into_iter()
        .map(|dir| PathBuf::from(dir).join("lsyncd.sock"))
        .collect()
}

/// Returns the paths that `lsyncdctl` tries, in this order: the default ones, that of a user's
/// service, and those beside the usual pid files.
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
