//! The Lua side.
