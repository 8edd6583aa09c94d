//! Moves of default.rsyncssh to a name at which the target has kept a directory.

use std::fs;

use super::rsyncssh::{CONFIG, names, site};
use super::{is_move_reported, start};

/// mv would move the directory into it, and what the source has there would be missing.
#[test]
fn nothing_is_moved_into_a_directory_that_the_target_keeps() {
    for keys in [
        "delete = false",
        "delete = \"startup\"",
        "delete = \"running\"",
        "exclude = { \"*.bak\" }",
        "filter = { \"- *.bak\" }, maxDelays = 1",
    ] {
        for (from, to) in [("d", "e"), ("d", "s/e"), ("s/d", "e")] {
            let dir = site();
            for directory in ["s", from, to] {
                dir.mkdir(directory);
            }
            dir.write(format!("{from}/f"), "1");
            let mut daemon = start(&dir, &CONFIG.replace("delay", &format!("{keys}, delay")));
            daemon.wait_equal();
            dir.rm(to);
            dir.write("last", "1");
            daemon.wait_for("the removal", |daemon| {
                dir.path("trg/last").exists() && daemon.log().ends_with("Finished (list): 0\n")
            });
            let at = format!("trg/{to}");
            fs::create_dir_all(dir.path(&at)).unwrap();
            dir.put(&format!("{at}/kept.bak"), "");
            dir.mv(from, to);
            let there = |name: &str| dir.path(format!("{at}/{name}")).exists();
            daemon.wait_for("the contents", |_| there("f"));
            assert!(there("kept.bak"), "{keys}: {}", daemon.log());
            let is_moved = daemon.log().contains("Moving ");
            assert_eq!(is_moved, is_move_reported(&daemon), "{}", daemon.log());
            assert_eq!(names(&dir, &at), ["f", "kept.bak"], "{keys}");
        }
    }
}
