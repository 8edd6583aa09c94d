//! A scanner command of a `check`: its call and its exit codes.

use std::time::Duration;

use mlua::{Result, Table, Value};

use super::refused::wrong;
use crate::config::{number_of, text_of, truthy};

/// A scanner command.
#[derive(Clone, Debug, PartialEq)]
pub struct Scanner {
    /// Program and arguments.
    pub words: Vec<Vec<u8>>,
    /// Names are written to its standard input.
    pub stdin: bool,
    /// The exit codes of passed files.
    pub ok: Vec<i32>,
    /// The exit codes of rejected files.
    pub reject: Vec<i32>,
    /// The time limit of one call.
    pub timeout: Duration,
    /// The maximum number of concurrent calls.
    pub parallel: usize,
}

impl Scanner {
    /// Reads the keys of a scanner.
    ///
    /// # Errors
    ///
    /// An invalid value.
    pub fn from_table(table: &Table) -> Result<Scanner> {
        let number = |key: &str, default: f64, least: f64| -> Result<f64> {
            match table.get::<Value>(key)? {
                Value::Nil => Ok(default),
                value => number_of(&value)
                    .filter(|number| (least..=1e9).contains(number))
                    .ok_or_else(|| {
                        wrong(
                            key,
                            format!("check.{key} must be a number, {least} or more"),
                        )
                    }),
            }
        };
        let scanner = Scanner {
            words: words(&table.get("command")?)?,
            stdin: truthy(&table.get("stdin")?),
            ok: codes(table, "ok", 0)?,
            reject: codes(table, "reject", 1)?,
            timeout: Duration::from_secs_f64(number("timeout", 60.0, 0.1)?),
            parallel: number("parallel", 2.0, 1.0)? as usize,
        };
        match scanner.ok.iter().find(|code| scanner.reject.contains(code)) {
            Some(code) => Err(wrong(
                "reject",
                format!("exit code {code} cannot be both ok and reject"),
            )),
            None => Ok(scanner),
        }
    }
}

fn words(value: &Value) -> Result<Vec<Vec<u8>>> {
    let text = "check.command must be a list of a program and its arguments";
    let Value::Table(list) = value else {
        return Err(wrong("command", text));
    };
    let words: Option<Vec<_>> = list
        .sequence_values::<Value>()
        .map(|word| text_of(&word.ok()?))
        .collect();
    match words {
        Some(words) if words.first().is_some_and(|program| !program.is_empty()) => Ok(words),
        _ => Err(wrong("command", text)),
    }
}

fn codes(table: &Table, key: &str, default: i32) -> Result<Vec<i32>> {
    let text = || {
        wrong(
            key,
            format!("check.{key} must be a list of exit codes, 0 to 255"),
        )
    };
    let code = |value: &Value| {
        number_of(value)
            .filter(|code| (0.0..=255.0).contains(code) && code.fract() == 0.0)
            .map(|code| code as i32)
            .ok_or_else(text)
    };
    match table.get::<Value>(key)? {
        Value::Nil => Ok(vec![default]),
        Value::Table(list) => list
            .sequence_values::<Value>()
            .map(|value| code(&value?))
            .collect(),
        value => Ok(vec![code(&value)?]),
    }
}
