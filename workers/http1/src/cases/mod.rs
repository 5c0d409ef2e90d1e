//! Raw bytes and the required behavior of a server, each with its source in the RFCs.
//!
//! Data for tests of this crate, and of whole servers, which receive the same bytes over a socket. All cases
//! assume the default settings.

pub mod driver;
pub mod naive;

mod chunks;
mod fields;
mod framing;
mod lines;
mod table;

#[cfg(test)]
mod bytes;
#[cfg(test)]
mod properties;

pub use driver::{End, Transcript, serve};
pub use table::{Case, Expect, Request};

/// All cases, in tables by subject.
pub const CASES: &[&[Case]] = &[lines::CASES, fields::CASES, framing::CASES, chunks::CASES];

#[cfg(test)]
mod tests {
    use super::driver::Served;
    use super::*;
    use crate::Policy;

    #[test]
    fn every_case_ends_as_it_has_to() {
        let mut wrong = Vec::new();
        for case in CASES.iter().copied().flatten() {
            let transcript = serve([case.bytes], &Policy::default());
            if !is_as_expected(&transcript, &case.expect) {
                wrong.push(format!("{} (RFC {}): {transcript:?}", case.name, case.rfc));
            }
        }
        assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    }

    #[test]
    fn the_second_parser_agrees_on_every_case() {
        for case in CASES.iter().copied().flatten() {
            if let Err((ours, other)) = naive::compare(case.bytes) {
                panic!("{} (RFC {})\n ours: {ours:?}\nother: {other:?}", case.name, case.rfc);
            }
        }
    }

    #[test]
    fn no_case_smuggles_a_request() {
        let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        for case in CASES.iter().copied().flatten() {
            if let End::Refused(_) | End::BodyRefused(_) | End::Closed = case.expect.end {
                let transcript = serve([case.bytes, smuggled], &Policy::default());
                assert!(is_as_expected(&transcript, &case.expect), "{}: {transcript:?}", case.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_the_cases_many() {
        let mut keys: Vec<_> =
            CASES.iter().copied().flatten().map(|case| (case.rfc, case.name, case.bytes)).collect();
        assert!(keys.len() >= 400, "{}", keys.len());
        keys.sort_unstable();
        let all = keys.len();
        keys.dedup_by_key(|(.., bytes)| *bytes);
        assert_eq!(keys.len(), all, "the same bytes twice");
    }

    fn is_as_expected(transcript: &Transcript, expect: &Expect) -> bool {
        let same = |(served, request): (&Served, &Request)| {
            served.method == request.method
                && served.target == request.target.as_bytes()
                && served.authority == request.authority
                && served.body == request.body.as_bytes()
        };
        transcript.end == expect.end
            && transcript.served.len() == expect.served.len()
            && transcript.served.iter().zip(expect.served).all(same)
    }
}
