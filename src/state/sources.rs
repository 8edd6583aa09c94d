//! The identity of each source, and what is mounted at source and target, as of the last run.

use super::state_dir::StateDir;
use crate::log;
use crate::sync::{SourceIdentity, Sync};

/// The file with the mount point of the source.
const MOUNT_STATE: &str = "mount";
/// The file with the identity of the source directory.
const SOURCE_STATE: &str = "source";
/// The file with the mount point of a local target.
const TARGET_MOUNT_STATE: &str = "target-mount";
/// The file with the mount points within the source, each followed by a zero byte.
const NESTED_MOUNTS_STATE: &str = "inside";

/// Restores the source and the mounts of a sync from the last run.
pub fn restore(state: &StateDir, sync: &mut Sync) {
    if let Some(mount) = state.read(&sync.config, MOUNT_STATE) {
        sync.remember_source_mount(&mount);
    }
    let source = state.read(&sync.config, SOURCE_STATE);
    if let Some(source) = source.and_then(|line| SourceIdentity::from_line(&line)) {
        sync.remember_source(source);
    }
    if let Some(mount) = state.read(&sync.config, TARGET_MOUNT_STATE) {
        sync.remember_target_mount(mount);
    }
    let nested = state.read(&sync.config, NESTED_MOUNTS_STATE);
    let nested = nested.unwrap_or_default();
    let nested = nested.split(|&byte| byte == 0);
    let nested = nested.filter(|path| !path.is_empty());
    sync.remember_nested_mounts(nested.map(<[u8]>::to_vec));
}

/// Saves the source of a sync and its mounts. The mount point `/` is not saved.
pub fn save(state: &StateDir, sync: &Sync) {
    let lasting = |mount: &[u8]| match mount {
        b"/" => Vec::new(),
        mount => mount.to_vec(),
    };
    let source = sync.accepted_source().map(SourceIdentity::to_line);
    let target_mount = lasting(sync.target_mount().unwrap_or_default());
    keep(
        state,
        sync,
        SOURCE_STATE,
        source.unwrap_or_default().as_bytes(),
    );
    keep(state, sync, MOUNT_STATE, &lasting(sync.source_mount()));
    keep(state, sync, TARGET_MOUNT_STATE, &target_mount);
}

/// Saves the mounts within the source of a sync.
pub fn save_nested_mounts(state: &StateDir, sync: &Sync) {
    let ended = sync
        .known_nested_mounts()
        .map(|mount| [mount, b"\0"].concat());
    let bytes = ended.collect::<Vec<_>>().concat();
    keep(state, sync, NESTED_MOUNTS_STATE, &bytes);
}

/// Writes a state file if its contents have changed; removes it if `bytes` is empty.
fn keep(state: &StateDir, sync: &Sync, kind: &str, bytes: &[u8]) {
    let known = state.read(&sync.config, kind);
    let result = match (known, bytes) {
        (Some(known), bytes) if known == bytes => Ok(()),
        (None, []) => Ok(()),
        (Some(_), []) => {
            state.remove(&sync.config, kind);
            Ok(())
        }
        (_, bytes) => state.write(&sync.config, kind, bytes),
    };
    if let Err(error) = result {
        log::say("Debug", format_args!("cannot store mounts: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::tests::sync_of;

    const SOURCE: &[u8] = b"/srv/src/";

    /// Without them, an empty directory below a mount point is taken for the source or the target.
    #[test]
    fn the_source_and_the_mounts_of_the_last_run_are_known_to_the_next_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::at(directory.path());
        let restored = || {
            let mut sync = sync_of(SOURCE);
            restore(&state, &mut sync);
            sync
        };
        let known = |sync: &Sync| {
            let nested = sync.known_nested_mounts().map(<[u8]>::to_vec);
            (
                sync.source_mount().to_vec(),
                sync.target_mount().map(<[u8]>::to_vec),
                sync.accepted_source().map(SourceIdentity::to_line),
                nested.collect::<Vec<_>>(),
            )
        };
        let nothing = (Vec::new(), None, None, Vec::new());
        assert_eq!(known(&restored()), nothing);
        let mut sync = sync_of(SOURCE);
        sync.remember_source_mount(b"/srv");
        sync.remember_target_mount(b"/mnt/disk".to_vec());
        sync.remember_source(SourceIdentity::of(b"/").unwrap());
        let nested = [b"/srv/src/a".to_vec(), b"/srv/src/b".to_vec()];
        sync.remember_nested_mounts(nested.into_iter());
        for _ in 0..2 {
            save(&state, &sync);
            save_nested_mounts(&state, &sync);
            assert_eq!(known(&restored()), known(&sync));
        }
        // The root file system is always mounted.
        let mut other = sync_of(SOURCE);
        other.remember_source_mount(b"/");
        other.remember_target_mount(b"/".to_vec());
        save(&state, &other);
        save_nested_mounts(&state, &other);
        assert_eq!(known(&restored()), nothing);
    }
}
