//! Tests of the requests that the built-in kinds make of due changes, and of their dry runs.

use std::os::unix::fs::symlink;
use std::time::SystemTime;

use super::comparison::ComparisonScope;
use crate::batch::TransferKind;
use crate::index::plan::DirectoryPlan;
use crate::script::request::{CopyRequest, ScriptRequest};
use crate::script::test_setup::{Loaded, has};
use crate::watch::{Event, TreeSize};

/// A sync of default.rsync with its startup.
const RSYNC: &str = "sync{ default.rsync, source = '@DIR@/src', target = '@DIR@/trg', ";
/// A sync of default.direct without a startup.
const DIRECT: &str =
    "sync{ default.direct, source = '@DIR@/src', target = '@DIR@/trg', init = false, ";

fn input(request: &crate::script::SpawnRequest) -> String {
    String::from_utf8(request.stdin.clone().unwrap_or_default()).unwrap()
}

#[test]
fn nothing_is_requested_during_the_shutdown() {
    for config in [
        "sync{ default.rsync, source = '@DIR@/src', target = '/trg', init = false }",
        "sync{ default.rsync, source = '@DIR@/src', target = '/trg', init = false,
           check = function() return true end }",
        "sync{ default.rsyncssh, source = '@DIR@/src', host = 'h', targetdir = '/trg',
           init = false }",
        "sync{ default.direct, source = '@DIR@/src', target = '/trg', init = false }",
        "sync{ source = '@DIR@/src', init = false,
           onCreate = function(event) spawn(event, 'true') end }",
    ] {
        let sync = Loaded::of(config);
        sync.create("f");
        let id = sync.due();
        sync.script.shut_down();
        sync.script.act(&sync.handle(0), id).unwrap();
        assert!(sync.script.context.requests.is_empty(), "{config}");
        if config.contains("default.") {
            sync.script.resume();
            assert_eq!(sync.act().len(), 1, "{config}");
        }
    }
}

#[test]
fn direct_deletes_what_is_excluded_unless_a_mount_is_missing() {
    let copy = |keys: &str, is_missing: bool| -> CopyRequest {
        let sync = Loaded::of(&format!("{DIRECT} {keys} }}"));
        if is_missing {
            sync.lose_mount("in");
        }
        sync.create("f");
        match sync.act().remove(0) {
            ScriptRequest::Copy(request) => request,
            _ => panic!("no copy was requested"),
        }
    };
    let delete_excluded = "rsync = { delete_excluded = true }";
    assert!(!copy("", false).delete_excluded);
    assert!(copy(delete_excluded, false).delete_excluded);
    assert!(!copy(delete_excluded, true).delete_excluded);
}

#[test]
fn rsync_deletes_what_is_excluded_unless_a_mount_is_missing() {
    let rules = |is_excluded_deleted: bool, is_missing: bool| {
        let sync = Loaded::rsync(&format!(
            "exclude = '*.tmp', rsync = {{ delete_excluded = {is_excluded_deleted}, \
             list = 'filter' }}"
        ));
        if is_missing {
            sync.lose_mount("in");
        }
        sync.ingest("d/", |path| Event::Delete { path });
        let request = sync.spawn();
        assert_eq!(request.transfer, Some(TransferKind::Classic));
        String::from_utf8(request.args.join(&b' ')).unwrap()
    };
    let kept = rules(false, false);
    assert!(kept.contains("- *.tmp"), "{kept:?}");
    let deleted = rules(true, false);
    assert!(deleted.contains("H *.tmp"), "{deleted:?}");
    let missing = rules(true, true);
    assert!(missing.contains("- *.tmp"), "{missing:?}");
}

#[test]
fn the_kind_of_list_is_that_of_the_configuration() {
    for (list, kind) in [
        ("filter", TransferKind::Classic),
        ("files-from", TransferKind::FilesFrom { missing: false }),
    ] {
        let sync = Loaded::rsync(&format!("rsync = {{ list = '{list}' }}"));
        sync.create("f");
        assert_eq!(sync.spawn().transfer, Some(kind), "{list}");
    }
}

/// Sent before the move, a later change would be moved or overwritten by it.
#[test]
fn rsyncssh_sends_the_changes_before_a_move_first() {
    let sync = Loaded::of(
        "sync{ default.rsyncssh, source = '@DIR@/src', host = 'h', targetdir = '/trg',
           init = false }",
    );
    sync.create("a");
    sync.rename("b", "c");
    sync.create("d");
    let handle = sync.handle(0);
    let ids: Vec<_> = handle
        .sync
        .borrow()
        .queue
        .iter()
        .map(|delay| delay.id())
        .collect();
    assert_eq!(sync.spawn().ids, ids[..1]);
}

