//! Black-box tests of trouble: what must hold when the kernel's limits, disks, mounts,
//! children or the daemon itself fail.
//!
//! | file | what it is about |
//! |---|---|
//! | kinds | file ↔ directory ↔ symlink swaps, truncation, files never closed |
//! | limits | out of watches, out of instances, an overflowing queue |
//! | mounts | file systems inside a source that come and go |
//! | fanotify | what differs if sources are watched with fanotify |
//! | delete_limit | transfers that would delete too much |
//! | guard | sources that are unmounted, removed, renamed, replaced |
//! | exposed | files outside of the source, for those who may write to it |
//! | replaced | sources with an empty directory in their place |
//! | stalls | transfers that stand still |
//! | silent_peer | a stop while the peer has accepted the connection and says nothing |
//! | startup | failures before anything was sent |
//! | children | transfers that fail in every way |
//! | parallel | transfers of one sync at the same time |
//! | partial | transfers that do a part of their work: what is sent again, and what is not |
//! | random_failures | an rsync that fails at random, files that nobody may read |
//! | obstructed | directories at the target that may not be deleted |
//! | long_paths | paths that are too long for rsync |
//! | restart | stopping, killing and starting again |
//! | verification | changes that a killed daemon may have missed |
//! | reload | reading the configuration again |
//! | names | hostile names through every kind of sync |
//! | churn | random changes with everything that can go wrong |
//! | rules | random changes under rules that include and exclude |
//! | soak | minutes of changes, when asked for |
//! | warm_start | starts that compare changed directories only |
//! | distrust | starts of that kind that have to compare everything |
//! | warm_kills | starts of that kind after kills at random moments |
//! | races | the list of all races and their tests, and those that are nowhere else |

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
mod parallel;
mod partial;
mod races;
mod random_failures;
mod reload;
mod replaced;
mod restart;
mod rules;
mod silent_peer;
mod soak;
mod stalls;
mod startup;
mod verification;
mod warm_kills;
mod warm_start;
