//! `nice` and `ionice`: CPU and I/O priority of transfers, in settings or in a sync.

use mlua::{Result, Value};

use super::config_error::config_error_about;
use super::{number_of, text_of, truthy};
use crate::process::{IoPriority, Priority};

/// Reads the values of the two keys.
///
/// # Errors
///
/// An invalid priority.
pub fn priority(nice: &Value, ionice: &Value) -> Result<Priority> {
    Ok(Priority {
        nice: read_nice(nice)?,
        io: read_ionice(ionice)?,
    })
}

fn read_nice(value: &Value) -> Result<Option<i32>> {
    if !truthy(value) {
        return Ok(None);
    }
    match number_of(value) {
        Some(number) if (-20.0..=19.0).contains(&number) && number.fract() == 0.0 => {
            Ok(Some(number as i32))
        }
        _ => Err(config_error_about(
            "nice",
            "nice must be a whole number from -20 to 19.",
        )),
    }
}

/// Reads `"idle"`, `"best-effort"`, `"best-effort:7"` or `"realtime:0"`. A number is a level of
/// best-effort.
fn read_ionice(value: &Value) -> Result<Option<IoPriority>> {
    if !truthy(value) {
        return Ok(None);
    }
    let wrong = || {
        let text = "ionice must be \"idle\", \"best-effort:LEVEL\" or \"realtime:LEVEL\", \
                    with a level from 0 to 7.";
        config_error_about("ionice", text)
    };
    let text = text_of(value).ok_or_else(wrong)?;
    let text = String::from_utf8_lossy(&text);
    let (class, level) = text.split_once(':').unwrap_or((&text, "4"));
    let parsed = |level: &str| match level.parse() {
        Ok(level @ 0..=7) => Ok(level),
        _ => Err(wrong()),
    };
    Ok(Some(match class {
        "idle" if !text.contains(':') => IoPriority::Idle,
        "best-effort" => IoPriority::BestEffort(parsed(level)?),
        "realtime" => IoPriority::Realtime(parsed(level)?),
        number => IoPriority::BestEffort(parsed(number)?),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(nice: &str, ionice: &str) -> std::result::Result<Priority, String> {
        let lua = crate::sys::lua();
        let value = |text: &str| lua.load(text).eval::<Value>().unwrap();
        priority(&value(nice), &value(ionice)).map_err(|error| error.to_string())
    }

    #[test]
    fn priorities_are_read() {
        assert_eq!(read("nil", "false"), Ok(Priority::default()));
        assert_eq!(read("'10'", "nil").unwrap().nice, Some(10));
        let io = |text| read("nil", text).unwrap().io;
        assert_eq!(io("'idle'"), Some(IoPriority::Idle));
        assert_eq!(io("'best-effort'"), Some(IoPriority::BestEffort(4)));
        assert_eq!(io("'realtime:0'"), Some(IoPriority::Realtime(0)));
        assert_eq!(io("7"), Some(IoPriority::BestEffort(7)));
        assert_eq!(IoPriority::BestEffort(7).number(), 0x4007);
    }

    #[test]
    fn what_is_none_is_told() {
        for (nice, ionice) in [("20", "nil"), ("1.5", "nil"), ("{}", "nil")] {
            assert!(read(nice, ionice).unwrap_err().contains("nice must be"));
        }
        for ionice in ["'idle:1'", "'best-effort:8'", "'slow'", "8", "{}"] {
            assert!(read("nil", ionice).unwrap_err().contains("ionice must be"));
        }
    }
}
