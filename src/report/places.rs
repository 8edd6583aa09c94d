//! Where the control socket is, when nobody says.

use std::path::PathBuf;

/// The environment variable that names it, for `lsyncdctl`.
pub const VARIABLE: &str = "LSYNCD_SOCKET";

/// Where a daemon makes its control socket if its configuration names none and has no pid file.
pub fn usual() -> Vec<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return vec!["/run/lsyncd/lsyncd.sock".into()];
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    own.into_iter()
        .map(|dir| PathBuf::from(dir).join("lsyncd.sock"))
        .collect()
}

/// Where `lsyncdctl` looks, in this order: the above, and beside the usual pid files.
pub fn searched() -> Vec<PathBuf> {
    let beside = ["/run/lsyncd.sock", "/run/lsyncd/lsyncd.sock"];
    let mut places = usual();
    for path in beside.map(PathBuf::from) {
        if !places.contains(&path) {
            places.push(path);
        }
    }
    places
}
