//! `-explain`: what happens with a path, and by which rule.

use super::inspect::dir;
use crate::support::daemon::Daemon;
use crate::support::dir::Dir;

/// Returns the output of `-explain` for a path in the only sync.
fn explained(config: &str, path: &str) -> String {
    let dir = Dir::new();
    dir.put("config.lua", dir.expand(config));
    dir.put("rules", "*.key\n");
    let ended = Daemon::bare(&dir)
        .args(&["-explain", &dir.expand(path), "@DIR@/config.lua"])
        .run();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    ended.stdout.lines().nth(1).unwrap_or_default().to_owned()
}

#[test]
fn explain_knows_the_rules_among_the_options_of_rsync() {
    let kinds = [
        "default.rsync, source = '@SRC@', target = '@TRG@'",
        "default.rsyncssh, source = '@SRC@', host = 'h', targetdir = '/t'",
    ];
    for kind in kinds {
        for (options, said) in [
            (
                "'--exclude=*.key'",
                r#"left out; the rule is "- *.key" in the options"#,
            ),
            (
                "'--exclude', '*.key'",
                r#"left out; the rule is "- *.key" in the options"#,
            ),
            (
                "'-f', '- *.key'",
                r#"left out; the rule is "- *.key" in the options"#,
            ),
            (
                "'--exclude-from=@DIR@/rules'",
                r#"left out; the rule is "- *.key" in the options"#,
            ),
            (
                "'--exclude=/d/'",
                r#"left out; the rule is "- /d/" in the options of rsync, which matches /d above it"#,
            ),
            (
                "'--include=*.key', '--exclude=*.*'",
                r#"; the rule is "+ *.key" in the options"#,
            ),
            (
                "'--max-size=1m'",
                ", unless --max-size=1m in the options of rsync excludes it; no rule matches it",
            ),
            (
                "'-C', '--exclude=*.key'",
                r#"left out; the rule is "- *.key" in the options"#,
            ),
            (
                "'--filter=-_*.key'",
                r#"left out; the rule is "- *.key" in the options"#,
            ),
            (
                "'-F', '--include=*.key'",
                ", unless -F in the options of rsync excludes it; the rule is",
            ),
            ("'--exclude=*.pem'", "; no rule matches it"),
        ] {
            let config = format!(
                "sync {{ {kind}, rsync = {{ archive = true, _extra = {{ {options} }} }} }}"
            );
            let text = explained(&config, "@SRC@/d/a.key");
            assert!(text.contains(said), "{options}: {text}");
            assert_eq!(
                text.contains("mirrored") || text.contains("sent to "),
                !said.contains("left out"),
                "{text}"
            );
        }
    }
    let direct = "sync { default.direct, source = '@SRC@', target = '@TRG@', rsync = { _extra = { '--exclude=*.key' } } }";
    let text = explained(direct, "@SRC@/a.key");
    assert!(text.contains("excluded at startup; the rule is"), "{text}");
    // The rules of the sync precede those of the options.
    let first = "sync { default.rsync, source = '@SRC@', target = '@TRG@', filter = { '+ *.key' },
        rsync = { _extra = { '--exclude=*.key' } } }";
    let text = explained(first, "@SRC@/a.key");
    assert!(text.ends_with(r#"; the rule is "+ *.key""#), "{text}");
}

#[test]
fn explain_knows_syncs_that_do_nothing() {
    for more in [
        "",
        ", target = '@TRG@'",
        ", delay = 1, target = 'h:/x'",
        ", onDelete = false",
    ] {
        let text = explained(&format!("sync {{ source = '@SRC@'{more} }}"), "@SRC@/x");
        assert!(
            text.contains("not mirrored: the sync does nothing"),
            "{text}"
        );
    }
    for action in [
        "onCreate = 'true'",
        "onDelete = function() end",
        "action = function() end",
    ] {
        let text = explained(&format!("sync {{ source = '@SRC@', {action} }}"), "@SRC@/x");
        assert!(text.contains(": mirrored"), "{text}");
        let only = "only onDelete is handled";
        assert_eq!(
            text.contains(only),
            action.starts_with("onDelete"),
            "{text}"
        );
    }
}

#[test]
fn explain_names_the_rule() {
    let dir = dir();
    dir.mkdir("d");
    dir.mkdir("d/a.tmp");
    dir.write("d/a.tmp/b", "");
    let explain = |path: &str| {
        let ended = Daemon::bare(&dir)
            .args(&["-explain", path, "@DIR@/config.lua"])
            .run();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        ended.stdout
    };
    let web = |path: &str, text: &str| {
        let said = explain(path);
        let line = said.lines().nth(1).unwrap_or_default().to_owned();
        assert_eq!(line, dir.expand(&format!("web: {text}")), "{said}");
    };
    web("@SRC@/d", "mirrored to @TRG@/d/; no rule matches it");
    web("src/x", "mirrored to @TRG@/x; no rule matches it");
    web("@SRC@/a.tmp", r#"left out; the rule is "- *.tmp""#);
    web(
        "@SRC@/d/a.tmp/b",
        r#"left out; the rule is "- *.tmp", which matches /d/a.tmp above it"#,
    );
    web("@SRC@/cache/", r#"left out; the rule is "- /cache/""#);
    web(
        "@SRC@/cache/keep/",
        r#"left out; the rule is "- /cache/", which matches /cache above it"#,
    );
    web("@DIR@/elsewhere", "not in this sync: outside of @SRC@/");
    let said = explain("@DIR@/other/f");
    let expected = dir.expand(
        "@DIR@/other/f\n\
         Sync2: mirrored to h:/t/f; no rule matches it\n\
         Sync3: mirrored; no rule matches it\n",
    );
    assert_eq!(said, expected);
}
