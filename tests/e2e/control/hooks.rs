//! `onSynced`, `onFailed` and `onRecovered`.

use super::*;

fn hook_script(dir: &Dir, name: &str) -> String {
    let log: PathBuf = dir.path(name);
    format!(
        r#"{{ "/bin/sh", "-c", [[
            printf '%s %s %s %s ' "$LSYNCD_EVENT" "$LSYNCD_SYNC" "$LSYNCD_EXITCODE" "$LSYNCD_PATHS"
            tr '\0' ' '; echo
        ]] .. ">> {}" }}"#,
        log.display()
    )
    .replace("[[\n            printf", "[[ { printf")
    .replace("echo\n        ]]", "echo; } ]]")
}

#[test]
fn commands_get_the_results_of_batches() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let more = format!(
        "onSynced = {}, onFailed = {},",
        hook_script(&dir, "synced"),
        hook_script(&dir, "failed")
    );
    let mut daemon = Daemon::new(&dir, &one(&more)).start_and_settle();
    daemon.wait_for("the startup is reported", |_| {
        dir.text("synced") == "synced one 0 0 \n"
    });
    fake.exits(&[0, 12, 12, 0]);
    dir.write("f", "x");
    daemon.wait_for("the failure is reported", |_| {
        dir.text("failed") == "failed one 12 1 /f \n"
    });
    done(&dir, &["retry"]);
    daemon.wait_for("the success is reported", |_| {
        dir.text("synced").ends_with("\nsynced one 0 1 /f \n")
    });
    // The second failure in a row calls no hook.
    assert_eq!(dir.text("failed"), "failed one 12 1 /f \n");
}

/// `onRecovered` is called once for each call of `onFailed`, when the target is current: not while
/// another path still fails, and also after a reload or restart.
#[test]
fn a_recovery_is_reported_once_for_each_failure() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let config = |more: &str| {
        let hooks = ["onFailed", "onRecovered"]
            .map(|key| format!("{key} = {},", hook_script(&dir, "told")));
        one(&(hooks.concat() + more)).replace(
            "settings{",
            "settings{ stateDir = \"@DIR@/state\", insist = true, ",
        )
    };
    let failed = |path: &str| format!("failed one 12 {path} \n");
    let recovered = "recovered one 0 0 \n";
    let mut daemon = Daemon::new(&dir, &config("")).start_and_settle();
    fake.exits(&[0, 12, 12, 0]);
    dir.write("f", "x");
    let mut expected = failed("1 /f");
    daemon.wait_for("the failure is reported", |_| dir.text("told") == expected);
    done(&dir, &["retry"]);
    daemon.wait_for("it fails again", |_| fake.ended() >= 3);
    done(&dir, &["retry"]);
    expected += recovered;
    daemon.wait_for("the recovery is reported", |_| dir.text("told") == expected);
    dir.write("g", "x");
    daemon.wait_for("a success follows", |_| fake.ended() >= 5);

    // A changed sync reports the recovery from the failure of its predecessor.
    fake.exits(&[12]);
    dir.write("h", "x");
    expected += &failed("1 /h");
    daemon.wait_for("the failure is reported", |_| dir.text("told") == expected);
    dir.put("config.lua", dir.expand(&config("maxDelays = 7,")));
    done(&dir, &["reload"]);
    daemon.wait_log("1 changed");
    let before = fake.ended();
    daemon.wait_for("its startup fails", |_| fake.ended() > before);
    fake.exits(&[0]);
    done(&dir, &["retry"]);
    expected += recovered;
    daemon.wait_for("the recovery is reported", |_| dir.text("told") == expected);

    // So does the next daemon, which does not report the failure again.
    fake.exits(&[12]);
    dir.write("i", "x");
    expected += &failed("1 /i");
    daemon.wait_for("the failure is reported", |_| dir.text("told") == expected);
    assert_eq!(daemon.terminate(), Some(143));
    drop(daemon);
    let before = fake.ended();
    let mut daemon = Daemon::new(&dir, &config("")).named("next").start();
    wait_socket(&dir, &mut daemon);
    daemon.wait_for("the startup fails", |_| fake.ended() > before);
    fake.exits(&[0]);
    done(&dir, &["retry"]);
    expected += recovered;
    daemon.wait_for("the recovery is reported", |_| dir.text("told") == expected);
    wait_state(&dir, &mut daemon, State::Current);
    assert_eq!(dir.text("told"), expected);
}

