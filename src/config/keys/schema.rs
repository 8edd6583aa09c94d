//! The table of keys as JSON, for `lsyncd -keys`.

use serde::Serialize;

use super::{Key, Kinds, SETTINGS, SYNC, TUNNEL, plain};

#[derive(Serialize)]
struct Schema {
    version: &'static str,
    settings: Vec<SchemaEntry>,
    sync: Vec<SchemaEntry>,
    tunnel: Vec<SchemaEntry>,
}

#[derive(Serialize)]
struct SchemaEntry {
    key: &'static str,
    r#type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    default: String,
    since: String,
    /// The built-in kinds that have the key, if not all kinds have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    kinds: Option<Vec<&'static str>>,
    meaning: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<SchemaEntry>,
}

/// Returns the table as one JSON object.
pub fn schema() -> String {
    let schema = Schema {
        version: env!("CARGO_PKG_VERSION"),
        settings: entries(SETTINGS),
        sync: entries(SYNC),
        tunnel: entries(TUNNEL),
    };
    serde_json::to_string_pretty(&schema).unwrap_or_default()
}

fn entries(keys: &[Key]) -> Vec<SchemaEntry> {
    let entry = |key: &Key| SchemaEntry {
        key: key.name,
        r#type: plain(&key.value.name()),
        default: plain(key.default),
        since: key.since.to_string(),
        kinds: (key.kinds != Kinds::ALL).then(|| key.kinds.names().collect()),
        meaning: plain(&key.meaning()),
        keys: key.value.keys().map(entries).unwrap_or_default(),
    };
    keys.iter().map(entry).collect()
}
