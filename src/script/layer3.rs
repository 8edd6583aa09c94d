//! Layer 3: actions written as texts, such as `onCreate = "cp ^sourcePathname /backup/"`.
//!
//! A text is parsed once, when its sync is made, into words and variables. No Lua and no
//! shell text is made from a name: the values of variables are always arguments of their own
//! or parts of one.

use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Result, Table, Value};

use super::event::Objects;
use super::host::{Host, Member};
use super::spawn;
use crate::config::{complaint, complaint_about, kind_of, text_of};
use crate::report;

/// The keys of a sync that may be texts.
pub const KEYS: [&str; 7] = [
    "onAttrib",
    "onCreate",
    "onDelete",
    "onModify",
    "onMove",
    "onStartup",
    "onFull",
];

/// What a text may ask for: its name behind the `^`, the event's field, and whether it is
/// about the second event, the destination of a move. The shell form numbers its arguments in
/// this order.
const VARIABLES: [(&str, &str, bool); 27] = [
    ("pathname", "pathname", false),
    ("pathdir", "pathdir", false),
    ("path", "path", false),
    ("sourcePathname", "sourcePathname", false),
    ("sourcePathdir", "sourcePathdir", false),
    ("sourcePath", "sourcePath", false),
    ("source", "source", false),
    ("targetPathname", "targetPathname", false),
    ("targetPathdir", "targetPathdir", false),
    ("targetPath", "targetPath", false),
    ("target", "target", false),
    ("o.pathname", "pathname", false),
    ("o.path", "path", false),
    ("o.sourcePathname", "sourcePathname", false),
    ("o.sourcePathdir", "sourcePathdir", false),
    ("o.sourcePath", "sourcePath", false),
    ("o.targetPathname", "targetPathname", false),
    ("o.targetPathdir", "targetPathdir", false),
    ("o.targetPath", "targetPath", false),
    ("d.pathname", "pathname", true),
    ("d.path", "path", true),
    ("d.sourcePathname", "sourcePathname", true),
    ("d.sourcePathdir", "sourcePathdir", true),
    ("d.sourcePath", "sourcePath", true),
    ("d.targetPathname", "targetPathname", true),
    ("d.targetPathdir", "targetPathdir", true),
    ("d.targetPath", "targetPath", true),
];

/// Index into [`VARIABLES`].
type Variable = usize;

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(Vec<u8>),
    Variable(Variable),
}

/// A text that was understood.
#[derive(Debug)]
struct Template {
    /// As written, without the blanks around it.
    text: Vec<u8>,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// A program and its arguments, run without a shell.
    Binary(Vec<Vec<Piece>>),
    /// A command for `sh -c`.
    Shell {
        /// The command as the shell gets it, with `"$1"` for the first variable.
        command: Vec<u8>,
        /// The command as written, for the log.
        pieces: Vec<Piece>,
        /// What `"$1"`, `"$2"` … are.
        variables: Vec<Variable>,
    },
}

