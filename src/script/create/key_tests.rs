//! Tests of keys that a configuration gives a meaning of its own, and of those that it must not.

use std::time::Duration;

use mlua::Value;

use crate::script::test_setup::{Loaded, error_of};

const RSYNC: &str = "default.rsync, target = '/trg'";
const ACTION: &str = "action = function(inlet) inlet.discardEvent((inlet.getEvent())) end";

fn loaded(keys: &str) -> Loaded {
    Loaded::of(&format!("sync{{ source = '@DIR@/src', {keys} }}"))
}

/// Returns the error of a sync with these keys; an empty text if it is valid.
fn refused(keys: &str) -> String {
    error_of(&format!("sync{{ source = '@DIR@/src', {keys} }}"))
}

/// Otherwise nothing would be sent to these targets.
#[test]
fn targets_are_the_users_only_if_they_cannot_be_ours() {
    let list = "targets = { '/a', '/b' }";
    let prepare = "prepare = function() end";
    let own = format!("{ACTION}, {list}");
    for (keys, count) in [
        (format!("default.rsync, {list}"), 2),
        (format!("default.rsync, checkgauge = false, {list}"), 2),
        (format!("default.rsync, {prepare}, {list}"), 2),
        (format!("{RSYNC}, checkgauge = false, targets = 'x'"), 1),
        (format!("{RSYNC}, {prepare}, targets = 'x'"), 1),
        (
            format!("{RSYNC}, checkgauge = {{ default.rsync.checkgauge, targets = true }}, {list}"),
            1,
        ),
        (format!("checkgauge = false, {own}"), 1),
        (format!("{prepare}, {own}"), 1),
        (own.clone(), 2),
    ] {
        assert_eq!(loaded(&keys).script.syncs().len(), count, "{keys}");
    }
    let said = refused("default.rsync, targets = 'x'");
    assert!(said.contains("targets must be a list"), "{said}");
}

/// A file that is sent without the checks that the user wants is a breach.
#[test]
fn a_check_is_done_or_refused() {
    let check = "check = function() return true end";
    for keys in [
        RSYNC.to_owned(),
        format!("{RSYNC}, init = false"),
        format!("{RSYNC}, prepare = function(c) default.rsync.prepare(c) end"),
        format!("{RSYNC}, checkgauge = false"),
        format!("{RSYNC}, checkgauge = {{ default.rsync.checkgauge, check = true }}"),
        format!("{RSYNC}, prepare = function(c) c.rsync._computed = {{ }} end"),
    ] {
        let sync = loaded(&format!("{keys}, {check}"));
        let handle = sync.handle(0);
        assert!(handle.sync.borrow().config.check.is_some(), "{keys}");
    }
    let own = "function(event) default.rsync.init(event) end";
    let declared = "checkgauge = { default.rsync.checkgauge, check = true }";
    for keys in [
        format!("{RSYNC}, init = {own}"),
        format!("{RSYNC}, full = {own}"),
        format!("{RSYNC}, full = false"),
        format!("{RSYNC}, action = {own}"),
        format!("{RSYNC}, init = {own}, checkgauge = false"),
        format!("{RSYNC}, init = {own}, {declared}"),
        "default.direct, target = '/trg'".to_owned(),
    ] {
        let said = refused(&format!("{keys}, {check}"));
        assert!(
            said.contains("check is for default.rsync only"),
            "{keys}: {said}"
        );
    }
}

#[test]
fn a_key_of_a_users_kind_has_its_meaning_if_its_value_is_valid() {
    for (keys, has_limit) in [
        ("guard = { maxDelete = 5 }", true),
        ("guard = { mine = 5 }", false),
    ] {
        let sync = loaded(&format!("checkgauge = false, {ACTION}, {keys}"));
        let handle = sync.handle(0);
        let limit = &handle.sync.borrow().config.guard.max_delete;
        assert_eq!(limit.is_some(), has_limit, "{keys}");
    }
    let sync = loaded(&format!(
        "checkgauge = false, {ACTION}, check = function() return true end"
    ));
    assert!(sync.handle(0).sync.borrow().config.check.is_none());
}

#[test]
fn init_changed_of_the_settings_applies_to_built_in_startups_only() {
    let own = "init = function(event) default.rsync.init(event) end";
    let check = "check = function() return true end";
    for (keys, is_warm) in [
        (RSYNC.to_owned(), true),
        ("default.direct, target = '/trg'".to_owned(), true),
        (format!("{RSYNC}, init = false"), false),
        (format!("{RSYNC}, {own}"), false),
        (format!("{RSYNC}, {check}"), false),
        (format!("{RSYNC}, init = 'changed'"), true),
        (ACTION.to_owned(), false),
    ] {
        let sync = Loaded::of(&format!(
            "settings{{ init = 'changed' }} sync{{ source = '@DIR@/src', {keys} }}"
        ));
        let handle = sync.handle(0);
        let is = handle.sync.borrow().config.warm_start.is_some();
        assert_eq!(is, is_warm, "{keys}");
        let init: Value = handle.config.get("init").unwrap();
        assert_eq!(init == Value::Boolean(false), keys.contains("init = false"));
    }
    let said = refused(&format!("{RSYNC}, init = 'changed', {check}"));
    assert!(said.contains("cannot be combined with check"), "{said}");
    let said = refused(&format!("{ACTION}, init = 'changed'"));
    assert!(
        said.contains("not for syncs with their own functions"),
        "{said}"
    );
}

