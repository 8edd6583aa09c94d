//! The default paths of the control socket.

use std::path::PathBuf;

use nix::unistd::Uid;

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
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    usual_of(nix::unistd::geteuid(), runtime)
}

/// Returns those of this user, with this `XDG_RUNTIME_DIR`. After su(1) it is not set, or is that
/// of another user.
fn usual_of(user: Uid, runtime: Option<PathBuf>) -> Vec<PathBuf> {
    if user.is_root() {
        // The directory belongs to the service and exists only while that runs.
        return vec!["/run/lsyncd/lsyncd.sock".into(), "/run/lsyncd.sock".into()];
    }
    let own = PathBuf::from(format!("/run/user/{user}"));
    let given = runtime.filter(|directory| directory.is_absolute() && *directory != own);
    let directories = given.into_iter().chain([own]);
    directories
        .map(|directory| directory.join("lsyncd.sock"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_socket_without_the_variable_and_with_that_of_another() {
        let paths = |runtime: Option<&str>| {
            let paths = usual_of(Uid::from_raw(1000), runtime.map(PathBuf::from));
            let paths: Vec<_> = paths
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            paths.join(" ")
        };
        let own = "/run/user/1000/lsyncd.sock";
        for runtime in [None, Some(""), Some("relative"), Some("/run/user/1000")] {
            assert_eq!(paths(runtime), own, "{runtime:?}");
        }
        assert_eq!(
            paths(Some("/run/user/0")),
            format!("/run/user/0/lsyncd.sock {own}")
        );
    }
}
