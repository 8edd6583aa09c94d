//! Each question of `docs/how-do-i.md` has an existing test of its answer.

use std::fs;

use crate::differences::exists;
use crate::site::project;

/// The tests that run the examples of the answers, and others that run commands of the documents.
const EXAMPLE: &str = "manual::examples::examples_of_the_answers_run";
const DOCUMENTED: &str = "e2e::mirror::documented";

/// The questions in their order, and the tests of their answers.
const ANSWERS: &[(&str, &[&str])] = &[
    (
        "Exclude a directory everywhere",
        &[EXAMPLE, "manual::idioms::transfers::exclude_as_list"],
    ),
    (
        "Mirror one kind of file only",
        &["manual::idioms::transfers::one_kind_of_file"],
    ),
    (
        "Keep deleted and replaced files",
        &[
            "e2e::mirror::backup",
            "e2e::mirror::sending::delete_false_deletes_never",
        ],
    ),
    (
        "Prevent a mass deletion",
        &["e2e::control::commands::a_limit_of_deletions_…"],
    ),
    ("Use another port or key for ssh", &[DOCUMENTED]),
    ("Set the password of an rsync daemon", &[DOCUMENTED]),
    (
        "Mirror to several hosts",
        &["e2e::fanout::dead_and_slow_targets_…"],
    ),
    ("Limit the bandwidth", &["e2e::config::bandwidth"]),
    (
        "Transfer at certain times only",
        &["e2e::control::commands::a_paused_sync_queues_…"],
    ),
    (
        "Avoid a new transfer after a rename",
        &[
            "e2e::mirror::ssh::rsyncssh_moves_on_the_target_host",
            "e2e::kinds::direct::a_move_keeps_the_inode_on_the_target",
        ],
    ),
    (
        "Test a configuration before a restart",
        &[
            "e2e::config::inspect::check_lists_syncs_and_…",
            "e2e::control::commands::reload_reads_…",
        ],
    ),
    (
        "Test the connection to the targets",
        &["e2e::config::connect"],
    ),
    (
        "See what the first transfer would send and delete",
        &["e2e::config::preview"],
    ),
    (
        "See the progress of the first transfer",
        &["e2e::control::status::a_sync_is_shown_…", EXAMPLE],
    ),
    (
        "Find out why a file is not transferred",
        &[
            "e2e::control::explain",
            "e2e::config::explain::explain_names_the_rule",
        ],
    ),
    (
        "Send changes immediately",
        &["e2e::control::commands::flush_and_usr1_…"],
    ),
    (
        "Stop transfers for a while",
        &["e2e::control::commands::a_paused_sync_queues_…"],
    ),
    (
        "See the commands that are run",
        &["e2e::control::commands::log_level_takes_…"],
    ),
    (
        "Find out if source and target are identical",
        &["e2e::control::verify"],
    ),
    (
        "Compare everything once a night",
        &["e2e::lua::crontab", EXAMPLE],
    ),
    (
        "Run a command after each transfer",
        &["e2e::control::hooks::commands_get_…"],
    ),
    (
        "Post failures and recoveries to a webhook",
        &["e2e::control::hooks::the_webhook_of_the_manual_…"],
    ),
    (
        "See what was sent, and when",
        &["e2e::control::transfer_log"],
    ),
    (
        "Find the messages of the daemon",
        &["e2e::service::manager::the_journal_gets_…"],
    ),
    (
        "Feed a log collector",
        &["e2e::service::log_status::lines_of_the_json_log", EXAMPLE],
    ),
    (
        "Move to another target host without sending everything",
        &["e2e::config::preview::a_target_with_equal_files_and_times_needs_no_transfer"],
    ),
    (
        "Run it in a container, with Compose or as a sidecar",
        &[
            "tests/system/container.sh",
            "manual::examples::examples_of_the_scenarios_run",
        ],
    ),
    (
        "Mirror once and exit",
        &["e2e::mirror::retry::onepass_ends_with_zero"],
    ),
    ("Run several daemons", &["tests/system/install.sh"]),
    ("Run lsyncd without root", &["tests/system/install.sh"]),
    (
        "What happens while the target is down?",
        &[
            "e2e::control::status::an_unreachable_target_is_…",
            "faults::startup",
        ],
    ),
    (
        "Get an alert when the target is behind",
        &[
            "e2e::control::status::the_lag_grows_…",
            "e2e::control::metrics",
        ],
    ),
    (
        "How many inotify watches are needed?",
        &[
            "faults::limits::check_warns_of_too_few_watches",
            "e2e::control::metrics",
        ],
    ),
    (
        "Why are changes on NFS or CIFS not mirrored?",
        &["e2e::lua::crontab", EXAMPLE],
    ),
    ("Go back to lsyncd 2.x", &["tests/system/install.sh"]),
];

#[test]
fn each_answer_is_tried_by_a_test() {
    let page = fs::read_to_string(project("docs/how-do-i.md")).unwrap();
    let questions: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let answered: Vec<&str> = ANSWERS.iter().map(|(question, _)| *question).collect();
    assert_eq!(answered, questions);
    let tests = ANSWERS.iter().flat_map(|(_, tests)| *tests);
    let missing: Vec<_> = tests.filter(|test| !exists(test)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
    assert!(ANSWERS.iter().all(|(_, tests)| !tests.is_empty()));
}