/// The daemon leaves its directory when it detaches.
#[test]
fn a_relative_target_is_in_the_directory_where_the_daemon_was_started() {
    let target = |place: &str, nodaemon: bool| {
        let source = tempfile::tempdir().unwrap();
        let config = format!(
            "sync{{ default.rsync, source = '{}', target = '{place}' }}",
            source.path().display()
        );
        let script = crate::script::Script::try_text(&config, nodaemon).unwrap();
        let target = script.target(&script.syncs()[0]).unwrap();
        String::from_utf8(target).unwrap()
    };
    for place in ["/trg/", "host:trg/", "rsync://host/trg/", "host::trg/"] {
        assert_eq!(target(place, false), place);
    }
    let found = target("sub/trg/", false);
    let before = found.strip_suffix("/sub/trg/").unwrap();
    assert!(std::path::Path::new(before).is_absolute(), "{found}");
    assert_eq!(target("sub/trg/", true), "sub/trg/");
}

#[test]
fn files_are_compared_by_content_after_a_comparison_by_time_only() {
    for (keys, is_searched) in [
        ("", true),
        ("rsync = { _extra = { '--size-only' } }", false),
        ("rsync = { binary = '@DIR@/wrapper' }", false),
        (
            "startup = { rsync = { _extra = { '--size-only' } } }",
            false,
        ),
    ] {
        let sync = Loaded::of(&format!("{RSYNC} {keys} }}"));
        let handle = sync.handle(0);
        handle.sync.borrow_mut().verify_mut().suspect();
        sync.spawn();
        let verify = handle.sync.borrow();
        assert_eq!(verify.verify().is_searching(), is_searched, "{keys}");
        assert_eq!(verify.verify().is_done(), !is_searched, "{keys}");
    }
}

/// A wrapper, and a smaller source, get no such option; neither does a call that has one.
#[test]
fn long_comparisons_by_rsync_itself_report_their_progress() {
    for (keys, directories, reports) in [
        ("", 5000, true),
        ("", 5, false),
        ("rsync = { _extra = { '--info=name' } }", 5000, false),
        ("rsync = { binary = '@DIR@/wrapper' }", 5000, false),
        ("guard = { maxDelete = 5 }", 5000, false),
    ] {
        let sync = Loaded::of(&format!("{RSYNC} {keys} }}"));
        let handle = sync.handle(0);
        let size = TreeSize {
            directories,
            entries: directories,
        };
        handle.sync.borrow_mut().set_tree_size(size);
        let request = sync.spawn();
        let asks = has(&request.args, "--info=progress2");
        assert_eq!(asks, reports, "{keys}, {directories}");
        assert_eq!(handle.sync.borrow().asks_progress(), reports, "{keys}");
    }
}

#[test]
fn the_startup_of_a_warm_start_lists_changed_directories() {
    let sync = Loaded::of(&format!("{RSYNC} init = 'changed' }}"));
    let handle = sync.handle(0);
    for name in ["kept", "replaced"] {
        std::fs::create_dir(sync.path("src").join(name)).unwrap();
    }
    {
        let mut sync = handle.sync.borrow_mut();
        let now = SystemTime::now();
        let waiting: Vec<_> = sync.queue.iter().map(|delay| delay.id()).collect();
        for id in waiting {
            sync.queue.discard(id);
        }
        sync.await_watches();
        let plan = DirectoryPlan::of(&[b"/kept/", b"/removed/", b"/replaced/"]);
        assert!(sync.start_warm(plan, now, 0));
    }
    std::fs::remove_dir(sync.path("src/replaced")).unwrap();
    symlink("/", sync.path("src/replaced")).unwrap();
    let request = sync.spawn();
    assert!(has(&request.args, "--files-from=-") && !has(&request.args, "-r"));
    assert_eq!(input(&request).trim_matches('\0'), "/kept/");
}

/// Only a comparison finds the other names of such files. Events have been lost only if rsync may
/// have taken a changed file for an unchanged one.
#[test]
fn files_with_several_names_are_compared_once_more() {
    let is_done_after = |event: fn(&[u8]) -> Event<'_>| {
        let sync = Loaded::rsync("rsync = { hard_links = true }");
        std::fs::write(sync.path("src/f"), "content").unwrap();
        std::fs::hard_link(sync.path("src/f"), sync.path("src/g")).unwrap();
        sync.ingest("f", event);
        sync.spawn();
        let handle = sync.handle(0);
        let sync = handle.sync.borrow();
        assert_eq!(sync.queue.specials().count(), 1);
        sync.verify().is_done()
    };
    assert!(is_done_after(|path| Event::Attrib { path }));
    assert!(!is_done_after(|path| Event::Modify { path }));
}

