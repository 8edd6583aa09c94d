//! Splits a text of `ssh._extra` that contains several options into words, as lsyncd's `--rsh=`
//! does.

/// Options of ssh(1) without and with a value.
const SWITCHES: &[u8] = b"1246AaCfGgKkMNnqsTtVvXxYy";
const WITH_VALUE: &[u8] = b"BbcDEeFIiJLlmOoPpQRSWw";

/// Returns the words of a text: those between blanks if all of them are options of ssh and their
/// values, else the text as one word.
pub fn split(text: &[u8]) -> Vec<Vec<u8>> {
    let parts = text.split(|&byte| byte == b' ');
    let parts: Vec<&[u8]> = parts.filter(|part| !part.is_empty()).collect();
    if are_options(&parts) {
        parts.into_iter().map(<[u8]>::to_vec).collect()
    } else {
        vec![text.to_vec()]
    }
}

fn are_options(parts: &[&[u8]]) -> bool {
    let mut parts = parts.iter();
    let mut count = 0;
    while let Some(part) = parts.next() {
        let [b'-', letters @ ..] = part else {
            return false;
        };
        let switches = letters
            .iter()
            .take_while(|letter| SWITCHES.contains(letter));
        let value = match &letters[switches.count()..] {
            [] if letters.is_empty() => return false,
            [] => &b""[..],
            [letter, value @ ..] if WITH_VALUE.contains(letter) && !value.is_empty() => value,
            [letter] if WITH_VALUE.contains(letter) => match parts.next() {
                Some(value) => value,
                None => return false,
            },
            _ => return false,
        };
        // A command may contain blanks.
        if is_command(value) {
            return count == 0 && parts.len() == 0;
        }
        count += 1;
    }
    count > 0
}

/// Returns true for an option of ssh_config(5) whose value is a command.
fn is_command(option: &[u8]) -> bool {
    let name = option.split(|&byte| byte == b'=').next();
    name.is_some_and(|name| name.to_ascii_lowercase().ends_with(b"command"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_options_in_one_text_are_several_words() {
        for (text, words) in [
            ("-i /key -p 22", &["-i", "/key", "-p", "22"][..]),
            ("-p 22", &["-p", "22"]),
            ("-4 -v  -o A=b", &["-4", "-v", "-o", "A=b"]),
            ("-4vp 22", &["-4vp", "22"]),
            ("-o ProxyCommand=x", &["-o", "ProxyCommand=x"]),
            ("-4", &["-4"]),
        ] {
            assert_eq!(
                split(text.as_bytes()),
                words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_value_with_blanks_stays_whole() {
        for text in [
            "-o ProxyCommand=ssh -W %h:%p jump",
            "-oProxyCommand=nc -x p %h %p",
            "-o ProxyCommand=ssh -q -p 22",
            "-4 -o proxycommand=ssh -q",
            "/my key",
            "A=b c",
            "-i /my key",
            "-Z x",
            "-p",
            "-",
            "",
        ] {
            assert_eq!(split(text.as_bytes()), [text.as_bytes()], "{text}");
        }
    }
}
