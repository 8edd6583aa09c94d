//! Black-box tests of failures: limits of the kernel, disks, mounts, children, and the daemon
//! itself.
//!
//! | file | what it is about |
//! |---|---|
//! | kinds | file ↔ directory ↔ symlink swaps, truncation, files never closed |
//! | limits | out of watches, out of instances, an overflowing queue |
//! | mounts | file systems inside a source that come and go |
//! | fanotify | sources that are watched with fanotify |
//! | delete_limit | transfers that would delete too much |
//! | guard | sources that are unmounted, removed, renamed, replaced |
//! | exposed | users who own a directory in the source |
//! | replaced | sources with an empty directory in their place |
//! | replaced_while_sending | sources that disappear after the start of a transfer |
//! | stalls | transfers without I/O |
//! | silent_peer | a stop while the peer of a connection does not answer |
//! | startup | failures before the first transfer |
//! | children | transfers that fail in every way |
//! | parallel | transfers of one sync at the same time |
//! | partial | transfers that fail for some paths |
//! | unsendable | files and directories that rsync cannot transfer |
//! | permissions | directories that the daemon may not read or enter for a time |
//! | random_failures | an rsync that fails at random, unreadable files |
//! | only_at_target | `delete = "running"`, and files that only the target has |
//! | obstructed | directories on the target that must not be deleted |
//! | long_paths | paths that are too long for rsync |
//! | restart | stopping, killing and starting again |
//! | verification | changes that a killed daemon may have missed |
//! | reload | reading the configuration again |
//! | names | hostile names through every kind of sync |
//! | churn | random changes with everything that can go wrong |
//! | rules | random changes under rules that include and exclude |
//! | soak | minutes of changes, when asked for |
//! | warm_start | starts with `init = "changed"` |
//! | distrust | such starts with an index that is not trusted |
//! | warm_kills | such starts after kills at random moments |
//! | races | the list of all races and their tests, and tests that are in no other file |

// clippy.toml allows these in test functions only, and a harness is made of helpers.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]
// Each test binary uses a part of the harness.
#![allow(dead_code)]

#[path = "../support/mod.rs"]
mod support;

mod children;
mod churn;
mod delete_limit;
mod distrust;
mod exposed;
mod fanotify;
mod guard;
mod kinds;
mod limits;
mod links;
mod long_paths;
mod mounts;
mod names;
mod obstructed;
mod only_at_target;
mod parallel;
mod partial;
mod permissions;
mod races;
mod random_failures;
mod reload;
mod replaced;
mod replaced_while_sending;
mod restart;
mod rules;
mod silent_peer;
mod soak;
mod stalls;
mod startup;
mod unsendable;
mod verification;
mod warm_kills;
mod warm_start;
