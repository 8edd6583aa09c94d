//! Taking over what a killed daemon has held: sockets and locks.
//!
//! A child inherits all descriptors at fork(2), and closes them at execve(2). If the daemon is killed
//! between the two, its sockets and locks stay in use until the child runs, which takes some
//! milliseconds on a busy host.

use std::thread;
use std::time::{Duration, Instant};

/// The maximum time to wait for such a child.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// The time between two attempts.
const INTERVAL: Duration = Duration::from_millis(20);

/// Returns the result of the attempt. While `is_in_use` is true of its error, the attempt is
/// repeated for a short time.
///
/// # Errors
///
/// The error of the last attempt.
pub fn attempt<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    is_in_use: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let end = Instant::now() + MAX_WAIT;
    loop {
        match attempt() {
            Err(error) if is_in_use(&error) && Instant::now() < end => thread::sleep(INTERVAL),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_use_is_tried_again() {
        let mut results = [Err("in use"), Err("in use"), Ok(1)].into_iter();
        let in_use = |error: &&str| *error == "in use";
        assert_eq!(attempt(|| results.next().unwrap(), in_use), Ok(1));
        let mut results = [Err("broken"), Ok(2)].into_iter();
        assert_eq!(attempt(|| results.next().unwrap(), in_use), Err("broken"));
        assert_eq!(attempt(|| Err::<(), _>("in use"), in_use), Err("in use"));
    }
}
