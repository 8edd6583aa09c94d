//! What syncs share that have the same files checked by the same checks: one staged tree, one
//! thread that keeps it, and what is known of files that do not leave.
//!
//! Syncs of one source with several targets are such, see `script::fanout`.

use std::cell::{OnceCell, Ref, RefCell, RefMut};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use super::blocked::Blocked;
use super::readers::{Readers, Reading};
use crate::config::Staging;
use crate::id::GateId;

/// One check gate; each sync has one, alone or with others.
#[derive(Debug)]
pub struct Gate {
    id: GateId,
    key: Option<Vec<u8>>,
    staging: OnceCell<Vec<u8>>,
    blocked: RefCell<Blocked>,
    readers: Arc<Readers>,
}

impl Gate {
    /// A gate for syncs that have this text; `None` for a sync that shares it with none.
    pub fn new(key: Option<Vec<u8>>) -> Gate {
        Gate {
            id: GateId::new(),
            key,
            staging: OnceCell::default(),
            blocked: RefCell::default(),
            readers: Arc::default(),
        }
    }

    /// The key of what other parts keep for this gate.
    pub fn id(&self) -> GateId {
        self.id
    }

    /// Returns true if a sync with this text may share it.
    pub fn is_for(&self, key: &[u8]) -> bool {
        self.key.as_deref() == Some(key)
    }

    /// The private directory, absolute, without slash at its end; none before [`assign_staging`].
    pub fn staging(&self) -> Option<&[u8]> {
        self.staging.get().map(Vec::as_slice)
    }

    /// The transfers that read the staged tree.
    pub fn readers(&self) -> &Arc<Readers> {
        &self.readers
    }

    /// Counts a transfer that reads the staged tree, until the answer is dropped; to be called
    /// before the tree is looked at for it.
    pub fn begin_reading(&self) -> Rc<Reading> {
        Rc::new(Readers::begin(&self.readers))
    }

    /// What does not leave.
    pub fn blocked(&self) -> Ref<'_, Blocked> {
        self.blocked.borrow()
    }

    /// The same, to be changed.
    pub fn blocked_mut(&self) -> RefMut<'_, Blocked> {
        self.blocked.borrow_mut()
    }
}

/// Gives each gate its private directory. The name that depends on the source alone goes to the
/// first gate of a source, so that a change of its filters or targets finds its files there; one
/// that has a directory already keeps it.
pub fn assign_staging(gates: &[(Rc<Gate>, Staging)]) {
    let settled = gates.iter().filter_map(|(gate, _)| gate.staging());
    let mut taken: HashSet<Vec<u8>> = settled.map(<[u8]>::to_vec).collect();
    for (gate, staging) in gates {
        gate.staging.get_or_init(|| {
            let place = match staging {
                Staging::Given(place) => place,
                Staging::Beside { source, .. } if !taken.contains(source) => source,
                Staging::Beside { target, .. } => target,
            };
            taken.insert(place.clone());
            place.clone()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gate_of_a_source_has_its_name_and_keeps_it() {
        let beside = |target: &str| Staging::Beside {
            source: b"/s".to_vec(),
            target: target.into(),
        };
        let gates = [(); 3].map(|()| Rc::new(Gate::new(None)));
        let [one, two, three] = &gates;
        let both = [(one, "a"), (one, "b"), (two, "c")];
        assign_staging(&both.map(|(gate, target)| (Rc::clone(gate), beside(target))));
        assert_eq!(one.staging(), Some(b"/s".as_slice()));
        assert_eq!(two.staging(), Some(b"c".as_slice()));

        let later = [(three, "d"), (two, "c"), (one, "a")];
        assign_staging(&later.map(|(gate, target)| (Rc::clone(gate), beside(target))));
        assert_eq!(three.staging(), Some(b"d".as_slice()));
        assert_eq!(one.staging(), Some(b"/s".as_slice()));
    }
}
