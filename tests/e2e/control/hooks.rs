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
