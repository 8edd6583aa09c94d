//! Child processes: spawn, feed, capture, reap. Nothing about rsync.
