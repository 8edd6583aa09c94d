//! lsyncd's command line.
