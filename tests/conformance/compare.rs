//! Compares the outcome of a run with the expectations of its case.

use std::collections::BTreeMap;

use crate::json::Json;
use crate::world::{Call, Outcome};

/// Returns one line for each difference.
pub fn outcome(expect: &Json, outcome: &Outcome, files_only: bool) -> Vec<String> {
    let mut wrong = files(expect, &outcome.files);
    if outcome.late {
        wrong.push("the program did not end in time".into());
    }
    exit(expect, outcome, &mut wrong);
    if files_only {
        return wrong;
    }
    if let Some(wanted) = expect.get("calls").filter(|calls| **calls != Json::Null) {
        calls(expect, wanted.items(), &outcome.calls, &mut wrong);
    }
    texts(expect, outcome, &mut wrong);
    let concurrent = expect.get("max_concurrent").and_then(Json::number);
    if concurrent.is_some_and(|wanted| wanted != outcome.concurrent as f64) {
        wrong.push(format!("{} processes at once", outcome.concurrent));
    }
    if let Some(Json::Bool(wanted)) = expect.get("pidfile_exists")
        && *wanted != outcome.pidfile
    {
        wrong.push(format!("pid file is there: {}", outcome.pidfile));
    }
    wrong
}

/// Adds missing, unexpected and different files.
pub fn files(expect: &Json, files: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<String> {
    let Some(Json::Object(wanted)) = expect.get("files") else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    for (path, content) in wanted {
        let there = files.get(path.as_bytes());
        match (content, there) {
            (Json::Bool(false), Some(_)) => wrong.push(format!("{path} is there")),
            (Json::Bool(false), None) => {}
            (_, None) => wrong.push(format!("{path} is missing")),
            (Json::Text(content), Some(is)) if content != is => {
                wrong.push(format!("{path} holds {}", shown(is)));
            }
            _ => {}
        }
    }
    wrong
}

/// Returns true if a text contains this part.
pub fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

fn exit(expect: &Json, outcome: &Outcome, wrong: &mut Vec<String>) {
    let is = outcome.exit.map(f64::from);
    let right = match expect.get("exit") {
        None | Some(Json::Null) => true,
        Some(Json::List(any)) => any.iter().any(|code| code.number() == is),
        Some(code) => code.number() == is,
    };
    if !right {
        wrong.push(format!("exit code {:?}", outcome.exit));
    }
    let launcher = expect.get("launcher_exit").and_then(Json::number);
    if launcher.is_some() && launcher != outcome.launcher.map(f64::from) {
        wrong.push(format!("exit code of the launcher {:?}", outcome.launcher));
    }
}

fn texts(expect: &Json, outcome: &Outcome, wrong: &mut Vec<String>) {
    let [out, err, log, status] = &outcome.texts;
    let output = [&out[..], err].concat();
    for (name, text) in [
        ("log", &[&output[..], log].concat()),
        ("output", &output),
        ("stdout", out),
        ("stderr", err),
        ("logfile", log),
        ("status", status),
    ] {
        for part in expect.texts(&format!("{name}_contains")) {
            if !contains(text, &part) {
                wrong.push(format!("{name} lacks {}", shown(&part)));
            }
        }
        for part in expect.texts(&format!("{name}_lacks")) {
            if contains(text, &part) {
                wrong.push(format!("{name} has {}", shown(&part)));
            }
        }
    }
}

fn calls(expect: &Json, wanted: &[Json], is: &[Call], wrong: &mut Vec<String>) {
    if expect.on("calls_order_free") {
        return calls_in_any_order(wanted, is, wrong);
    }
    let more = expect
        .get("min_calls")
        .is_some_and(|more| *more != Json::Bool(false));
    if is.len() < wanted.len() || (is.len() > wanted.len() && !more) {
        wrong.push(format!("{} calls, expected {}", is.len(), wanted.len()));
    }
    for (number, (wanted, is)) in wanted.iter().zip(is).enumerate() {
        for line in call(wanted, is) {
            wrong.push(format!("call {}: {line}", number + 1));
        }
    }
}

fn calls_in_any_order(wanted: &[Json], is: &[Call], wrong: &mut Vec<String>) {
    let mut open: Vec<&Json> = wanted.iter().collect();
    for one in is {
        match open.iter().position(|wanted| call(wanted, one).is_empty()) {
            Some(at) => drop(open.remove(at)),
            None => wrong.push(format!("unexpected call {}", shown_words(&one.argv))),
        }
    }
    for missing in open {
        let words = missing.texts("argv");
        wrong.push(format!("missing call {}", shown_words(&words)));
    }
}

fn call(wanted: &Json, is: &Call) -> Vec<String> {
    let mut wrong = Vec::new();
    let words = wanted.texts("argv");
    if ordered(wanted, &words) != ordered(wanted, &is.argv) {
        let (words, is) = (shown_words(&words), shown_words(&is.argv));
        wrong.push(format!(
            "words\n        expected {words}\n        were     {is}"
        ));
    }
    if let Some(stdin) = wanted.get("stdin").and_then(Json::bytes)
        && ordered_list(wanted, stdin) != ordered_list(wanted, &is.stdin)
    {
        let (stdin, is) = (shown(stdin), shown(&is.stdin));
        wrong.push(format!(
            "input\n        expected {stdin}\n        was      {is}"
        ));
    }
    if let Some(cwd) = wanted.get("cwd").and_then(Json::bytes)
        && cwd != is.cwd
    {
        wrong.push(format!("run in {}", shown(&is.cwd)));
    }
    wrong
}

/// Returns the words with unordered parts sorted: the letters of combined flags, and `-o KEY=VALUE`
/// pairs, also within `--rsh=`.
fn ordered(wanted: &Json, words: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut words = words.to_vec();
    if wanted.on("order_free_flags") {
        for word in words.iter_mut().filter(|word| is_flags(word)) {
            word[1..].sort_unstable();
        }
    }
    if !wanted.on("order_free_options") {
        return words;
    }
    let at: Vec<usize> = (1..words.len())
        .filter(|&at| words[at - 1] == b"-o")
        .collect();
    let mut options: Vec<_> = at.iter().map(|&at| words[at].clone()).collect();
    options.sort();
    for (at, option) in at.into_iter().zip(options) {
        words[at] = option;
    }
    for word in words.iter_mut().filter(|word| word.starts_with(b"--rsh=")) {
        let mut parts: Vec<_> = word.split(|&byte| byte == b' ').map(Vec::from).collect();
        parts.sort();
        *word = parts.concat();
    }
    words
}

fn is_flags(word: &[u8]) -> bool {
    word.len() > 2 && word[0] == b'-' && word[1..].iter().all(u8::is_ascii_alphanumeric)
}

fn ordered_list(wanted: &Json, stdin: &[u8]) -> Vec<Vec<u8>> {
    if !wanted.on("stdin_order_free") {
        return vec![stdin.to_vec()];
    }
    let zero = stdin.contains(&0) || wanted.texts("argv").contains(&b"--from0".to_vec());
    let end = if zero { 0 } else { b'\n' };
    let mut names: Vec<_> = stdin.split(|&byte| byte == end).map(Vec::from).collect();
    names.sort();
    names
}

fn shown(text: &[u8]) -> String {
    format!("\"{}\"", text.escape_ascii())
}

fn shown_words(words: &[Vec<u8>]) -> String {
    let words: Vec<_> = words.iter().map(|word| shown(word)).collect();
    words.join(" ")
}