/// Checks the texts of a sync, so that what is wrong with one is told when the configuration
/// is loaded, and its other actions.
///
/// # Errors
/// A value that is no action, or a text that asks for what the sync does not have.
pub fn check(config: &Table) -> Result<()> {
    let has_target = text_of(&config.get("target")?).is_some();
    for key in KEYS {
        match config.get(key)? {
            Value::Nil | Value::Boolean(_) | Value::Function(_) => {}
            Value::String(text) => Template::parse(&text.as_bytes())
                .check(key, has_target)
                .map_err(|problem| complaint_about(key, problem))?,
            other => {
                return Err(complaint_about(
                    key,
                    format!(
                        "{key} must be a function or a text, not {}.",
                        kind_of(&other)
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Puts functions in the place of a sync's texts. `public` makes a function's errors fit for
/// user code.
///
/// # Errors
/// As [`check`]: the configuration may have been changed since.
pub fn install(
    lua: &Lua,
    host: &Rc<Host>,
    objects: &Objects,
    member: &Member,
    public: &Function,
) -> Result<()> {
    check(&member.config)?;
    for key in KEYS {
        let Value::String(text) = member.config.get(key)? else {
            continue;
        };
        let template = Template::parse(&text.as_bytes());
        if report::enabled("FWrite") {
            report::say("FWrite", template.describe(key));
        }
        let (h, with) = (Rc::clone(host), objects.clone());
        let run = lua.create_function(move |lua, (event, event2): (Table, Option<Table>)| {
            template.run(lua, &h, &with, &event, event2.as_ref())
        })?;
        member.config.set(key, public.call::<Function>(run)?)?;
    }
    Ok(())
}

impl Template {
    fn parse(text: &[u8]) -> Template {
        let text = trim(text);
        let form = match text.first() {
            Some(b'/') => Form::Binary(words(text).map(pieces).collect()),
            Some(b'^') => Form::shell(&text[1..]),
            _ => Form::shell(text),
        };
        Template {
            text: text.to_vec(),
            form,
        }
    }

    /// What the text asks for has to exist for events of this kind in this sync.
    fn check(&self, key: &str, has_target: bool) -> std::result::Result<(), String> {
        if self.text.contains(&0) {
            return Err(format!("{key} contains a NUL byte."));
        }
        let alone = |word: &[Piece]| word.len() == 1;
        let used: Vec<(Variable, bool)> = match &self.form {
            Form::Shell { variables, .. } => variables.iter().map(|&v| (v, false)).collect(),
            Form::Binary(words) => words
                .iter()
                .flat_map(|word| word.iter().map(move |piece| (piece, alone(word))))
                .filter_map(|(piece, alone)| match piece {
                    Piece::Variable(variable) => Some((*variable, alone)),
                    Piece::Text(_) => None,
                })
                .collect(),
        };
        for (variable, alone) in used {
            let (name, field, destination) = VARIABLES[variable];
            if destination && key != "onMove" {
                return Err(format!(
                    "{key} uses ^{name}, but only a move (onMove) has a destination."
                ));
            }
            let dispensable = alone && field == "target";
            if field.starts_with("target") && !has_target && !dispensable {
                return Err(format!("{key} uses ^{name}, but the sync has no target."));
            }
        }
        Ok(())
    }

    fn describe(&self, key: &str) -> String {
        let named = |variables: &[Variable]| -> String {
            let names = variables.iter().map(|&v| format!(" [^{}]", VARIABLES[v].0));
            names.collect()
        };
        let to = match &self.form {
            Form::Binary(words) => words
                .iter()
                .map(|word| format!(" [{}]", written(&unparsed(word))))
                .collect(),
            Form::Shell {
                command, variables, ..
            } => format!(" [sh] [-c] [{}] [sh]{}", written(command), named(variables)),
        };
        format!("{key}: translated \"{}\" to{to}", written(&self.text))
    }

    fn run(
        &self,
        lua: &Lua,
        host: &Rc<Host>,
        objects: &Objects,
        event: &Table,
        event2: Option<&Table>,
    ) -> Result<()> {
        let values = Values { event, event2 };
        let etype = text_of(&event.get("etype")?).unwrap_or_default();
        let etype = report::escape(&etype).into_owned();
        let mut arguments = MultiValue::new();
        arguments.push_back(Value::Table(event.clone()));
        match &self.form {
            Form::Binary(words) => {
                report::normal(format_args!(
                    "Event {etype} spawns action \"{}\"",
                    written(&self.text)
                ));
                for word in words {
                    if let Some(word) = values.word(word)? {
                        arguments.push_back(Value::String(lua.create_string(word)?));
                    }
                }
            }
            Form::Shell {
                command,
                pieces,
                variables,
            } => {
                let shown = values.shown(pieces)?;
                report::normal(format_args!("Event {etype} spawns shell \"{shown}\""));
                for word in ["sh".as_bytes(), b"-c", command, b"sh"] {
                    arguments.push_back(Value::String(lua.create_string(word)?));
                }
                for &variable in variables {
                    let value = values.needed(variable)?;
                    arguments.push_back(Value::String(lua.create_string(value)?));
                }
            }
        }
        spawn::spawn(host, objects, false, arguments)
    }
}

impl Form {
    fn shell(text: &[u8]) -> Form {
        let pieces = pieces(text);
        let mut variables: Vec<Variable> = pieces
            .iter()
            .filter_map(|piece| match piece {
                Piece::Variable(variable) => Some(*variable),
                Piece::Text(_) => None,
            })
            .collect();
        variables.sort_unstable();
        variables.dedup();
        let mut command = Vec::new();
        for piece in &pieces {
            match piece {
                Piece::Text(text) => command.extend_from_slice(text),
                Piece::Variable(variable) => {
                    let number = variables.partition_point(|v| v < variable) + 1;
                    // A shell reads "$10" as "$1" and a zero.
                    command.extend(match number {
                        0..=9 => format!("\"${number}\"").into_bytes(),
                        _ => format!("\"${{{number}}}\"").into_bytes(),
                    });
                }
            }
        }
        Form::Shell {
            command,
            pieces,
            variables,
        }
    }
}

/// What the variables are for one event.
struct Values<'a> {
    event: &'a Table,
    event2: Option<&'a Table>,
}

impl Values<'_> {
    fn value(&self, variable: Variable) -> Result<Option<Vec<u8>>> {
        let (name, field, destination) = VARIABLES[variable];
        let event = match (destination, self.event2) {
            (false, _) => self.event,
            (true, Some(event2)) => event2,
            (true, None) => return Err(complaint(format!("^{name}: the event is no move"))),
        };
        Ok(text_of(&event.get(field)?))
    }

    fn needed(&self, variable: Variable) -> Result<Vec<u8>> {
        let name = VARIABLES[variable].0;
        self.value(variable)?
            .ok_or_else(|| complaint(format!("^{name} has no value: the sync has no target")))
    }

    /// A command with its values, for the log.
    fn shown(&self, pieces: &[Piece]) -> Result<String> {
        let mut shown = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => shown.push_str(&written(text)),
                Piece::Variable(variable) => {
                    shown.push_str(&report::escape(&self.needed(*variable)?));
                }
            }
        }
        Ok(shown)
    }

    /// One word; `None` when it is nothing but a variable that has no value.
    fn word(&self, pieces: &[Piece]) -> Result<Option<Vec<u8>>> {
        if let [Piece::Variable(variable)] = pieces {
            return self.value(*variable);
        }
        let mut word = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => word.extend_from_slice(text),
                Piece::Variable(variable) => word.extend(self.needed(*variable)?),
            }
        }
        Ok(Some(word))
    }
}

/// Words of the configuration for the log: they keep their newlines, unlike names of files.
fn written(text: &[u8]) -> String {
    let lines: Vec<_> = text
        .split(|&byte| byte == b'\n')
        .map(report::escape)
        .collect();
    lines.join("\n")
}

/// The text a word was made of.
fn unparsed(pieces: &[Piece]) -> Vec<u8> {
    let mut text = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(plain) => text.extend_from_slice(plain),
            Piece::Variable(variable) => {
                text.push(b'^');
                text.extend_from_slice(VARIABLES[*variable].0.as_bytes());
            }
        }
    }
    text
}

