//! The state shared by syncs that apply the same checks to the same files: one staged tree, one
//! thread that maintains it, and the blocked files.
//!
//! Syncs of one source with several targets share it, see `script::create::fanout`.

use std::cell::{OnceCell, Ref, RefCell, RefMut};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use super::blocked::Blocked;
use super::readers::{Readers, Reading};
use crate::config::Staging;
use crate::id::GateId;

/// One check gate. Each sync has one, alone or shared.
#[derive(Debug)]
pub struct Gate {
    id: GateId,
    key: Option<Vec<u8>>,
    staging: OnceCell<Vec<u8>>,
    blocked: RefCell<Blocked>,
    readers: Arc<Readers>,
}

impl Gate {
    /// Returns a gate for syncs with this key; `None` for a sync that shares it with none.
    pub fn new(key: Option<Vec<u8>>) -> Gate {
        Gate {
            id: GateId::new(),
            key,
            staging: OnceCell::default(),
            blocked: RefCell::default(),
            readers: Arc::default(),
        }
    }

    /// Returns the id of this gate, by which other rooms store its data.
    pub fn id(&self) -> GateId {
        self.id
    }

    /// Returns true if a sync with this key may share it.
    pub fn is_for(&self, key: &[u8]) -> bool {
        self.key.as_deref() == Some(key)
    }

    /// Returns the private directory, absolute, without trailing slash; `None` before
    /// [`assign_staging`].
    pub fn staging(&self) -> Option<&[u8]> {
        self.staging.get().map(Vec::as_slice)
    }

    /// Returns the transfers that read the staged tree.
    pub fn readers(&self) -> &Arc<Readers> {
        &self.readers
    }

    /// Registers a transfer that reads the staged tree, until the result is dropped; to be called
    /// before the tree is read for it.
    pub fn begin_reading(&self) -> Rc<Reading> {
        Rc::new(Readers::begin(&self.readers))
    }

    /// Returns the blocked files.
    pub fn blocked(&self) -> Ref<'_, Blocked> {
        self.blocked.borrow()
    }

    /// Returns the blocked files for changes.
    pub fn blocked_mut(&self) -> RefMut<'_, Blocked> {
        self.blocked.borrow_mut()
    }
}

/// Assigns each gate its private directory. The first gate of a source gets the name that depends
/// only on the source, so that its files are found again after a change of filters or targets. A
/// gate that has a directory keeps it.
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
    fn the_tree_of_a_gate_knows_its_transfers() {
        use super::super::readers::{RemovedPaths, Usage};
        let gate = Gate::new(None);
        let mut removed = RemovedPaths::new(Arc::clone(gate.readers()));
        let reading = gate.begin_reading();
        removed.note(b"/d", Usage::Entered);
        assert!(!removed.may_become(b"/d", Usage::Listed));
        drop(reading);
        assert!(removed.may_become(b"/d", Usage::Listed));
    }

    #[test]
    fn a_gate_is_shared_by_syncs_of_its_key() {
        let gate = Gate::new(Some(b"one".to_vec()));
        assert!(gate.is_for(b"one") && !gate.is_for(b"other"));
        assert!(!Gate::new(None).is_for(b"one"));
    }

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
