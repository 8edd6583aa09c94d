//! What the kernel tells about directories.
