//! JSON as it is written: a value and its text. Nothing here reads any.

use std::fmt::{self, Write};

/// A value. Members of objects keep their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// Finite numbers only; others become `null`, as JSON has none.
    Number(f64),
    /// A text; names of files are to be escaped before, see [`crate::report::escape`].
    Text(String),
    /// `[…]`
    List(Vec<Json>),
    /// `{…}`
    Object(Vec<(&'static str, Json)>),
}

/// An object of these members.
pub fn object(members: impl IntoIterator<Item = (&'static str, Json)>) -> Json {
    Json::Object(members.into_iter().collect())
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "{value}"),
            Json::Number(value) if value.is_finite() => write!(f, "{value}"),
            Json::Number(_) => f.write_str("null"),
            Json::Text(text) => quoted(f, text),
            Json::List(values) => {
                f.write_char('[')?;
                for (index, value) in values.iter().enumerate() {
                    comma(f, index)?;
                    write!(f, "{value}")?;
                }
                f.write_char(']')
            }
            Json::Object(members) => {
                f.write_char('{')?;
                for (index, (name, value)) in members.iter().enumerate() {
                    comma(f, index)?;
                    quoted(f, name)?;
                    write!(f, ":{value}")?;
                }
                f.write_char('}')
            }
        }
    }
}

fn comma(f: &mut fmt::Formatter<'_>, index: usize) -> fmt::Result {
    if index > 0 { f.write_char(',') } else { Ok(()) }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\0'..='\x1f' => write!(f, "\\u{:04x}", u32::from(character))?,
            _ => f.write_char(character)?,
        }
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let value = object([
            (
                "a",
                Json::List(vec![Json::Number(1.0), Json::Number(0.5), Json::Null]),
            ),
            ("b", Json::Text("\"\\\n\u{1}ä".into())),
            ("c", Json::Bool(true)),
            ("d", Json::Number(f64::NAN)),
            ("e", Json::List(Vec::new())),
        ]);
        assert_eq!(
            value.to_string(),
            r#"{"a":[1,0.5,null],"b":"\"\\\n\u0001ä","c":true,"d":null,"e":[]}"#
        );
    }
}
