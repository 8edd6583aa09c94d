//! Log and status file.
