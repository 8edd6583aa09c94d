//! Configurations as people have them.
