//! The text of the configuration that `-init` writes.

use std::fmt::Write;

use super::answers::{Answers, Destination};
use crate::log::is_control;

/// Returns the configuration. Names stand in Lua strings only, never in comments.
pub fn configuration(answers: &Answers) -> String {
    let mut text = String::from(
        "\
-- Configuration of lsyncd, written by lsyncd -init. The manual: man lsyncd.conf.lua
-- After a change: lsyncd -check CONFIG, then systemctl reload lsyncd.

settings {
    insist = true,              -- retry if the target is down at the start
",
    );
    match &answers.logfile {
        Some(file) => push(&mut text, "logfile", &string(file), "the log"),
        None => text.push_str("    -- logfile = \"/var/log/lsyncd/lsyncd.log\",\n"),
    }
    text.push_str("    -- statusFile = \"/var/log/lsyncd/lsyncd.status\",\n}\n\nsync {\n");
    let kind = match answers.destination {
        Destination::Plain(_) => "    default.rsync,\n",
        Destination::Shell { .. } => {
            "    default.rsyncssh,           -- renames are done on the target over ssh\n"
        }
    };
    text.push_str(kind);
    push(&mut text, "source", &string(&answers.source), "");
    match &answers.destination {
        Destination::Plain(target) => push(&mut text, "target", &string(target), ""),
        Destination::Shell { host, directory } => {
            push(&mut text, "host", &string(host), "");
            push(&mut text, "targetdir", &string(directory), "");
        }
    }
    let delay = answers.delay.to_string();
    push(&mut text, "delay", &delay, "seconds that changes wait");
    let note = "files on the target that are not in the source";
    push(&mut text, "delete", &answers.delete.to_string(), note);
    text.push_str("    -- exclude = { \"*.tmp\", \"/cache/\" },\n");
    text.push_str(
        "    rsync = {\n        archive = true,         -- modes, owners, times, links\n",
    );
    let is_remote = matches!(answers.destination, Destination::Shell { .. });
    text.push_str(match is_remote {
        true => "        compress = true,\n    },\n",
        false => "    },\n",
    });
    if is_remote && !answers.ssh_words.is_empty() {
        let words: Vec<String> = answers.ssh_words.iter().map(|word| string(word)).collect();
        let _ = writeln!(text, "    ssh = {{ _extra = {{ {} }} }},", words.join(", "));
    }
    text.push_str("}\n");
    text
}

/// Appends the line of a key.
fn push(text: &mut String, key: &str, value: &str, note: &str) {
    let line = format!("    {key} = {value},");
    let _ = match note {
        "" => writeln!(text, "{line}"),
        note => writeln!(text, "{line:<31} -- {note}"),
    };
}

/// Returns a Lua string of these bytes. Text stays readable; control characters and bytes that are
/// no UTF-8 are written as `\ddd`.
fn string(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => text.extend(['\\', character]),
                c if is_control(c) => push_bytes(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => text.push(c),
            }
        }
        push_bytes(&mut text, chunk.invalid());
    }
    text.push('"');
    text
}

fn push_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "\\{byte:03}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lua_reads_the_bytes_of_a_string(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let lua = mlua::Lua::new();
            let text = string(&bytes);
            prop_assert!(!text.contains('\n'));
            let value: mlua::LuaString = lua.load(format!("return {text}")).eval().unwrap();
            prop_assert_eq!(value.as_bytes().to_vec(), bytes);
        }
    }

    #[test]
    fn strings_stay_readable() {
        assert_eq!(
            string("/données/\"a\\b\"".as_bytes()),
            r#""/données/\"a\\b\"""#
        );
        assert_eq!(string(b"a\n1\xff\x1b"), r#""a\0101\255\027""#);
    }
}
