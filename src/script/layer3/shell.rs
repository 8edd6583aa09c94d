//! Finds the program that a command for `sh` runs first.

/// Built-in commands and reserved words of shells.
const SHELL_WORDS: &str = "\
    . : [ alias bg bind break builtin caller case cd command compgen complete continue coproc \
    declare dirs disown do done echo elif else enable esac eval exec exit export false fc fg fi \
    for function getopts hash help history if in jobs kill let local logout mapfile popd printf \
    pushd pwd read readarray readonly return select set shift shopt source suspend test then time \
    times trap true type typeset ulimit umask unalias unset until wait while";

/// Returns the first word of a command if the shell certainly runs it as a program: it has plain
/// characters only, and it is neither a shell word nor an assignment.
pub fn program(command: &[u8]) -> Option<Vec<u8>> {
    let command = command.trim_ascii_start();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_./+-".contains(byte);
    let length = command.iter().take_while(|byte| is_plain(byte)).count();
    let (word, rest) = command.split_at(length);
    let ends = rest.first().is_none_or(|byte| b" \t\n;&|<>".contains(byte));
    let defines_function = rest.trim_ascii_start().starts_with(b"(");
    let is_shell_word = SHELL_WORDS
        .split_ascii_whitespace()
        .any(|shell_word| shell_word.as_bytes() == word);
    let is_number = word.iter().all(u8::is_ascii_digit);
    (ends && !defines_function && !is_shell_word && !is_number).then(|| word.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_programs_and_skips_shell_words() {
        for (command, expected) in [
            ("cp -p \"$1\" \"$2\" || true", "cp"),
            ("  /usr/bin/x\ty", "/usr/bin/x"),
            ("logger;true", "logger"),
            ("my-tool>/dev/null", "my-tool"),
            ("../x", "../x"),
        ] {
            assert_eq!(
                program(command.as_bytes()).as_deref(),
                Some(expected.as_bytes())
            );
        }
        for command in [
            "",
            "echo x",
            "[ -e x ] && cp",
            "if true; then x; fi",
            "X=5 cp",
            "$TOOL x",
            "(cp a b)",
            "\"$1\" x",
            "{ cp; }",
            "f() { x; }; f",
            "f () { x; }",
            "# cp",
            "2>x cp",
            "! cp",
            "~/x",
            "cp\\ x",
            "a*b",
        ] {
            assert_eq!(program(command.as_bytes()), None, "{command}");
        }
    }
}