/// The options that a comparison needs for files that only the target has.
#[test]
fn a_dry_run_deletes_what_the_transfers_would_delete() {
    let everything = || ComparisonScope::Everything;
    let below = || ComparisonScope::Below(b"/d/".to_vec());
    let excluded = "rsync = { delete_excluded = true }";
    for (keys, is_missing, deletes, deletes_excluded) in [
        ("", false, true, false),
        ("delete = false", false, false, false),
        ("delete = 'running'", false, false, false),
        ("delete = 'startup'", false, false, false),
        (excluded, false, true, true),
        (excluded, true, true, false),
        (
            "delete = false, rsync = { delete_excluded = true }",
            false,
            false,
            false,
        ),
    ] {
        let sync = Loaded::rsync(keys);
        std::fs::create_dir(sync.path("src/d")).unwrap();
        if is_missing {
            sync.lose_mount("in");
        }
        let words = |scope| {
            let comparison = sync.script.comparison(&sync.handle(0), &scope, false);
            comparison.map(|comparison| comparison.command.args)
        };
        let whole = words(everything()).unwrap();
        assert!(has(&whole, "--dry-run") && has(&whole, "-r"), "{keys}");
        assert_eq!(has(&whole, "--delete"), deletes, "{keys}");
        assert_eq!(has(&whole, "--delete-excluded"), deletes_excluded, "{keys}");
        let part = words(below()).unwrap();
        assert!(has(&part, "--dry-run") && has(&part, "-r"), "{keys}");
        assert_eq!(has(&part, "--delete"), deletes, "{keys}");
    }
}

#[test]
fn a_dry_run_of_a_part_deletes_what_is_excluded_like_a_transfer() {
    for (is_missing, rule) in [(false, "H *.tmp"), (true, "- *.tmp")] {
        let sync = Loaded::rsync("exclude = '*.tmp', rsync = { delete_excluded = true }");
        std::fs::create_dir(sync.path("src/d")).unwrap();
        if is_missing {
            sync.lose_mount("in");
        }
        let scope = ComparisonScope::Below(b"/d/".to_vec());
        let comparison = sync.script.comparison(&sync.handle(0), &scope, false);
        let words = comparison.unwrap().command.args;
        assert!(
            has(&words, &format!("--filter={rule}")),
            "{is_missing}: {words:?}"
        );
    }
}

#[test]
fn a_sync_names_the_programs_that_it_runs() {
    for (keys, shell, programs) in [
        ("default.rsync, target = '/trg'", "", "rsync"),
        ("default.rsync, target = 'host:/trg'", "ssh", "rsync ssh"),
        ("default.rsync, target = 'rsync://host/m'", "", "rsync"),
        ("default.rsync, target = 'host::m'", "", "rsync"),
        (
            "default.rsync, target = 'host:/trg', rsync = { rsh = '/x/sh -p 9' }",
            "/x/sh -p 9",
            "rsync /x/sh",
        ),
        (
            "default.rsyncssh, host = 'h', targetdir = '/t', ssh = { binary = '/x/ssh' },
             rsync = { rsh = '/x/rsh' }",
            "/x/rsh",
            "rsync /x/ssh /x/rsh",
        ),
        ("default.direct, target = '/trg'", "", ""),
    ] {
        let sync = Loaded::of(&format!("sync{{ source = '@DIR@/src', {keys} }}"));
        let joined = |words: Vec<Vec<u8>>| String::from_utf8(words.join(&b' ')).unwrap();
        let handle = sync.handle(0);
        assert_eq!(joined(sync.script.ssh_words(&handle)), shell, "{keys}");
        assert_eq!(joined(sync.script.programs(&handle)), programs, "{keys}");
    }
}

#[test]
fn only_a_lost_source_is_waited_for() {
    for (keys, is_lost, waits) in [
        ("waitForSource = true", true, true),
        ("waitForSource = true", false, false),
        ("waitForSource = false", true, false),
        ("", true, false),
    ] {
        let sync = Loaded::rsync(keys);
        let handle = sync.handle(0);
        if is_lost {
            handle.sync.borrow_mut().source_lost("removed");
        }
        assert_eq!(handle.waits_for_source(), waits, "{keys}, {is_lost}");
    }
}

