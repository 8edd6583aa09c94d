//! From due delays to what a child gets.
