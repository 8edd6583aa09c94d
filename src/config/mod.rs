//! From Lua tables to typed settings and syncs.