#[test]
fn lua_functions_get_the_results_of_batches_and_their_errors_are_logged() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let more = r#"
    onSynced = function(report)
        log("Normal", "synced " .. report.sync .. " " .. #report.paths)
        if #report.paths == 1 then error("oops") end
        if #report.paths == 2 then while true do end end
    end,"#;
    let mut daemon = Daemon::new(&dir, &one(more)).start_and_settle();
    daemon.wait_log("synced one 0");
    dir.write("f", "x");
    daemon.wait_log("oops");
    done(&dir, &["pause"]);
    dir.write("g", "x");
    dir.write("h", "x");
    daemon.wait_for("both are queued", |_| status(&dir).syncs[0].pending == 2);
    done(&dir, &["resume"]);
    daemon.wait_log("the hook takes too long");
    dir.write("i", "x");
    daemon.wait_for("it mirrors", |_| fake.ended() >= 4);
}

#[test]
fn a_hanging_hook_delays_nothing() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let more = r#"onSynced = { "/bin/sh", "-c", "while [ ! -e @DIR@/go ]; do sleep 0.05; done; echo $LSYNCD_BATCHES >> @DIR@/told" },"#;
    let mut daemon = Daemon::new(&dir, &one(more)).start_and_settle();
    for n in 2..5 {
        dir.write(format!("f{n}"), "x");
        daemon.wait_for("it is sent", |_| fake.ended() >= n);
        wait_state(&dir, &mut daemon, State::Current);
    }
    dir.put("go", "");
    let told = poll(|| dir.text("told") == "1\n3\n");
    assert!(told, "{}", dir.text("told"));
}

#[test]
fn hooks_of_the_wrong_type_are_refused() {
    let dir = Dir::new();
    Fake::new(&dir);
    let ended = Daemon::new(&dir, &one("onSynced = \"a text\",")).run();
    let expected = "onSynced must be a function or a list";
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);
}

/// The name of the sync and the error contain characters that shells and JSON treat specially.
#[test]
fn the_webhook_of_the_manual_posts_failures_and_recoveries() {
    if Command::new("curl").arg("--version").output().is_err() {
        return crate::support::dir::skip("needs curl");
    }
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/how-do-i.md");
    let manual = fs::read_to_string(manual).unwrap();
    let (_, section) = manual
        .split_once("### Post failures and recoveries to a webhook")
        .unwrap();
    let hooks = section.split("```lua").nth(1).unwrap();
    let hooks = hooks.split("```").next().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let hooks = hooks.replace("http://hooks.example.net/lsyncd", &url);
    assert_eq!(hooks.matches(&url).count(), 2);

    let dir = Dir::new();
    let fake = Fake::new(&dir);
    fake.exits(&[0, 12, 0]);
    let config = one(&hooks).replace("name = \"one\"", "name = \"a b$(x)&\"");
    let mut daemon = Daemon::new(&dir, &config).start();
    let posted = || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(limit())).unwrap();
        let mut request = String::new();
        let mut bytes = [0; 4096];
        while !["&error=", "&event=recovered"]
            .iter()
            .any(|last| request.contains(last))
        {
            let count = stream.read(&mut bytes).unwrap();
            request.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        request.rsplit("\r\n").next().unwrap().to_owned()
    };
    daemon.wait_log("finished.");
    dir.write("f", "x");
    assert!(posted().starts_with("sync=a+b%24%28x%29%26&event=failed&error="));
    assert!(posted().ends_with("&event=recovered"));
}
