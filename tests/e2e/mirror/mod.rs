//! What arrives at the target, and how it is sent.
//!
//! | file | what it is about |
//! |---|---|
//! | backup | dated directories with replaced and deleted files |
//! | changes | one kind of change after the other arrives |
//! | documented | the connections that the documents show, against a real sshd and rsync daemon |
//! | full_target | a full and a read-only file system over a real sshd |
//! | names | files with strange names |
//! | races | changes made while the daemon is stopped, or while a transfer runs |
//! | meanwhile | a file that is replaced while rsync runs |
//! | sending | delay, limits, excludes, filters, what deletes, several syncs |
//! | startup_options | options of the startup transfer |
//! | refusals | receivers that refuse an option |
//! | retry | exit codes and signals of rsync |
//! | rsync_options | options of rsync that have another effect on lists |
//! | followed | links that rsync follows |
//! | ssh, ssh_reuse | over a real sshd on the loopback interface |

mod backup;
mod changes;
mod documented;
mod followed;
mod full_target;
mod meanwhile;
mod names;
mod races;
mod refusals;
mod retry;
mod rsync_options;
mod sending;
pub mod ssh;
mod ssh_reuse;
mod startup_options;
