//! What was pending when the daemon stopped is remembered and goes on at the next start.
//!
//! A file holds, each followed by a zero byte: the type of an event, its path, and where a Move
//! went (else nothing). `Full` stands for a comparison of everything that was owed.

use std::time::SystemTime;

use super::engine::Engine;
use crate::queue::Etype;
use crate::report;
use crate::sync::Sync;

/// The file's name.
const KIND: &str = "pending";
/// A file that is there while a daemon is at work. Where one is found at the start, that daemon
/// had no time to say what was pending, or left something that takes an exact comparison to find.
const ALIVE: &str = "alive";

const ETYPES: [Etype; 6] = [
    Etype::Create,
    Etype::Modify,
    Etype::Attrib,
    Etype::Delete,
    Etype::Move,
    Etype::Full,
];

/// Type, path, and where a Move went.
type Event<'a> = (Etype, &'a [u8], Option<&'a [u8]>);

impl Engine<'_> {
    /// Remembers what each sync has not done.
    pub(super) fn save_pending(&self) {
        let Some(state) = &self.core.state else {
            return;
        };
        // Before that, what was remembered has not been taken over.
        if !self.started {
            return;
        }
        for member in &self.members {
            let sync = member.sync.borrow();
            let mut jobs = self.jobs.values();
            let doubtful = sync.doubtful || sync.has_just_sent(SystemTime::now());
            if !doubtful && !jobs.any(|job| job.is_in_doubt() && job.is_for(&member.sync)) {
                state.remove(&sync.config, ALIVE);
            }
            let bytes = encode(&sync);
            if bytes.is_empty() {
                state.remove(&sync.config, KIND);
            } else if let Err(error) = state.write(&sync.config, KIND, &bytes) {
                let name = &sync.config.name;
                report::error(format_args!(
                    "{name}: cannot remember what is pending: {error}"
                ));
            }
        }
    }

    /// A sync that starts goes on with what the last daemon left undone.
    pub(super) fn recall(&self, sync: &mut Sync) {
        let Some(state) = &self.core.state else {
            return;
        };
        let name = sync.config.name.clone();
        if !self.core.recalled {
            sync.doubtful |= state.read(&sync.config, ALIVE).is_some();
        }
        if let Err(error) = state.write(&sync.config, ALIVE, b"") {
            report::warn(format_args!("{name}: cannot remember: {error}"));
        }
        let Some(bytes) = state.read(&sync.config, KIND) else {
            return;
        };
        let events = decode(&bytes);
        report::normal(format_args!(
            "{name}: {} changes were pending when the daemon stopped",
            events.len()
        ));
        for (etype, path, to) in events {
            sync.restore(etype, path, to, self.now);
        }
        sync.drop_held();
        state.remove(&sync.config, KIND);
    }
}

fn encode(sync: &Sync) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |etype: Etype, path: &[u8], to: Option<&[u8]>| {
        for part in [etype.name().as_bytes(), path, to.unwrap_or_default()] {
            bytes.extend_from_slice(part);
            bytes.push(0);
        }
    };
    let (events, everything) = sync.owed();
    if everything {
        add(Etype::Full, b"/", None);
    }
    for (etype, path, to) in &events {
        add(*etype, path, to.as_deref());
    }
    bytes
}

/// What is no event is left out, and so is what comes after a broken end.
fn decode(bytes: &[u8]) -> Vec<Event<'_>> {
    let parts: Vec<&[u8]> = bytes.split(|&byte| byte == 0).collect();
    let events = parts.chunks_exact(3).filter_map(|parts| {
        let etype = ETYPES
            .into_iter()
            .find(|etype| etype.name().as_bytes() == parts[0])?;
        let (path, to) = (parts[1], Some(parts[2]).filter(|to| !to.is_empty()));
        (path.starts_with(b"/") && to.is_some() == (etype == Etype::Move))
            .then_some((etype, path, to))
    });
    events.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_broken_is_left_out() {
        let bytes = b"Create\0/a\nb\0\0Move\0/c/\0/d/\0Nonsense\0/e\0\0Delete\0x\0\0Modify\0/f";
        let expected: [Event<'_>; 2] = [
            (Etype::Create, b"/a\nb", None),
            (Etype::Move, b"/c/", Some(b"/d/")),
        ];
        assert_eq!(decode(bytes), expected);
        assert!(decode(b"").is_empty());
    }
}
