//! The program that a command for `sh` begins with.

/// Words that a shell does itself, and those that are no commands by themselves.
const OWN_WORDS: &str = "\
    . : [ alias bg bind break builtin caller case cd command compgen complete continue coproc \
    declare dirs disown do done echo elif else enable esac eval exec exit export false fc fg fi \
    for function getopts hash help history if in jobs kill let local logout mapfile popd printf \
    pushd pwd read readarray readonly return select set shift shopt source suspend test then time \
    times trap true type typeset ulimit umask unalias unset until wait while";

/// Returns the first word of a command if it is certain that the shell runs it as a program:
/// plain characters only, no word of the shell's own and no assignment.
pub fn program(command: &[u8]) -> Option<Vec<u8>> {
    let command = command.trim_ascii_start();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_./+-".contains(byte);
    let length = command.iter().take_while(|byte| is_plain(byte)).count();
    let (word, rest) = command.split_at(length);
    let ends = rest.first().is_none_or(|byte| b" \t\n;&|<>".contains(byte));
    let defines_function = rest.trim_ascii_start().starts_with(b"(");
    let mut own = OWN_WORDS.split_ascii_whitespace();
    let is_own = own.any(|own| own.as_bytes() == word);
    let is_number = word.iter().all(u8::is_ascii_digit);
    (ends && !defines_function && !is_own && !is_number).then(|| word.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_from_what_the_shell_does_itself() {
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
