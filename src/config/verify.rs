//! `verify = { … }`: comparisons of source and target at given times.

use mlua::{Result, Table, Value};

use super::config_error::config_error_about;
use super::keys::VERIFY;
use super::settings_table::lossy;
use super::texts;
use super::{parse_number, text_of, truthy};
use crate::status::drift_report::sample_parts;

/// The comparisons of a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyConfig {
    /// The times: rules of six fields.
    pub at: Vec<String>,
    /// Contents are compared.
    pub by_content: bool,
    /// The contents of one file in this many are compared, each time of others.
    pub sample: Option<u32>,
    /// Differences are repaired.
    pub repairs: bool,
}

/// Reads the `verify` of the merged table of a sync that can be compared.
///
/// # Errors
///
/// An invalid value.
pub fn verify(config: &Table) -> Result<Option<VerifyConfig>> {
    let given = match config.get("verify")? {
        Value::Table(given) => given,
        value if !truthy(&value) => return Ok(None),
        _ => {
            let text = "verify must be a table, such as verify = { at = \"0 3 * * 0\" }.";
            return Err(config_error_about("verify", text));
        }
    };
    for key in VERIFY {
        if let Some(complaint) = key.value.complaint(&given.get(key.name)?) {
            let text = format!("verify.{} {complaint}", key.name);
            return Err(config_error_about(key.name, text));
        }
    }
    let at: Vec<_> = texts(&given, "at")?.into_iter().map(lossy).collect();
    if at.is_empty() {
        let text = "verify needs the times of comparisons, such as at = \"0 3 * * 0\".";
        return Err(config_error_about("verify", text));
    }
    let by_content = truthy(&given.get("content")?);
    let sample = sample(&given.get("sample")?)?;
    if sample.is_some() && !by_content {
        let text = "verify.sample needs content = true: without it no contents are compared.";
        return Err(config_error_about("sample", text));
    }
    Ok(Some(VerifyConfig {
        at: at.iter().map(|rule| with_seconds(rule)).collect(),
        by_content,
        sample: sample.filter(|&parts| parts > 1),
        repairs: truthy(&given.get("repair")?),
    }))
}

/// Returns a rule with six fields. One of five fields, as in crontab(5), is due at second 0.
fn with_seconds(rule: &str) -> String {
    match rule.split_whitespace().count() {
        5 => format!("0 {rule}"),
        _ => rule.to_owned(),
    }
}

/// Returns the number of parts of a sample.
fn sample(value: &Value) -> Result<Option<u32>> {
    if !truthy(value) {
        return Ok(None);
    }
    let text = text_of(value).map(lossy).unwrap_or_default();
    let percent = text.trim().strip_suffix('%').and_then(parse_number);
    percent.and_then(sample_parts).map(Some).ok_or_else(|| {
        let text = "verify.sample must be a percentage above 0 and up to 100, such as \"10%\".";
        config_error_about("sample", text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<Option<VerifyConfig>, String> {
        let lua = crate::sys::lua();
        let config: Table = lua.load(format!("{{ verify = {text} }}")).eval().unwrap();
        verify(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn comparisons_are_read() {
        assert_eq!(read("nil"), Ok(None));
        assert_eq!(read("false"), Ok(None));
        let text = "{ at = '0 3 * * 0', content = true, sample = '10%', repair = true }";
        let expected = VerifyConfig {
            at: vec!["0 0 3 * * 0".to_owned()],
            by_content: true,
            sample: Some(10),
            repairs: true,
        };
        assert_eq!(read(text), Ok(Some(expected)));
        let two = read("{ at = { '5 0 3 * * 0', '@daily' } }")
            .unwrap()
            .unwrap();
        assert_eq!(two.at, ["5 0 3 * * 0", "@daily"]);
        let all = read("{ at = '@daily', content = true, sample = '100%' }").unwrap();
        assert_eq!(all.unwrap().sample, None);
    }

    #[test]
    fn wrong_values_are_refused() {
        for (text, expected) in [
            ("true", "verify must be a table, such as"),
            ("{ content = true }", "verify needs the times"),
            ("{ at = 5 }", "verify.at must be a list of texts."),
            ("{ at = '@daily', sample = '10%' }", "needs content = true"),
            (
                "{ at = '@daily', content = true, sample = 10 }",
                "a percentage",
            ),
            (
                "{ at = '@daily', content = true, sample = '0%' }",
                "a percentage",
            ),
            (
                "{ at = '@daily', content = true, sample = '200%' }",
                "a percentage",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
