//! Waiting by polling, for conditions without an event. Those with one (a line, a datagram, the end of a process)
//! are awaited by [`crate::output`], [`crate::launch`] and [`crate::process`].

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// Polls until the condition holds. The `Err` of a poll describes the current state; the last one becomes the
/// failure when the limit has passed.
pub fn until<T, E: Display>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(instead) => {
                assert!(Instant::now() < deadline, "{what}: not within {limit:?}: {instead}");
            }
        }
        thread::sleep(BETWEEN);
    }
}

/// Polling interval: short enough not to slow a test, long enough not to load the server.
const BETWEEN: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_the_end_is_found() {
        let mut looks = 0;
        let third = until("the third look", Duration::from_secs(10), || {
            looks += 1;
            (looks == 3).then_some(looks).ok_or("too few")
        });
        assert_eq!(third, 3);
    }

    #[test]
    fn what_does_not_come_is_named_with_what_is_there() {
        let wait = || until("a miracle", Duration::ZERO, || Err::<(), _>("nothing"));
        let said = std::panic::catch_unwind(wait).unwrap_err().downcast::<String>().unwrap();
        assert_eq!(*said, "a miracle: not within 0ns: nothing");
    }
}
