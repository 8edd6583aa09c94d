//! A job for the worker of default.direct.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, RwLock};

use lsyncd::filter::Filter;
use lsyncd::local::{CopyJob, CopyTask};

/// Returns a job that deletes, without filter and limit.
pub fn copy_job(source: &Path, target: &Path, task: CopyTask) -> CopyJob {
    let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
    CopyJob {
        token: 0,
        source: bytes(source),
        source_numbers: None,
        target: bytes(target),
        delete: true,
        delete_excluded: false,
        keeps_others: false,
        filter: Arc::new(RwLock::new(Filter::default())),
        task,
        renames_applied: false,
        limit: None,
        control: Arc::default(),
    }
}
