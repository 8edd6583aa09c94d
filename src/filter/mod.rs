//! Patterns as rsync has them.
