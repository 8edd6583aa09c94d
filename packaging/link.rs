//! Build script: the daemon exports the symbols of its Lua, so that C modules of
//! the distribution (`require "socket"`) find them when they are loaded.

fn main() {
    println!("cargo:rerun-if-changed=packaging/link.rs");
    println!("cargo:rustc-link-arg-bin=lsyncd=-rdynamic");
}
