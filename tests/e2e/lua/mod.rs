//! What user code finds and does.
//!
//! | file | what it is about |
//! |---|---|
//! | api | functions and tables of the configuration |
//! | exit_codes | the meaning of exit codes |
//! | events | functions that are called for events |
//! | texts | actions as texts |
//! | crontab, observed, tunnels | the keys and functions of these names |

mod api;
mod crontab;
mod events;
mod exit_codes;
mod observed;
mod texts;
mod tunnels;