#[test]
fn everything_is_compared_again_after_the_time_of_verify_every() {
    let every = |settings: &str, keys: &str| {
        let sync = Loaded::of(&format!(
            "{settings} sync{{ source = '@DIR@/src', {RSYNC}, init = 'changed' {keys} }}"
        ));
        let handle = sync.handle(0);
        let warm = handle.sync.borrow().config.warm_start.clone();
        warm.unwrap().verify_every
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let hour = "settings{ verifyEvery = 3600 }";
    assert_eq!(every("", ""), seconds(7 * 24 * 3600));
    assert_eq!(every("", ", verifyEvery = 60"), seconds(60));
    assert_eq!(every("", ", verifyEvery = 0"), None);
    assert_eq!(every(hour, ""), seconds(3600));
    assert_eq!(every(hour, ", verifyEvery = 60"), seconds(60));
    assert_eq!(every(hour, ", verifyEvery = 0"), None);
}

#[test]
fn only_the_monitor_inotify_is_known() {
    let free = format!("{RSYNC}, checkgauge = false");
    assert_eq!(refused(&format!("{free}, monitor = 'inotify'")), "");
    let said = refused(&format!("{free}, monitor = 'fsevents'"));
    assert!(
        said.contains("event monitor \"fsevents\" unknown"),
        "{said}"
    );
}

#[test]
fn a_misspelt_kind_is_an_error_while_the_configuration_is_read() {
    let said = error_of("x = default.rsnyc");
    assert!(said.contains("Did you mean \"default.rsync\"?"), "{said}");
    let sync = loaded(RSYNC);
    assert!(sync.eval::<Value>("default.rsnyc").is_nil());
}

/// With an equal fingerprint, a reload that keeps unchanged syncs would ignore a change.
#[test]
fn the_fingerprint_differs_for_all_that_matters() {
    let fingerprints = |one: &str, other: &str| {
        let sync = |keys: &str| format!("sync{{ source = '@DIR@/src', {keys} }} ");
        let loaded = Loaded::of(&(sync(one) + &sync(other)));
        let of = |number| loaded.handle(number).fingerprint.clone();
        (of(0), of(1))
    };
    let ssh = "default.rsyncssh, host = 'h', targetdir = '/t'";
    for (one, other) in [
        (RSYNC, "default.rsync, name = 'n', target = '/trg'"),
        (RSYNC, "target = '/trg/', default.rsync"),
        ("rsync = { bwlimit = 5 },", "rsync = { bwlimit = 9 },"),
        ("rsync = { compress = true },", ""),
        (
            "rsync = { _extra = { '--compress' } },",
            "rsync = { _extra = { } },",
        ),
        (
            "startup = { rsync = { bwlimit = 5 } },",
            "startup = { rsync = { bwlimit = 9 } },",
        ),
        (
            "crontab = { '* * * * * *' },",
            "crontab = { '* * * * * *' },",
        ),
        (ssh, ssh),
    ] {
        let whole = |keys: &str| match keys.contains("default.") {
            true => keys.to_owned(),
            false => format!("{keys} {RSYNC}"),
        };
        let (a, b) = fingerprints(&whole(one), &whole(other));
        assert!(a.is_some() && a == b, "{one} {other}");
    }
    for (one, other) in [
        ("", "exclude = 'a'"),
        ("exclude = 'a'", "exclude = 'b'"),
        ("exclude = 'a'", "filter = '- a'"),
        ("delete = true", "delete = false"),
        ("delay = 1", "delay = 2"),
        ("crontab = { '* * * * * *' }", "crontab = { '1 * * * * *' }"),
        ("rsync = { }", "rsync = { archive = true }"),
        (
            "rsync = { _extra = { '-x' } }",
            "rsync = { _extra = { '-y' } }",
        ),
        ("rsync = { }", "rsync = { _extra = { '-x' } }"),
        ("", "startup = { rsync = { archive = true } }"),
        (
            "startup = { rsync = { checksum = true } }",
            "startup = { rsync = { archive = true } }",
        ),
        ("", "onFailed = { 'true' }"),
        (
            "check = { command = { 'a' } }",
            "check = { command = { 'b' } }",
        ),
        (
            "exitcodes = { [0] = 'ok' }",
            "exitcodes = { [0] = 'ok', [1] = 'again' }",
        ),
        ("guard = { maxDelete = 5 }", "guard = { maxDelete = 6 }"),
    ] {
        let (a, b) = fingerprints(&format!("{RSYNC}, {one}"), &format!("{RSYNC}, {other}"));
        assert!(a.is_some() && b.is_some() && a != b, "{one} {other}");
    }
    // Wrapped functions of the preludes share their code.
    let kinds = [RSYNC, "default.direct, target = '/trg'", ssh];
    for (at, kind) in kinds.iter().enumerate() {
        for other in &kinds[at + 1..] {
            let (a, b) = fingerprints(kind, other);
            assert!(a.is_some() && b.is_some() && a != b, "{kind} {other}");
        }
    }
    let collects = ["default.rsyncssh.collect", "default.direct.collect"];
    let [one, other] = collects.map(|collect| format!("{RSYNC}, collect = {collect}"));
    let (a, b) = fingerprints(&one, &other);
    assert!(a.is_some() && b.is_some() && a != b);
    // What a function of the user does is unknown.
    for keys in [
        "onFailed = function() end",
        "check = function() return true end",
    ] {
        assert_eq!(
            loaded(&format!("{RSYNC}, {keys}")).handle(0).fingerprint,
            None,
            "{keys}"
        );
    }
}
