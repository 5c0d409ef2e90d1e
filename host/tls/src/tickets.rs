//! TLS session tickets (RFC 8446 4.6.1, RFC 5077) that every worker of a generation can resume.
//!
//! The secret is created when the settings are first read, in the mold, so its workers inherit it. Keys for fixed
//! periods of time are derived from it: all workers change to the next key at the same moment without
//! communication. Each generation has its own secret, so that what a reload changes (certificates, client
//! authorities) is checked again.
//!
//! ```text
//!     ticket:  period (8 bytes) · nonce (12 bytes) · session, encrypted (AES-256-GCM, period as associated data)
//! ```

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::server::ProducesTickets;

/// Encrypts and decrypts tickets.
pub(crate) struct Tickets {
    secret: Prk,
    random: SystemRandom,
}

impl Tickets {
    /// Returns the instance of this process and those forked from it; `None` if the system has no random
    /// source.
    pub(crate) fn shared() -> Option<Arc<dyn ProducesTickets>> {
        static SHARED: OnceLock<Option<Arc<Tickets>>> = OnceLock::new();
        let tickets = SHARED.get_or_init(|| Self::new().map(Arc::new)).clone()?;
        Some(tickets)
    }

    fn new() -> Option<Self> {
        let random = SystemRandom::new();
        let mut secret = [0; SECRET_LEN];
        random.fill(&mut secret).ok()?;
        let secret = Salt::new(HKDF_SHA256, SALT).extract(&secret);
        Some(Self { secret, random })
    }

    fn key(&self, period: u64) -> Option<LessSafeKey> {
        let info = [&period.to_be_bytes()[..]];
        let key = self.secret.expand(&info, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(key)))
    }

    fn seal(&self, period: u64, session: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(HEAD_LEN + session.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&period.to_be_bytes());
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(session);
        let aad = Aad::from(period.to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let key = self.key(period)?;
        let tag = key.seal_in_place_separate_tag(nonce, aad, &mut ticket[HEAD_LEN..]).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    /// Returns the session in a ticket of period `now` or the previous one.
    fn open(&self, now: u64, ticket: &[u8]) -> Option<Vec<u8>> {
        let (head, sealed) = ticket.split_at_checked(HEAD_LEN)?;
        let (period, nonce) = head.split_at(PERIOD_LEN);
        let period = u64::from_be_bytes(period.try_into().ok()?);
        if period > now || period + 1 < now {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut session = sealed.to_vec();
        let aad = Aad::from(period.to_be_bytes());
        let len = self.key(period)?.open_in_place(nonce, aad, &mut session).ok()?.len();
        session.truncate(len);
        Some(session)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        2 * PERIOD_SECONDS as u32
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.seal(period_now(), session)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(period_now(), ticket)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tickets")
    }
}

fn period_now() -> u64 {
    // A clock before 1970 is as good as one that stands there: the period only has to be the same in all workers.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() / PERIOD_SECONDS
}

/// How long a key is used for new tickets. For the same time again it decrypts existing ones.
const PERIOD_SECONDS: u64 = 6 * 3600;
const SECRET_LEN: usize = 32;
const SALT: &[u8] = b"jimu session tickets";
const PERIOD_LEN: usize = 8;
const HEAD_LEN: usize = PERIOD_LEN + NONCE_LEN;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_its_period_and_the_next() {
        let tickets = Tickets::new().unwrap();
        let ticket = tickets.seal(7, b"session").unwrap();
        assert_eq!(tickets.open(7, &ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(tickets.open(8, &ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(tickets.open(9, &ticket), None);
        assert_eq!(tickets.open(6, &ticket), None);
        assert_eq!(Tickets::new().unwrap().open(7, &ticket), None, "another secret");
    }

    #[test]
    fn an_invalid_ticket_is_not_opened() {
        let tickets = Tickets::new().unwrap();
        let ticket = tickets.seal(7, b"session").unwrap();
        for cut in 0..ticket.len() {
            assert_eq!(tickets.open(7, &ticket[..cut]), None, "cut at {cut}");
        }
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.open(7, &changed), None, "changed at {at}");
        }
    }
}
