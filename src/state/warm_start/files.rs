//! The files of an index, and the conditions for trusting it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use crate::config::{SyncConfig, WarmStartConfig};
use crate::index::plan::Before;
use crate::index::{Header, Index};
use crate::state::{StateDir, pending};
use crate::sync::{SourceIdentity, Sync, index_fingerprint};

/// The name of the index file.
const INDEX: &str = "index";
/// The name of a file that exists while a daemon uses the index. It holds the id of the system's
/// boot. If it is found at a start, the previous daemon was killed.
const OPEN_MARK: &str = "index-open";
/// The kernel's id of the current boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The files of the index of one sync.
#[derive(Clone)]
pub struct IndexFiles {
    state: StateDir,
    sync: SyncConfig,
    conditions: Vec<Vec<u8>>,
}

impl IndexFiles {
    /// Returns the files of a sync.
    pub fn new(state: &StateDir, sync: &Sync) -> IndexFiles {
        IndexFiles {
            state: state.clone(),
            sync: sync.config.clone(),
            conditions: sync.index_conditions(),
        }
    }

    /// Returns the configuration of the sync.
    pub fn sync(&self) -> &SyncConfig {
        &self.sync
    }

    /// Returns the settings of the sync for warm starts.
    ///
    /// # Errors
    ///
    /// It has none; a text for the log.
    pub fn config(&self) -> Result<&WarmStartConfig, String> {
        let config = self.sync.warm_start.as_ref();
        config.ok_or_else(|| "it is configured".to_owned())
    }

    /// Returns the hash of all that decides what is sent where, with the identities of source and
    /// target.
    ///
    /// # Errors
    ///
    /// The source or a local target is not there: a text for the log.
    pub fn fingerprint(&self) -> Result<u128, String> {
        let identity = |path: &[u8]| {
            let found = SourceIdentity::of(path);
            let line = found.map(|found| found.lasting_line().into_bytes());
            line.map_err(|error| format!("{}: {error}", crate::log::escape(path)))
        };
        let mut parts = self.conditions.clone();
        parts.push(identity(&self.sync.source)?);
        if let Some(target) = &self.config()?.local_target {
            parts.push(identity(target)?);
        }
        Ok(index_fingerprint(&parts))
    }

    /// Returns the index, if it can be trusted at this time, and what is known of the daemon
    /// before.
    ///
    /// # Errors
    ///
    /// It cannot be trusted, or there is none: a text for the log.
    pub fn load(&self, now: SystemTime) -> Result<(Index, Before), String> {
        let open = self.state.read(&self.sync, OPEN_MARK);
        let was_killed = open.is_some();
        if open.is_some_and(|open| Some(open) != boot_id()) {
            return Err("the system was not shut down properly".to_owned());
        }
        let index = self.read()?;
        if index.header.fingerprint != self.fingerprint()? {
            return Err("source, target, options or the program have changed".to_owned());
        }
        is_recent(&index.header, self.config()?.verify_every, now)?;
        let synced = pending::read_synced(&self.state, &self.sync).filter(|_| was_killed);
        Ok((index, Before { was_killed, synced }))
    }

    /// Returns the index.
    ///
    /// # Errors
    ///
    /// There is none, or it is damaged: a text for the log.
    pub fn read(&self) -> Result<Index, String> {
        let unreadable = |error| format!("the index of the source cannot be read: {error}");
        let file = self
            .state
            .open_file(&self.sync, INDEX)
            .map_err(unreadable)?;
        let file = file.ok_or_else(|| "there is no index of the source".to_owned())?;
        let size = file.metadata().map_err(unreadable)?.len();
        let index = match Index::read(file, size) {
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(unreadable(error)),
            read => Ok(read.ok().flatten()),
        };
        index?.ok_or_else(|| "the index of the source is damaged".to_owned())
    }

    /// Writes the index.
    ///
    /// # Errors
    ///
    /// It cannot be written; it is removed then. The error is a text for the log.
    pub fn write(&self, index: &Index) -> Result<(), String> {
        let state = &self.state;
        let written = state.write_large(&self.sync, INDEX, &mut |file| index.write(file));
        written.map_err(|error| {
            state.remove(&self.sync, INDEX);
            format!("it cannot be written: {error}")
        })
    }

    /// Marks the index as used by this daemon. Without the mark it cannot be used.
    ///
    /// # Errors
    ///
    /// The mark cannot be written; the index is removed then. The error is a text for the log.
    pub fn open(&self) -> Result<(), String> {
        let id = boot_id().ok_or_else(|| format!("{BOOT_ID} cannot be read"));
        let written = id.and_then(|id| {
            let written = self.state.write(&self.sync, OPEN_MARK, &id);
            written.map_err(|error| error.to_string())
        });
        written.inspect_err(|_| self.state.remove(&self.sync, INDEX))
    }

    /// Marks the index as final.
    pub fn close(&self) {
        self.state.remove(&self.sync, OPEN_MARK);
    }

    /// Removes the index.
    pub fn discard(&self) {
        self.state.remove(&self.sync, INDEX);
    }

    /// Removes the index and its mark.
    pub fn discard_all(&self) {
        self.discard();
        self.close();
    }

    /// Writes what a local target has in memory to its disk, so that an index cannot be ahead of it
    /// after a power failure.
    pub fn sync_target(&self) {
        let target = self
            .sync
            .warm_start
            .as_ref()
            .and_then(|config| config.local_target.as_deref());
        let open = target.and_then(|target| File::open(OsStr::from_bytes(target)).ok());
        if let Some(open) = open {
            // The errors of writing are those of the transfers.
            let _ = rustix::fs::syncfs(open);
        }
    }
}

/// Checks the age of the last full comparison.
fn is_recent(
    header: &Header,
    verify_every: Option<Duration>,
    now: SystemTime,
) -> Result<(), String> {
    match (now.duration_since(header.compared), verify_every) {
        (Err(_), _) => Err("the clock was set back".to_owned()),
        (Ok(age), Some(limit)) if age >= limit => {
            Err("the last full comparison is older than verifyEvery".to_owned())
        }
        _ => Ok(()),
    }
}

fn boot_id() -> Option<Vec<u8>> {
    fs::read(BOOT_ID).ok().filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::siphash::HashKey;

    #[test]
    fn an_old_comparison_is_repeated() {
        let hour = Duration::from_secs(3600);
        let compared = SystemTime::UNIX_EPOCH + 10 * hour;
        let header = Header {
            key: HashKey([0; 16]),
            fingerprint: 0,
            taken: compared,
            compared,
        };
        for (now, limit, recent) in [
            (compared, Some(hour), true),
            (compared + hour / 2, Some(hour), true),
            (compared + hour, Some(hour), false),
            (compared + 1000 * hour, None, true),
            (compared - hour, None, false),
            (compared - hour, Some(hour), false),
        ] {
            assert_eq!(is_recent(&header, limit, now).is_ok(), recent, "{now:?}");
        }
    }
}
