//! Classes for the Lua language server.

use lsyncd::config::keys::{Key, Kinds, MODES, ValueType as T, plain};

/// Returns a class.
pub fn class(name: &str, keys: &[&Key]) -> String {
    let items = match name {
        "settings" => Some(("string", "A setting to switch on.")),
        "sync" => Some(("table", "The kind of the sync, such as default.rsync.")),
        _ => None,
    };
    let name = match name {
        "tunnel" => "TunnelOptions".to_owned(),
        name => capitalized(name),
    };
    let mut class = format!("---@class (exact) lsyncd.{name}\n");
    if let Some((item, meaning)) = items {
        class.push_str(&format!("---{meaning}\n---@field [integer]? {item}\n"));
    }
    // The server checks the types of values, but not that the class has a key. The kinds, which are also
    // values of lsyncd.Sync, have keys of their own.
    if name != "Sync" {
        class.push_str("---Any other key is an error.\n---@field [string]? lsyncd.UnknownKey\n");
    }
    for key in keys {
        class.push_str(&format!("---{}\n", plain(&key.meaning())));
        let default = plain(key.default);
        if !default.is_empty() {
            class.push_str(&format!("---\n---Default: {default}.\n"));
        }
        if !key.kinds.has(Kinds::OWN) {
            let kinds = key.kinds.names().map(|kind| format!("default.{kind}"));
            let kinds = kinds.collect::<Vec<_>>().join(", ");
            class.push_str(&format!("---\n---Only with {kinds}.\n"));
        }
        class.push_str(&format!("---@field {}? {}\n", key.name, of(key)));
    }
    class
}

/// Returns the type of a key.
fn of(key: &Key) -> String {
    let texts = |texts: &[&str]| {
        let texts = texts.iter().map(|text| format!("\"{text}\""));
        texts.collect::<Vec<_>>().join("|")
    };
    let name = match key.value {
        T::Action => "string|fun(event: lsyncd.Event)|false",
        T::ActionOrSwitch => "string|boolean|fun(origin: lsyncd.Event, destination: lsyncd.Event)",
        T::Anything => "any",
        T::Bytes | T::Count | T::Delay | T::Interval | T::Number => "number",
        T::Seconds | T::SignedSeconds => "number",
        T::Check => "lsyncd.Check|function|(lsyncd.Check|function)[]|false",
        T::Command | T::Words => "(string|number)[]",
        T::Delete => "boolean|\"startup\"|\"running\"",
        T::ExitCodes => "lsyncd.ExitCodes|false",
        T::Function => match key.name {
            "action" => "fun(inlet: lsyncd.Inlet)",
            "collect" => {
                "fun(agent: lsyncd.Event|lsyncd.List, exitcode: integer): \"ok\"|\"again\"|\"die\"|nil"
            }
            "prepare" => "fun(config: lsyncd.Sync, level?: integer)",
            _ => "fun(event: lsyncd.Event)",
        },
        T::Init => "fun(event: lsyncd.Event)|false|\"changed\"",
        T::Gauge => "table|false",
        T::Guard => "lsyncd.Guard|false",
        T::Hook => "function|(string|number)[]|false",
        T::Mode => return texts(&MODES),
        T::OneOf(known) => return texts(known),
        T::Name | T::OptionalPath | T::Path => "string",
        T::Numbers => "integer|integer[]",
        T::PathOrFalse => "string|false",
        T::Rejection => "\"hold\"|\"delete-target\"|\"quarantine\"|function|(string|number)[]",
        T::SshOptions => "table<string|integer, string|number>",
        T::Switch => "boolean",
        T::Table(_) => return format!("lsyncd.{}", capitalized(key.name)),
        T::Targets => "(string|lsyncd.Sync)[]|fun(): (string|lsyncd.Sync)[]",
        T::Text => "string|number",
        T::Bandwidth => "string|number|table",
        T::Crontab | T::Texts | T::TunnelCommand => "string|string[]",
        T::Tunnel => "lsyncd.Tunnel",
    };
    name.to_owned()
}

fn capitalized(name: &str) -> String {
    name[..1].to_uppercase() + &name[1..]
}