/// Without what Lua's `%s` matches at both ends.
fn trim(text: &[u8]) -> &[u8] {
    let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let start = text.iter().position(|b| !blank(b)).unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|b| !blank(b))
        .map_or(start, |at| at + 1);
    &text[start..end]
}

/// Splits at blanks, but not between double quotes, which stay part of their word.
pub fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    text.split(move |&byte| {
        quoted ^= byte == b'"';
        byte == b' ' && !quoted
    })
    .filter(|word| !word.is_empty())
}

/// Finds the variables in a text, the longest name first. What looks like one and is none is
/// plain text.
fn pieces(text: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut plain = Vec::new();
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        let found = VARIABLES
            .iter()
            .enumerate()
            .filter(|(_, (name, ..))| first == b'^' && behind.starts_with(name.as_bytes()))
            .max_by_key(|(_, (name, ..))| name.len());
        match found {
            Some((variable, (name, ..))) => {
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(Piece::Variable(variable));
                rest = &behind[name.len()..];
            }
            None => {
                plain.push(first);
                rest = behind;
            }
        }
    }
    if !plain.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shell(text: &str) -> (String, Vec<&'static str>) {
        match Template::parse(text.as_bytes()).form {
            Form::Shell {
                command, variables, ..
            } => (
                String::from_utf8(command).unwrap(),
                variables.iter().map(|&v| VARIABLES[v].0).collect(),
            ),
            Form::Binary(_) => panic!("{text:?} is no shell command"),
        }
    }

    /// Words with variables in braces.
    fn binary(text: &str) -> Vec<String> {
        let Form::Binary(words) = Template::parse(text.as_bytes()).form else {
            panic!("{text:?} is no program");
        };
        let shown = |piece: &Piece| match piece {
            Piece::Text(text) => String::from_utf8(text.clone()).unwrap(),
            Piece::Variable(variable) => format!("{{{}}}", VARIABLES[*variable].0),
        };
        words
            .iter()
            .map(|word| word.iter().map(shown).collect())
            .collect()
    }

    #[test]
    fn shell_arguments_are_numbered_in_a_fixed_order() {
        assert_eq!(
            shell("echo ^target ^path ^path"),
            (
                "echo \"$2\" \"$1\" \"$1\"".to_owned(),
                vec!["path", "target"]
            )
        );
        assert_eq!(shell("mv ^o.path ^d.path").1, ["o.path", "d.path"]);
    }

    #[test]
    fn ten_variables_and_more() {
        let all = "echo ^path ^pathname ^pathdir ^source ^sourcePath ^sourcePathname ^sourcePathdir \
                   ^target ^targetPath ^targetPathname ^targetPathdir";
        let (command, variables) = shell(all);
        assert_eq!(variables.len(), 11);
        assert!(command.contains("\"$9\" ") || command.ends_with("\"$9\""));
        assert!(command.contains("\"${10}\"") && command.contains("\"${11}\""));
    }

    #[test]
    fn the_longest_name_counts_and_what_is_none_stays() {
        assert_eq!(shell("x ^sourcefoo ^o.pathdir").0, "x \"$1\"foo \"$2\"dir");
        assert_eq!(shell("x ^nothing ^ ^^path").0, "x ^nothing ^ ^\"$1\"");
        assert_eq!(shell("^echo ^path").0, "echo \"$1\"");
        assert_eq!(shell("if [[ -f ^path ]]; then 'a\\q'; fi").1, ["path"]);
    }

    #[test]
    fn programs_are_split_at_blanks_and_keep_quotes() {
        assert_eq!(
            binary("  /bin/x  a^path.bak \"b c\" ^path^path \t\n"),
            ["/bin/x", "a{path}.bak", "\"b c\"", "{path}{path}"]
        );
        assert_eq!(binary("/bin/x \"a b"), ["/bin/x", "\"a b"]);
        assert_eq!(
            binary("/bin/x it's ]] \\q a\tb"),
            ["/bin/x", "it's", "]]", "\\q", "a\tb"]
        );
    }

    #[test]
    fn what_cannot_be_is_told() {
        let problem = |text: &str, key, target| {
            Template::parse(text.as_bytes())
                .check(key, target)
                .err()
                .unwrap_or_default()
        };
        assert_eq!(problem("/bin/x ^target", "onCreate", false), "");
        assert!(problem("/bin/x a^target", "onCreate", false).contains("no target"));
        assert!(problem("x ^target", "onCreate", false).contains("^target,"));
        assert!(problem("x ^targetPath", "onCreate", false).contains("^targetPath,"));
        assert_eq!(problem("x ^targetPath", "onCreate", true), "");
        assert!(problem("x ^d.path", "onCreate", true).contains("onMove"));
        assert_eq!(problem("x ^d.path", "onMove", true), "");
        assert!(problem("x \0", "onMove", true).contains("NUL"));
    }

    proptest! {
        /// Whatever is written, the pieces put together are what was written.
        #[test]
        fn nothing_is_lost(text in "(\\^|o\\.|d\\.|path|name|dir|source|target|Path| |x){0,12}") {
            prop_assert_eq!(unparsed(&pieces(text.as_bytes())), text.into_bytes());
        }

        /// The same as replacing each name in the fixed order, as a shell text has it.
        #[test]
        fn as_by_replacement(text in "x(\\^|o\\.|d\\.|path|name|dir|source|target|Path| ){0,12}") {
            let text = text.trim().to_owned();
            let (command, used) = shell(&text);
            let mut naive = text;
            for (name, ..) in VARIABLES {
                if let Some(at) = used.iter().position(|used| *used == name) {
                    let number = match at + 1 {
                        number @ ..=9 => format!("\"${number}\""),
                        number => format!("\"${{{number}}}\""),
                    };
                    naive = naive.replace(&format!("^{name}"), &number);
                } else {
                    let sought = format!("^{}", name);
                    prop_assert!(!naive.contains(&sought));
                }
            }
            prop_assert_eq!(command, naive);
        }
    }
}
