//! `onSynced` and `onFailed`.

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
    daemon.wait_for("the startup is told", |_| {
        dir.text("synced") == "synced one 0 0 \n"
    });
    fake.exits(&[0, 12, 12, 0]);
    dir.write("f", "x");
    daemon.wait_for("the failure is told", |_| {
        dir.text("failed") == "failed one 12 1 /f \n"
    });
    done(&dir, &["retry"]);
    daemon.wait_for("success is told", |_| {
        dir.text("synced").ends_with("\nsynced one 0 1 /f \n")
    });
    // The second failure of the row was no news.
    assert_eq!(dir.text("failed"), "failed one 12 1 /f \n");
}

#[test]
fn lua_functions_get_the_results_of_batches_and_their_errors_do_no_harm() {
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
    daemon.wait_for("it mirrors as ever", |_| fake.ended() == 4);
}

#[test]
fn a_hook_that_hangs_holds_nothing_up() {
    let dir = Dir::new();
    let fake = Fake::new(&dir);
    let more = r#"onSynced = { "/bin/sh", "-c", "while [ ! -e @DIR@/go ]; do sleep 0.05; done; echo $LSYNCD_BATCHES >> @DIR@/told" },"#;
    let mut daemon = Daemon::new(&dir, &one(more)).start_and_settle();
    for n in 2..5 {
        dir.write(format!("f{n}"), "x");
        daemon.wait_for("it is sent", |_| fake.ended() == n);
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

/// The hooks of the manual post to a listener, whatever the name of the sync and the error contain.
#[test]
fn the_webhook_of_the_manual_posts_failures_and_successes() {
    if Command::new("curl").arg("--version").output().is_err() {
        return crate::support::dir::skip("needs curl");
    }
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/how-do-i.md");
    let manual = fs::read_to_string(manual).unwrap();
    let (_, section) = manual.split_once("### Post failures to a webhook").unwrap();
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
        while !["&error=", "&paths="]
            .iter()
            .any(|last| request.contains(last))
        {
            let count = stream.read(&mut bytes).unwrap();
            request.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        request.rsplit("\r\n").next().unwrap().to_owned()
    };
    assert!(posted().starts_with("sync=a+b%24%28x%29%26&event=synced&paths=0"));
    daemon.wait_log("finished.");
    dir.write("f", "x");
    assert!(posted().starts_with("sync=a+b%24%28x%29%26&event=failed&error="));
    assert!(posted().contains("&event=synced&paths=1"));
}
