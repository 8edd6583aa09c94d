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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::tests::sync_of;

    #[test]
    fn the_next_daemon_goes_on_with_the_part_that_is_saved() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::at(directory.path());
        let sync = sync_of(b"/src/").config;
        assert_eq!(restore(&state, &sync), None);
        let place = SamplePlace { part: 3, parts: 7 };
        save(&state, &sync, place);
        assert_eq!(restore(&state, &sync), Some(place));
        for damaged in ["3 0", "3", "x 7", ""] {
            let text = damaged.as_bytes();
            state.write(&sync, SAMPLE_STATE, text).unwrap();
            assert_eq!(restore(&state, &sync), None, "{damaged}");
        }
    }
}
