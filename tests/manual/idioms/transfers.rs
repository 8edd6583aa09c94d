//! The built-in kinds: targets, options, excludes, limits.

use super::Idiom;
use crate::site::Site;

#[test]
fn remote_target_through_ssh() {
    Idiom::new(
        r#"
        settings {
            logfile = "/var/log/lsyncd/lsyncd.log",
            statusFile = "/var/log/lsyncd/lsyncd.status",
            statusInterval = 1,
            inotifyMode = "CloseWrite",
            maxProcesses = 8,
        }
        sync {
            default.rsync,
            source = "/data/www/",
            target = "user@backup.example.org:/backup/www/",
            delay = 1,
            rsync = {
                archive = true, compress = true, verbose = true,
                rsh = "ssh -p 22 -o StrictHostKeyChecking=no",
            },
        }"#,
    )
    .run();
}

#[test]
fn moves_through_ssh() {
    Idiom::new(
        r#"
        sync {
            default.rsyncssh,
            source = "/data/www",
            host = "user@backup.example.org",
            targetdir = "/backup/www",
            delay = 0.3,
            exclude = { ".git", "*.swp" },
            rsync = { archive = true, compress = false, whole_file = false },
            ssh = { port = 22, identityFile = "/etc/lsyncd/id", options = { User = "me" } },
        }"#,
    )
    .hidden(&[".git/HEAD", "x.swp"])
    .run();
}

#[test]
fn moves_through_ssh_with_many_processes_allowed() {
    let site = Idiom::new(
        r#"
        settings { maxProcesses = 4, insist = true }
        sync { default.rsyncssh, source = "/data/www", host = "backup.example.org",
               targetdir = "/backup/www/", delay = 0.3 }"#,
    )
    .run();
    assert!(
        site.said().contains("Moving old/deep/ -> shallow/"),
        "{}",
        site.said()
    );
}

#[test]
fn local_without_rsync() {
    Idiom::new(
        r#"sync { default.direct, source = "/data/www", target = "/backup/www", delay = 0.3 }"#,
    )
    .run();
}

#[test]
fn local_with_many_processes() {
    Idiom::new(
        r#"sync { default.direct, source = "/data/www", target = "/backup/www", delay = 0.2,
                  maxProcesses = 8, exclude = "*.tmp" }"#,
    )
    .hidden(&["x.tmp"])
    .run();
}

#[test]
fn at_once() {
    Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0 }"#,
    )
    .run();
}

#[test]
fn one_event_is_enough() {
    Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 60,
                  maxDelays = 1 }"#,
    )
    .run();
}

#[test]
fn thousand_processes() {
    Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.2,
                  maxProcesses = 1000 }"#,
    )
    .run();
}

#[test]
fn one_source_to_several_targets() {
    Idiom::new(
        r#"
        sync { default.rsync, source = "/data/www", target = "/backup/a", delay = 0.3 }
        sync { default.rsync, source = "/data/www", target = "backup.example.org:/backup/b",
               delay = 0.5 }"#,
    )
    .pair("/data/www", "/backup/a")
    .run();
}

#[test]
fn source_within_a_source() {
    Idiom::new(
        r#"
        sync { default.rsync, source = "/data/", target = "/backup/all", delay = 0.3 }
        sync { default.rsync, source = "/data/wiki", target = "/backup/wiki", delay = 0.3 }"#,
    )
    .pair("/data/wiki", "/backup/wiki")
    .pair("/data", "/backup/all")
    .run();
}

#[test]
fn relative_directories() {
    Idiom::new(
        r#"sync { default.rsync, source = "data/www", target = "backup/www", delay = 0.3 }"#,
    )
    .run();
}

#[test]
fn source_is_a_link() {
    let idiom = Idiom::new(
        r#"sync { default.rsync, source = "/opt/link", target = "/backup/www", delay = 0.3 }"#,
    );
    std::os::unix::fs::symlink("../data/www", idiom.site.path("/opt/link")).unwrap();
    idiom.run();
}

// ---- what is sent

#[test]
fn exclude_as_text() {
    Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
                  exclude = "*.log" }"#,
    )
    .hidden(&["a.log", "sub/b.log"])
    .run();
}

#[test]
fn exclude_as_list() {
    Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
                  exclude = { ".*", "/tmp/", "cache/**", "*.sw[po]", "node_modules" } }"#,
    )
    .hidden(&[".hidden", "tmp/x", "cache/x/y", "f.swp", "x/node_modules/y"])
    .run();
}

#[test]
fn exclude_from_a_file() {
    Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
                  excludeFrom = "/etc/lsyncd/exclude", exclude = { "*.bak" } }"#,
    )
    .file("/etc/lsyncd/exclude", "# not these\n\n- *.tmp\n  /logs\n")
    .hidden(&["x.tmp", "logs/today", "y.bak"])
    .run();
}

