//! The part of a sync's files that a comparison by sample reads next.

use super::state_dir::StateDir;
use crate::component::SamplePlace;
use crate::config::SyncConfig;
use crate::log;

/// The file with the part and the number of parts.
const SAMPLE_STATE: &str = "sample";

/// Returns the saved part.
pub fn restore(state: &StateDir, sync: &SyncConfig) -> Option<SamplePlace> {
    let text = String::from_utf8(state.read(sync, SAMPLE_STATE)?).ok()?;
    let (part, parts) = text.trim().split_once(' ')?;
    Some(SamplePlace {
        part: part.parse().ok()?,
        parts: parts.parse().ok().filter(|&parts| parts > 0)?,
    })
}

/// Saves the part. If it cannot be saved, a restart begins with the first one.
pub fn save(state: &StateDir, sync: &SyncConfig, place: SamplePlace) {
    let text = format!("{} {}\n", place.part, place.parts);
    if let Err(error) = state.write(sync, SAMPLE_STATE, text.as_bytes()) {
        log::say("Debug", format_args!("cannot store the sample: {error}"));
    }
}
