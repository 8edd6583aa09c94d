//! Ids of syncs, gates and connections, unique for the life of the process.
//!
//! An id is never reused. State that is kept beside a sync or a gate is keyed by its id and not
//! by its address, because the address of a dropped value can be that of a later one.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

/// The next unused number, starting at 1. All kinds of ids share one sequence.
fn next() -> NonZeroU64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // 2^64 increments take centuries.
    NonZeroU64::new(number).unwrap_or(NonZeroU64::MAX)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU64);

        impl $name {
            /// Returns an id that no other value has or will have.
            #[allow(clippy::new_without_default)]
            pub fn new() -> $name {
                $name(next())
            }
        }
    };
}

id! {
    /// Names the state of one sync. A sync that a reload leaves untouched keeps its id.
    SyncId
}

id! {
    /// Names one check gate, which several syncs may share.
    GateId
}

/// Names a connection of the control server. The place of a closed connection is used again with
/// another serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// The place in the table of connections.
    pub place: usize,
    /// The number of the connection.
    pub serial: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_never_reused() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| SyncId::new()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(!ids.contains(&SyncId::new()));
    }
}
