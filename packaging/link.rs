//! Build script: the daemon exports the symbols of its Lua, so that C modules of
//! the distribution (`require "socket"`) find them when they are loaded. Those of
//! the system's Lua are in its shared library.

fn main() {
    println!("cargo:rerun-if-changed=packaging/link.rs");
    let has = |feature| std::env::var_os(feature).is_some();
    let is_vendored = has("CARGO_FEATURE_VENDORED_LUA");
    if is_vendored && has("CARGO_FEATURE_SYSTEM_LUA") {
        println!("cargo::error=system-lua needs --no-default-features");
    }
    if is_vendored {
        println!("cargo:rustc-link-arg-bin=lsyncd=-rdynamic");
    }
}
