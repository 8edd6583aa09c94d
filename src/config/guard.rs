//! `guard = { … }`: conditions for changes of a target.
//!
//! | key | condition |
//! |---|---|
//! | `mount = true` | the source, or a directory above it other than `/`, is a mount point |
//! | `marker = ".present"` | this name exists in the source |
//! | `maxDelete = "50%"` or `1000` | no transfer deletes more of the target than that |
//!
//! `guard = false` also disables the default guards, such as the check of the source's mount.

use mlua::{Result, Table, Value};

use super::config_error::config_error_about;
use super::keys::{self, GUARD};
use super::{parse_number, text_of, truthy};

/// The delete limit of one transfer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxDelete {
    /// A number of files and directories.
    Count(u64),
    /// A percentage of the entries on the target, 0 to 100.
    Percent(f64),
}

impl MaxDelete {
    /// Returns true if deleting `count` of `total` is more than that.
    pub fn exceeded(self, count: u64, total: u64) -> bool {
        match self {
            MaxDelete::Count(most) => count > most,
            MaxDelete::Percent(most) => count > 0 && count as f64 * 100.0 > most * total as f64,
        }
    }

    /// Returns the greatest number of deletions among `total` entries that does not exceed the
    /// limit.
    pub fn most(self, total: u64) -> u64 {
        match self {
            MaxDelete::Count(most) => most,
            MaxDelete::Percent(most) => (most * total as f64 / 100.0) as u64,
        }
    }
}

/// The guard of one sync.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// True unless `guard = false`.
    pub on: bool,
    /// The source must be on a file system of its own.
    pub mount: bool,
    /// A name below the source that must exist, without a leading slash.
    pub marker: Option<Vec<u8>>,
    /// The maximum number of deletions of one transfer.
    pub max_delete: Option<MaxDelete>,
}

impl Default for Guard {
    fn default() -> Self {
        Guard {
            on: true,
            mount: false,
            marker: None,
            max_delete: None,
        }
    }
}

/// Reads the `guard` of a sync's merged table.
///
/// # Errors
///
/// An invalid key or value.
pub fn guard(config: &Table) -> Result<Guard> {
    let given = match config.get("guard")? {
        Value::Nil => return Ok(Guard::default()),
        Value::Boolean(on) => {
            return Ok(Guard {
                on,
                ..Guard::default()
            });
        }
        Value::Table(given) => given,
        other => {
            let text = format!(
                "guard must be a table or false, not a {}",
                other.type_name()
            );
            return Err(config_error_about("guard", text));
        }
    };
    for pair in given.pairs::<Value, Value>() {
        let name = text_of(&pair?.0).unwrap_or_default();
        let name = String::from_utf8_lossy(&name).into_owned();
        if let Some(text) = keys::unknown(GUARD, "guard.", &name) {
            return Err(config_error_about(&name, text));
        }
    }
    Ok(Guard {
        on: true,
        mount: truthy(&given.get("mount")?),
        marker: marker(&given.get("marker")?)?,
        max_delete: max_delete(&given.get("maxDelete")?)?,
    })
}

fn marker(value: &Value) -> Result<Option<Vec<u8>>> {
    let wrong = || {
        config_error_about(
            "marker",
            "guard.marker must be the name of a file in the source",
        )
    };
    match value {
        Value::Nil | Value::Boolean(false) => Ok(None),
        Value::String(name) => {
            let name = name.as_bytes().to_vec();
            let good = !name.is_empty() && !name.starts_with(b"/");
            good.then_some(Some(name)).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

fn max_delete(value: &Value) -> Result<Option<MaxDelete>> {
    if !truthy(value) {
        return Ok(None);
    }
    let text = text_of(value).map(|text| String::from_utf8_lossy(&text).into_owned());
    let parsed = text.and_then(|text| match text.trim().strip_suffix('%') {
        Some(part) => match parse_number(part)? {
            part if (0.0..=100.0).contains(&part) => Some(MaxDelete::Percent(part)),
            _ => None,
        },
        None => match parse_number(&text)? {
            count if count >= 0.0 => Some(MaxDelete::Count(count as u64)),
            _ => None,
        },
    });
    let wrong = "guard.maxDelete must be a number or a percentage like \"50%\"";
    parsed
        .map(Some)
        .ok_or_else(|| config_error_about("maxDelete", wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<Guard, String> {
        let lua = crate::sys::lua();
        let config: Table = lua.load(format!("{{ guard = {text} }}")).eval().unwrap();
        guard(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn guards_are_read() {
        assert_eq!(read("nil").unwrap(), Guard::default());
        assert!(!read("false").unwrap().on);
        let guard = read("{ mount = true, marker = '.here', maxDelete = '12.5%' }").unwrap();
        assert!(guard.mount);
        assert_eq!(guard.marker.unwrap(), b".here");
        assert_eq!(guard.max_delete, Some(MaxDelete::Percent(12.5)));
        let count = read("{ maxDelete = 1000 }").unwrap().max_delete;
        assert_eq!(count, Some(MaxDelete::Count(1000)));
    }

    #[test]
    fn wrong_guards_are_refused() {
        assert!(read("5").unwrap_err().contains("guard must be a table"));
        assert!(
            read("{ maxDeletes = 1 }")
                .unwrap_err()
                .contains("Did you mean \"guard.maxDelete\"?")
        );
        assert!(
            read("{ maxDelete = '120%' }")
                .unwrap_err()
                .contains("guard.maxDelete")
        );
        assert!(
            read("{ maxDelete = -1 }")
                .unwrap_err()
                .contains("guard.maxDelete")
        );
        assert!(
            read("{ marker = '/x' }")
                .unwrap_err()
                .contains("guard.marker")
        );
    }

    #[test]
    fn percentages_are_of_what_is_there() {
        let half = MaxDelete::Percent(50.0);
        assert!(!half.exceeded(5, 10) && half.exceeded(6, 10));
        assert!(!half.exceeded(0, 0) && half.exceeded(1, 0));
        for total in 0..300 {
            for limit in [half, MaxDelete::Percent(0.7), MaxDelete::Count(3)] {
                let most = limit.most(total);
                assert!(!limit.exceeded(most, total) && limit.exceeded(most + 1, total));
            }
        }
        assert!(!MaxDelete::Count(3).exceeded(3, 3) && MaxDelete::Count(3).exceeded(4, 100));
    }
}