/// A wrong option deletes files on the target.
#[test]
fn the_startup_deletes_as_configured() {
    let excluded = "rsync = { delete_excluded = true }";
    for (keys, is_missing, expected) in [
        ("", false, "--delete --ignore-errors"),
        ("delete = 'startup'", false, "--delete --ignore-errors"),
        ("delete = 'running'", false, ""),
        ("delete = false", false, ""),
        ("delete = 'never'", false, ""),
        (
            excluded,
            false,
            "--delete --ignore-errors --delete-excluded",
        ),
        (excluded, true, "--delete --ignore-errors"),
    ] {
        let sync = Loaded::of(&format!("{RSYNC} {keys} }}"));
        if is_missing {
            sync.lose_mount("in");
        }
        let words = sync.spawn().args;
        let found: Vec<_> = words
            .iter()
            .map(|word| String::from_utf8_lossy(word))
            .filter(|word| word.starts_with("--delete") || word.starts_with("--ignore"))
            .collect();
        assert_eq!(found.join(" "), expected, "{keys}, {is_missing}");
    }
}

/// Options that a copy cannot have the effect of.
#[test]
fn the_startup_of_direct_calls_rsync_for_options_of_its_own() {
    let direct = DIRECT.replace("init = false, ", "");
    let calls_rsync = |options: &str| {
        let sync = Loaded::of(&format!("{direct} rsync = {{ {options} }} }}"));
        matches!(sync.act().remove(0), ScriptRequest::Spawn(_))
    };
    let copied = "acls archive compress delete_excluded executability group hard_links links owner \
                  perms protect_args quiet sparse times verbose whole_file xattrs inc_recursive";
    for option in copied.split_whitespace() {
        assert!(!calls_rsync(&format!("{option} = true")), "{option}");
    }
    for options in ["", "list = 'filter'", "checksum = false", "bwlimit = false"] {
        assert!(!calls_rsync(options), "{options}");
    }
    for options in [
        "links = false",
        "times = false",
        "binary = '/usr/bin/rsync'",
        "checksum = true",
        "update = true",
        "bwlimit = 100",
        "chmod = 'u+r'",
        "_extra = { '--numeric-ids' }",
    ] {
        assert!(calls_rsync(options), "{options}");
    }
}

#[test]
fn rclone_deletes_as_configured_and_gets_rules() {
    for (delete, startup, batch) in [
        ("true", "sync", "sync"),
        ("false", "copy", "copy"),
        ("'startup'", "sync", "copy"),
        ("'running'", "copy", "sync"),
    ] {
        let sync = Loaded::of(&format!(
            "sync{{ default.rclone, source = '@DIR@/src', target = 'remote:x', delay = 0,
               delete = {delete}, exclude = {{ '*.tmp', 'cache/' }} }}"
        ));
        let excludes = "- *.tmp\n- *.tmp/**\n- cache/**\n";
        let whole = sync.spawn();
        assert_eq!(whole.args[0], startup.as_bytes(), "{delete}");
        assert_eq!(input(&whole), format!("{excludes}+ **\n"));
        sync.handle(0).sync.borrow_mut().queue.finish(whole.ids[0]);
        sync.create("a*");
        sync.ingest("d/", |path| Event::Attrib { path });
        sync.ingest("e/", |path| Event::Delete { path });
        sync.ingest("f", |path| Event::Attrib { path });
        sync.ingest("", |path| Event::Attrib { path });
        let list = sync.spawn();
        assert_eq!(list.args[0], batch.as_bytes(), "{delete}");
        let named = ["a\\*", "e", "f"].map(|name| format!("+ /{name}\n+ /{name}/**\n"));
        assert_eq!(input(&list), format!("{excludes}{}- *\n", named.concat()));
        let end = [b"remote:x".to_vec()];
        assert!(whole.args.ends_with(&end) && list.args.ends_with(&end));
    }
}

/// Otherwise the target may have files that a plain mv would overwrite, or leave behind.
#[test]
fn a_move_is_verified_unless_the_target_is_equal() {
    let words = |keys: &str| {
        let sync = Loaded::of(&format!(
            "sync{{ default.rsyncssh, source = '@DIR@/src', host = 'h', targetdir = '/trg',
               init = false, {keys} }}"
        ));
        sync.rename("b", "c");
        let request = sync.spawn();
        assert_eq!(request.program, b"ssh");
        // Before the host are options with the path of a socket.
        let options = request.args.iter().take_while(|word| *word != b"h");
        let options = options.count();
        request.args[options..].to_vec()
    };
    let plain = words("");
    let verified = words("delete = false");
    assert_ne!(plain, verified);
    for keys in ["delete = 'running'", "delete = 'startup'", "exclude = 'x'"] {
        assert_eq!(words(keys), verified, "{keys}");
    }
}
