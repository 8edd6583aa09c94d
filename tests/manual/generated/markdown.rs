//! A table in Markdown.

use lsyncd::config::keys::Key;

/// Returns the rows of a table.
pub fn table(_name: &str, keys: &[&Key]) -> String {
    let mut table =
        String::from("| key | type | default | since | meaning |\n|---|---|---|---|---|\n");
    for key in keys {
        let default = match key.default {
            "" => "–",
            default => default,
        };
        table.push_str(&format!(
            "| `{}` | {} | {default} | {} | {} |\n",
            key.name,
            key.value.name(),
            key.since,
            key.meaning(),
        ));
    }
    table
}
