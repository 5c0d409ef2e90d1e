//! Which ping a pong belongs to. When to ping and when to give up is the caller's, who has the clock.

use super::error::SendError;
use super::sender::Sender;

/// Numbered pings of a connection, and whether the latest is outstanding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Keepalive {
    sent: u64,
    acknowledged: u64,
}

impl Keepalive {
    /// Appends a ping with the next number.
    pub fn ping(&mut self, sender: &mut Sender, out: &mut Vec<u8>) -> Result<(), SendError> {
        sender.ping(&(self.sent + 1).to_be_bytes(), out)?;
        self.sent += 1;
        Ok(())
    }

    /// Takes the payload of a pong. Returns whether it is that of a ping not yet acknowledged; the pings before
    /// that one are acknowledged with it (RFC 6455 5.5.3).
    pub fn pong(&mut self, payload: &[u8]) -> bool {
        let Ok(number) = payload.try_into().map(u64::from_be_bytes) else { return false };
        let is_new = self.acknowledged < number && number <= self.sent;
        if is_new {
            self.acknowledged = number;
        }
        is_new
    }

    /// Returns whether the peer has yet to acknowledge the latest ping.
    pub const fn is_outstanding(&self) -> bool {
        self.acknowledged < self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Role, Settings};

    #[test]
    fn a_pong_acknowledges_its_ping_and_those_before() {
        let mut sender = Sender::new(Role::Server, &Settings::default());
        let mut keepalive = Keepalive::default();
        assert!(!keepalive.is_outstanding() && !keepalive.pong(&0_u64.to_be_bytes()));
        let mut out = Vec::new();
        for _ in 0..3 {
            keepalive.ping(&mut sender, &mut out).unwrap();
        }
        assert_eq!(&out[..10], b"\x89\x08\0\0\0\0\0\0\0\x01");
        assert!(keepalive.pong(&2_u64.to_be_bytes()) && keepalive.is_outstanding());
        assert!(!keepalive.pong(&1_u64.to_be_bytes()), "acknowledged with the second");
        assert!(!keepalive.pong(&4_u64.to_be_bytes()), "never sent");
        assert!(!keepalive.pong(b"hello") && keepalive.is_outstanding());
        assert!(keepalive.pong(&3_u64.to_be_bytes()) && !keepalive.is_outstanding());
    }

    #[test]
    fn a_ping_that_cannot_be_sent_is_not_outstanding() {
        let mut sender = Sender::new(Role::Server, &Settings::default());
        let mut out = Vec::new();
        sender.close(crate::CloseCode::NORMAL, "", &mut out).unwrap();
        let mut keepalive = Keepalive::default();
        assert_eq!(keepalive.ping(&mut sender, &mut out), Err(SendError::Closed));
        assert!(!keepalive.is_outstanding());
    }
}