#[test]
fn exclude_with_the_path_of_the_source_matches_nothing() {
    Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
                  exclude = { "/data/www/public" } }"#,
    )
    .run();
}

#[test]
fn filter_before_exclude() {
    Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
                  filter = { "+ /keep.log", "- *.log" }, exclude = { "*.tmp" } }"#,
    )
    .file("/data/www/keep.log", "kept")
    .hidden(&["a.log", "b.tmp"])
    .run();
}

/// Directories without such files are not made.
#[test]
fn one_kind_of_file() {
    let mut site = Site::new();
    site.write("/data/www/a/b/photo.jpg", "jpg");
    site.write("/data/www/a/b/text.txt", "txt");
    site.write("/data/www/none/text.txt", "txt");
    site.start(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
                  filter = { "+ */", "+ *.jpg", "- *" }, rsync = { prune_empty_dirs = true } }"#,
        &[],
    );
    let at = |site: &Site, name: &str| site.path(&format!("/backup/www/{name}")).exists();
    site.wait("the first file", |site| at(site, "a/b/photo.jpg"));
    site.write("/data/www/new/other.txt", "txt");
    site.write("/data/www/new/other.jpg", "jpg");
    site.wait("the second file", |site| at(site, "new/other.jpg"));
    for name in ["a/b/text.txt", "none", "new/other.txt", "hello"] {
        assert!(!at(&site, name), "{name}");
    }
    site.stop();
}

#[test]
fn filter_from_a_file() {
    Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
                  filterFrom = "/etc/lsyncd/filter" }"#,
    )
    .file(
        "/etc/lsyncd/filter",
        "# rules\n+ /secret/\n+ /secret/public\n- /secret/*\n",
    )
    .file("/data/www/secret/public", "public")
    .hidden(&["secret/key"])
    .run();
}

#[test]
fn nothing_deleted() {
    let site = Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
                  delete = false }"#,
    )
    .keeps()
    .run();
    assert_eq!(site.text("/backup/www/only here"), "target");
}

#[test]
fn deleted_while_running() {
    let site = Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
                  delete = 'running' }"#,
    )
    .keeps()
    .run();
    assert_eq!(site.text("/backup/www/only here"), "target");
    assert!(!site.path("/backup/www/old").exists());
}

#[test]
fn nothing_at_the_start() {
    let site = Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
                  init = false }"#,
    )
    .no_startup()
    .run();
    assert!(!site.path("/backup/www/hello").exists());
}

// ---- options of rsync

#[test]
fn many_options() {
    Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
                  rsync = {
                      archive = true, acls = false, xattrs = false, hard_links = true, sparse = true,
                      checksum = true, update = false, whole_file = true, one_file_system = true,
                      executability = true, omit_dir_times = true, timeout = 3600, bwlimit = 100000,
                      chmod = "Du=rwx,Fu=rw", temp_dir = "/opt/", quiet = false,
                  } }"#,
    )
    .run();
}

#[test]
fn chmod_as_number_and_twice_the_same_key() {
    Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
                  rsync = { perms = true, chmod = 755, compress = true, compress = false } }"#,
    )
    .run();
}

#[test]
fn extra_options() {
    Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
                  rsync = { _extra = { "-a", "--bwlimit=100000", "--info=progress2",
                                       "--exclude=*.part" } } }"#,
    )
    .run();
}

#[test]
fn wrapper_for_rsync() {
    let site = Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
                  rsync = { binary = "/opt/wrapper.sh", archive = true } }"#,
    )
    .script(
        "/opt/wrapper.sh",
        "echo \"$@\" >>/var/log/lsyncd/calls\nexec rsync \"$@\"\n",
    )
    .run();
    let calls = site.text("/var/log/lsyncd/calls");
    assert!(calls.contains("--include-from=- --exclude=*"), "{calls}");
    assert!(!calls.contains("--version"), "{calls}");
}

#[test]
fn rsync_of_another_path_there() {
    Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "backup.example.org:/backup/www",
                  delay = 0.3, rsync = { archive = true, rsync_path = "/opt/sudo rsync" } }"#,
    )
    .script(
        "/opt/sudo",
        "echo used >>/var/log/lsyncd/calls\nexec \"$@\"\n",
    )
    .run();
}

#[test]
fn batches_by_size() {
    Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
                  batchSizeLimit = 5, maxProcesses = 4 }"#,
    )
    .run();
}

#[test]
fn exit_codes_of_ones_own() {
    Idiom::new(
        r#"sync { default.rsync, source = "/data/www", target = "/backup/www", delay = 0.3,
                  rsync = { binary = "/opt/flaky" },
                  exitcodes = { [0] = "ok", [23] = "again", [77] = "again" } }"#,
    )
    .script(
        "/opt/flaky",
        "rsync \"$@\" || exit\nset -- /opt/ran*\n[ -e \"$1\" ] || { >/opt/ran1; exit 0; }\n\
         [ -e /opt/ran2 ] || { >/opt/ran2; exit 77; }\n",
    )
    .run();
}
