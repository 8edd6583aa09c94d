//! Additional search paths of `require`: the module directories of distributions, which the linked
//! Lua does not know.

use mlua::{Lua, Result, Table};

/// Directories of Lua 5.4 modules, and of 5.3 modules in pure Lua.
const LUA_PATHS: [&str; 4] = [
    "/usr/share/lua/5.4/?.lua",
    "/usr/share/lua/5.4/?/init.lua",
    "/usr/share/lua/5.3/?.lua",
    "/usr/share/lua/5.3/?/init.lua",
];

/// Directories of C modules for Lua 5.4; Debian's directory, with the architecture in its name, is
/// added to them.
const C_PATHS: [&str; 3] = [
    "/usr/local/lib/lua/5.4/?.so",
    "/usr/lib64/lua/5.4/?.so",
    "/usr/lib/lua/5.4/?.so",
];

/// Appends the directories to `package.path` and `package.cpath`.
pub fn extend(lua: &Lua) -> Result<()> {
    let package: Table = lua.globals().get("package")?;
    let debian = format!("/usr/lib/{}/lua/5.4/?.so", triplet(std::env::consts::ARCH));
    let append = |key: &str, more: &[&str]| -> Result<()> {
        let path: String = package.get(key)?;
        package.set(key, format!("{path};{}", more.join(";")))
    };
    append("path", &LUA_PATHS)?;
    append("cpath", &[&debian])?;
    append("cpath", &C_PATHS)
}

/// Returns Debian's multiarch name of the architecture that Rust calls `arch`.
fn triplet(arch: &str) -> String {
    match arch {
        "x86" => "i386-linux-gnu".to_owned(),
        "arm" => "arm-linux-gnueabihf".to_owned(),
        "powerpc64" => "powerpc64le-linux-gnu".to_owned(),
        other => format!("{other}-linux-gnu"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_is_searched_last() {
        let lua = crate::sys::lua();
        let before: String = lua.load("package.cpath").eval().unwrap();
        extend(&lua).unwrap();
        let after: String = lua.load("package.cpath").eval().unwrap();
        assert!(after.starts_with(&before));
        assert!(after.contains("-linux-gnu"));
        assert_eq!(triplet("x86_64"), "x86_64-linux-gnu");
    }
}
