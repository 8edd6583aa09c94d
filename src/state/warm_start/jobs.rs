//! The work of the threads of warm starts.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use super::files::IndexFiles;
use crate::filter::Filter;
use crate::index::plan::{self, DirectoryPlan};
use crate::index::rows::{self, UNKNOWN};
use crate::index::siphash::HashKey;
use crate::index::walk::{IndexWalk, RACY};
use crate::index::{ChangedDirs, Header, Index};
use crate::log;
use crate::paths;
use crate::safe_path::is_exposed;

/// The directories that are read for an index.
pub enum Directories {
    /// All: everything was compared, from this time on.
    All { compared: SystemTime },
    /// The directories that have changed since the index was written.
    Changed(ChangedDirs),
}

/// An index that still contains the directories that have changed in the meantime.
pub struct ReadIndex {
    index: Index,
    /// Directories whose digest proves nothing yet.
    pub racy: Vec<Vec<u8>>,
}

/// Determines the directories that a startup compares. Afterwards the index file contains only
/// directories that are equal on the target.
///
/// # Errors
///
/// Everything has to be compared, for this reason.
pub fn plan(
    files: &IndexFiles,
    filter: &RwLock<Filter>,
    begun: SystemTime,
    cancelled: &AtomicBool,
) -> Result<DirectoryPlan, String> {
    let planned = try_plan(files, filter, begun, cancelled);
    if planned.is_err() {
        files.discard();
    }
    let opened = files.open();
    let plan = planned?;
    opened.map(|()| plan)
}

fn try_plan(
    files: &IndexFiles,
    filter: &RwLock<Filter>,
    begun: SystemTime,
    cancelled: &AtomicBool,
) -> Result<DirectoryPlan, String> {
    let (sync, config) = (files.sync(), files.config()?);
    give_priority(files);
    let (index, before) = files.load(begun)?;
    let key = index.header.key;
    let walk = walk(files, filter, &key, begun, cancelled);
    let plan = plan::plan(index, &walk, before)?;
    if plan.directories.is_empty() {
        return Ok(plan);
    }
    let obstacles = [
        (
            !config.by_directory,
            "the options allow no comparison of single directories",
        ),
        (
            config.hard_links && plan.has_links,
            "files with several names have changed",
        ),
        (
            config.by_name && is_any_exposed(&sync.source, &plan.directories),
            "other users can replace directories that have changed",
        ),
    ];
    if let Some((_, reason)) = obstacles.into_iter().find(|(is_present, _)| *is_present) {
        return Err(format!(
            "{} directories have changed, and {reason}",
            plan.directories.len()
        ));
    }
    files.write(&plan.index)?;
    Ok(plan)
}

/// Returns the walk through the source of a sync.
fn walk<'a>(
    files: &'a IndexFiles,
    filter: &'a RwLock<Filter>,
    key: &'a HashKey,
    begun: SystemTime,
    cancelled: &'a AtomicBool,
) -> IndexWalk<'a> {
    let sync = files.sync();
    IndexWalk {
        source: &sync.source,
        subdirs: sync.subdirs,
        filter,
        key,
        begun,
        cancelled,
    }
}

/// Returns true if other users can put a link in place of one of these directories.
fn is_any_exposed(source: &[u8], directories: &[Vec<u8>]) -> bool {
    let mut known = BTreeMap::new();
    directories.iter().any(|directory| {
        let above = paths::directories(directory).filter(|above| above.len() < directory.len());
        above.into_iter().any(|above| {
            *known.entry(above).or_insert_with(|| {
                let path = paths::join(source, above);
                let path = Path::new(OsStr::from_bytes(paths::bare(&path)));
                fs::symlink_metadata(path).map_or(true, |data| is_exposed(path, &data))
            })
        })
    })
}

