//! Command line and configuration.
//!
//! | file | what it is about |
//! |---|---|
//! | command_line, config_errors | what is refused, and in which words |
//! | mistakes | mistakes in a configuration end with file, line and what is wrong |
//! | broken | no configuration, however broken, makes a panic, an abort or a hang |
//! | drop_in | what configurations of lsyncd ask for and get |
//! | own_kinds | keys of kinds that users define |
//! | warnings | what a configuration says in vain |
//! | inspect | `-check` |
//! | explain | `-explain` |
//! | init | `-init` |
//! | connect | `-check -connect` |
//! | preview | `-preview` |
//! | options, batch_size | what the options and settings do |
//! | limits | limits of processes |
//! | bandwidth | limits of the bandwidth, and options that change by reload |

mod bandwidth;
mod batch_size;
mod broken;
mod command_line;
mod config_errors;
mod connect;
mod drop_in;
mod explain;
mod init;
mod inspect;
mod limits;
mod mistakes;
mod options;
mod own_kinds;
mod preview;
mod warnings;
