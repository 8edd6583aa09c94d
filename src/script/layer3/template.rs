//! Parser of layer 3 texts: the words of a program or a command for the shell, with variables.
//!
//! File names are never part of a shell text: the values of variables are passed as arguments.

use crate::log;

/// The variables: name after the `^`, field of the event, and true if it refers to the second
/// event, the destination of a move. The shell form numbers its arguments in this order.
pub(super) const VARIABLES: [(&str, &str, bool); 27] = [
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
pub(super) type Variable = usize;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Text(Vec<u8>),
    Variable(Variable),
}

/// A parsed text.
#[derive(Debug)]
pub(super) struct Template {
    /// The text without surrounding blanks.
    pub(super) text: Vec<u8>,
    pub(super) form: Form,
}

#[derive(Debug)]
pub(super) enum Form {
    /// A program and its arguments, run without a shell.
    Binary(Vec<Vec<Piece>>),
    /// A command for `sh -c`.
    Shell {
        /// The command for the shell, with `"$1"` for the first variable.
        command: Vec<u8>,
        /// The command as written, for the log.
        pieces: Vec<Piece>,
        /// The variables for `"$1"`, `"$2"` and so on.
        variables: Vec<Variable>,
    },
}

impl Template {
    pub(super) fn parse(text: &[u8]) -> Template {
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

    /// Checks that the variables exist for events of this kind in this sync.
    pub(super) fn check(&self, key: &str, has_target: bool) -> std::result::Result<(), String> {
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

    pub(super) fn describe(&self, key: &str) -> String {
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
                    // A shell reads "$10" as "$1" followed by a zero.
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

/// Returns words of the configuration for the log. Unlike file names they keep their newlines.
pub(super) fn written(text: &[u8]) -> String {
    let lines: Vec<_> = text.split(|&byte| byte == b'\n').map(log::escape).collect();
    lines.join("\n")
}

/// Returns the text of a word.
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

/// Removes the characters that match Lua's `%s` from both ends.
fn trim(text: &[u8]) -> &[u8] {
    let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let start = text.iter().position(|b| !blank(b)).unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|b| !blank(b))
        .map_or(start, |at| at + 1);
    &text[start..end]
}

/// Splits at blanks, except within double quotes, which stay part of the word.
pub fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    text.split(move |&byte| {
        quoted ^= byte == b'"';
        byte == b' ' && !quoted
    })
    .filter(|word| !word.is_empty())
}

/// Splits a text into variables and plain text. The longest variable name wins.
fn pieces(text: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut plain = Vec::new();
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let found = VARIABLES
            .iter()
            .enumerate()
            .filter(|(_, (name, ..))| first == b'^' && tail.starts_with(name.as_bytes()))
            .max_by_key(|(_, (name, ..))| name.len());
        match found {
            Some((variable, (name, ..))) => {
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(Piece::Variable(variable));
                rest = &tail[name.len()..];
            }
            None => {
                plain.push(first);
                rest = tail;
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

    /// Returns the words, with variables in braces.
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
    fn impossible_templates_are_refused() {
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
        /// The pieces of any text together are the text.
        #[test]
        fn nothing_is_lost(text in "(\\^|o\\.|d\\.|path|name|dir|source|target|Path| |x){0,12}") {
            prop_assert_eq!(unparsed(&pieces(text.as_bytes())), text.into_bytes());
        }

        /// The result equals replacing each name in the fixed order.
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