/// Reads directories for an index.
///
/// # Errors
///
/// The index would prove nothing, or something cannot be read: a text for the log.
pub fn read(
    files: &IndexFiles,
    filter: &RwLock<Filter>,
    directories: Directories,
    cancelled: &AtomicBool,
) -> Result<ReadIndex, String> {
    give_priority(files);
    let begun = SystemTime::now();
    let (mut index, roots, changed) = match directories {
        Directories::All { compared } => {
            let header = Header {
                key: HashKey::random(),
                fingerprint: files.fingerprint()?,
                taken: begun - RACY,
                compared,
            };
            let rows = Vec::new();
            let roots = vec![(b"/".to_vec(), true)];
            (Index { header, rows }, roots, None)
        }
        Directories::Changed(changed) => {
            let mut index = files.read()?;
            index.header.taken = begun - RACY;
            (index, changed.roots(), Some(changed))
        }
    };
    let key = index.header.key;
    let walk = walk(files, filter, &key, begun, cancelled);
    let digests = plan::digests(&walk, roots)?;
    if let Some(changed) = changed {
        let [directories, trees] = changed.hashes(&key);
        rows::forget(&mut index.rows, &directories, &trees);
    }
    if index.rows.is_empty() {
        index.rows = digests.rows;
    } else {
        index.rows.extend(digests.rows);
        rows::sort(&mut index.rows);
    }
    let racy = digests.racy;
    Ok(ReadIndex { index, racy })
}

/// Writes an index, without the directories that have changed. `is_last`: the daemon stops.
///
/// # Errors
///
/// It cannot be written, or source and target are not those of before: a text for the log.
pub fn write(
    files: &IndexFiles,
    read: ReadIndex,
    changed: &ChangedDirs,
    is_last: bool,
) -> Result<(), String> {
    let mut index = read.index;
    if index.header.fingerprint != files.fingerprint()? {
        return Err("source, target or filter have changed".to_owned());
    }
    let [directories, trees] = changed.hashes(&index.header.key);
    rows::forget(&mut index.rows, &directories, &trees);
    drop_doubles(&mut index);
    if is_last {
        files.sync_target();
    }
    files.write(&index)?;
    if is_last {
        files.close();
    }
    Ok(())
}

/// Removes rows without a digest of directories that have a row with one.
fn drop_doubles(index: &mut Index) {
    rows::sort(&mut index.rows);
    let next: Vec<u64> = index.rows.iter().skip(1).map(|row| row.path).collect();
    let mut next = next.into_iter();
    index.rows.retain(|row| {
        let next = next.next();
        row.digest != UNKNOWN || next != Some(row.path)
    });
}

fn give_priority(files: &IndexFiles) {
    if let Err(error) = files.sync().priority.give(0) {
        log::say("Debug", format_args!("priority of a thread: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::index::Row;

    #[test]
    fn a_directory_is_exposed_if_others_can_write_above_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("open/below")).unwrap();
        fs::create_dir_all(dir.path().join("own/below")).unwrap();
        for (name, mode) in [("open", 0o777), ("own", 0o755)] {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(dir.path().join(name), mode).unwrap();
        }
        let source = [dir.path().as_os_str().as_bytes(), b"/"].concat();
        for (directories, exposed) in [
            (&["/"][..], false),
            (&["/own/below/"], false),
            // Nobody can replace it in a directory that nobody else can write to.
            (&["/open/"], false),
            (&["/own/below/", "/open/below/"], true),
            (&["/gone/below/"], true),
        ] {
            let all = directories.iter().map(|path| path.as_bytes().to_vec());
            let found = is_any_exposed(&source, &all.collect::<Vec<_>>());
            assert_eq!(found, exposed, "{directories:?}");
        }
    }

    /// A directory whose state is not known would be compared, although it is known.
    #[test]
    fn a_row_without_a_digest_is_dropped_if_there_is_one_with_it() {
        let row = |path, digest| Row {
            path,
            parent: 0,
            digest,
        };
        let begun = SystemTime::now();
        let mut index = Index {
            header: Header {
                key: HashKey([0; 16]),
                fingerprint: 0,
                taken: begun,
                compared: begun,
            },
            rows: vec![row(3, 5), row(2, UNKNOWN), row(1, 7), row(1, UNKNOWN)],
        };
        drop_doubles(&mut index);
        assert_eq!(index.rows, [row(1, 7), row(2, UNKNOWN), row(3, 5)]);
    }
}
