//! One sync: its filter, queue, running processes and retry state.
