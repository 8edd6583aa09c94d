//! The queue of one sync.
