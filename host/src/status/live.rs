//! The scoreboard in the status process: the inherited memory, and the slots that the arbiter has created since,
//! each received as a descriptor.

use std::os::fd::{AsFd as _, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::message::{Channel, Received, ToStatus};
use crate::scoreboard::Scoreboard;

/// Source of the metrics.
#[derive(Clone, Copy)]
pub(super) struct LiveScoreboard<'a> {
    pub(super) scoreboard: &'a Scoreboard,
    pub(super) slots: &'a Channel,
}

impl<'a> LiveScoreboard<'a> {
    /// Becomes readable when slots are created.
    pub(super) fn descriptor(self) -> BorrowedFd<'a> {
        self.slots.as_fd()
    }

    /// Returns the scoreboard with all current slots.
    pub(super) fn current(self) -> &'a Scoreboard {
        while self.is_readable() {
            match self.slots.receive_with::<ToStatus>() {
                Ok((Received::Message(ToStatus::Slot { index, serial }, _), Some(memory))) => {
                    if let Err(error) = self.scoreboard.adopt(index, serial, &memory) {
                        tracing::error!("cannot map slot {index} of the scoreboard: {error}");
                    }
                }
                Ok((Received::Message(..) | Received::Garbled(_), _)) => {}
                Ok((Received::Nothing | Received::Closed, _)) | Err(_) => break,
            }
        }
        self.scoreboard
    }

    fn is_readable(self) -> bool {
        let mut polled = [PollFd::new(self.descriptor(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}
