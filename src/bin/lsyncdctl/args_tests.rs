use super::*;

fn parsed(line: &str) -> Result<Args, String> {
    parse(line.split_whitespace().map(OsString::from))
}

fn command(line: &str) -> ClientCommand {
    parsed(line).unwrap().command
}

#[test]
fn verbs_and_options() {
    let words = parsed("status web -json --wait -timeout 2.5 -socket /s").unwrap();
    assert_eq!(
        words,
        Args {
            command: ClientCommand::Status(StatusArgs {
                wait: true,
                ..StatusArgs::default()
            }),
            socket: Some("/s".into()),
            sync: Some("web".into()),
            timeout: Some(Duration::from_millis(2500)),
            json: true,
        }
    );
    assert_eq!(
        command("flush"),
        ClientCommand::Do(Verb::Flush { sync: None })
    );
    let pause = Verb::Pause {
        sync: Some("-odd".into()),
    };
    assert_eq!(command("pause -- -odd"), ClientCommand::Do(pause));
    let level = Verb::LogLevel {
        words: vec!["Exec".into(), "Delay".into()],
    };
    assert_eq!(command("log-level Exec Delay"), ClientCommand::Do(level));
    let help = |verb: &str| ClientCommand::Help(Some(verb.into()));
    assert_eq!(command("status -help"), help("status"));
    assert_eq!(command("help verify"), help("verify"));
    assert_eq!(command("-help"), ClientCommand::Help(None));
}

#[test]
fn resync_takes_a_sync_or_a_path_or_both() {
    let resync = |line: &str| match command(line) {
        ClientCommand::Do(Verb::Resync { sync, path }) => (sync, path),
        other => panic!("{other:?}"),
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(resync("resync"), (None, None));
    assert_eq!(resync("resync web"), (some("web"), None));
    assert_eq!(resync("resync /none/a"), (None, some("/none/a")));
    assert_eq!(resync("resync web a/b"), (some("web"), some("a/b")));
}

#[test]
fn log_has_options_of_its_own() {
    let log = |line: &str| match command(line) {
        ClientCommand::Log(args) => args,
        other => panic!("{other:?}"),
    };
    assert_eq!(log("log"), LogArgs::default());
    let args = log("log web /none/a -since @5 -json");
    assert_eq!(args.path.as_deref(), Some("/none/a"));
    assert_eq!((args.since, args.follow), (Some(5.0), false));
    // Without -since, only future entries are shown.
    assert!(log("log -follow").since.is_some_and(|since| since > 1e9));
    assert_eq!(parsed("log web").unwrap().sync.as_deref(), Some("web"));
}

#[test]
fn verify_has_options_of_its_own() {
    let expected = ClientCommand::Verify(Verb::Verify {
        sync: Some("web".into()),
        path: Some("a/b".into()),
        content: true,
        repair: false,
        sample: Some(12.5),
    });
    assert_eq!(
        command("verify web a/b -content -sample 12.5% -json -timeout 9"),
        expected
    );
}

#[test]
fn what_makes_no_sense() {
    for line in [
        "",
        "explode",
        "status -timeout 5",
        "status -max-age soon",
        "pause -trouble",
        "status -timeout x -wait",
        "pause -wait",
        "resync -content",
        "flush -repair",
        "flush -sample 5%",
        "verify -sample 5",
        "verify -sample 0%",
        "verify -wait",
        "verify a b c",
        "pause a b",
        "reload x",
        "status -sync",
        "status -sync a b",
        "-what",
        "log -since",
        "log -since yesterday",
        "log -wait",
        "status -follow",
        "top -json",
    ] {
        assert!(parsed(line).is_err(), "{line}");
    }
}
