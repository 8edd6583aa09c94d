//! The transfer log: the operations on the target of each sync, and their times.
//!
//! Each sync has a ring of two halves below its state directory, or in memory if there is none. A
//! batch is written with one write(2) after it has ended, by a thread of its own, which also
//! answers queries. The loop only encodes the entries of a batch.
//!
//! | file | what it does |
//! |---|---|
//! | `record` | the format: a batch to bytes and back |
//! | `ring` | the two halves: which one is written, and what is read |
//! | `store` | the halves as files, or in memory |
//! | `query` | the entries that a client asks for, in pages |
//! | `last` | the last entry about each of several paths |
//! | `page` | these entries as plain data, for the protocol |
//! | `worker` | the thread that writes and answers |
//! | `order_thread` | a thread that executes requests, for this room and `reports` |
//!
//! The room may call `safe_path`, `log` and `paths`, and nothing else of the program.

mod last;
mod order_thread;
mod page;
mod query;
mod record;
mod ring;
mod store;
mod worker;

pub use last::LastEntry;
pub use order_thread::OrderThread;
pub use page::{LogEntry, LogPage};
pub use query::{HistoryQuery, RingQuery};
pub use record::{BatchRecord, BatchSummary, Operation};
pub use store::RingDirectory;
pub use worker::{History, HistoryAnswer};

/// The names of the files of a ring: the half that is written, and the one before it.
pub const FILE_NAMES: [&str; 2] = ["log", "log.old"];
