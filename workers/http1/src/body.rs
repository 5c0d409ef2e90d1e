//! The body of a request: which of the bytes after the head are its data, and where it ends (RFC 9112 6, 7).

use super::chunked::Chunked;
use super::decoded::Decoded;
use super::fields::Framing;
use super::policy::Policy;
use super::reject::Reject;

/// Finds the body data of one request in the bytes that follow its head.
///
/// After an error it stays in error: the rest of the connection has no meaning.
#[derive(Clone, Debug)]
pub struct BodyDecoder(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// Number of bytes left.
    Length(u64),
    Chunked(Chunked),
}

impl BodyDecoder {
    /// Creates a decoder for a body with this framing and the limits of the policy.
    pub fn new(framing: Framing, policy: &Policy) -> Self {
        Self(match framing {
            Framing::None => Kind::Length(0),
            Framing::Length(length) => Kind::Length(length),
            Framing::Chunked => Kind::Chunked(Chunked::new(policy)),
        })
    }

    /// Decodes a part of `input`: usually up to the end of the first run of data in it. Call it again with
    /// the bytes that were not consumed, followed by new ones. An empty input is not the end of input; see
    /// [`BodyDecoder::eof`]. All of the input is consumed unless data was found or the body ended before.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, Reject> {
        match &mut self.0 {
            Kind::Length(left) => {
                let len = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= len as u64;
                Ok(Decoded { consumed: len, data: 0..len, done: *left == 0 })
            }
            Kind::Chunked(chunked) => chunked.decode(input),
        }
    }

    /// Returns whether the body is complete.
    pub fn is_done(&self) -> bool {
        match &self.0 {
            Kind::Length(left) => *left == 0,
            Kind::Chunked(chunked) => chunked.is_done(),
        }
    }

    /// Returns the number of data bytes that are certain to follow: all of them, or those of the current
    /// chunk; `None` if unknown. With [`Framing::Length`] a reader may read that many bytes from the
    /// connection and decode them as data.
    pub fn remaining_hint(&self) -> Option<u64> {
        match &self.0 {
            Kind::Length(left) => Some(*left),
            Kind::Chunked(chunked) => chunked.remaining_hint(),
        }
    }

    /// Passes over `data`, which is at most [`BodyDecoder::remaining_hint`] bytes long and was read as data already.
    pub fn pass(&mut self, data: &[u8]) -> Result<(), Reject> {
        let decoded = self.decode(data)?;
        debug_assert_eq!(decoded.data, 0..data.len(), "the bytes are data");
        Ok(())
    }

    /// Returns whether `input`, which is not decoded yet, has the rest of the body to its end.
    pub fn ends_within(&self, mut input: &[u8]) -> Result<bool, Reject> {
        let mut ahead = self.clone();
        while !ahead.is_done() && !input.is_empty() {
            input = &input[ahead.decode(input)?.consumed..];
        }
        Ok(ahead.is_done())
    }

    /// Reports the end of the connection: valid after the body, otherwise the message is incomplete (RFC 9112
    /// 8).
    pub fn eof(&self) -> Result<(), Reject> {
        if self.is_done() {
            return Ok(());
        }
        Err(Reject::bad("the connection ended inside the request's body"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &mut BodyDecoder, mut input: &[u8]) -> Result<Vec<u8>, u16> {
        let mut data = Vec::new();
        while !input.is_empty() && !body.is_done() {
            let part = body.decode(input).map_err(|reject| reject.status)?;
            data.extend_from_slice(&input[part.data]);
            input = &input[part.consumed..];
        }
        Ok(data)
    }

    fn chunked(policy: &Policy) -> BodyDecoder {
        BodyDecoder::new(Framing::Chunked, policy)
    }

    #[test]
    fn nothing_is_taken_beyond_the_end() {
        let policy = Policy::default();
        let mut fixed = BodyDecoder::new(Framing::Length(3), &policy);
        assert_eq!(fixed.decode(b"abcdef"), Ok(Decoded { consumed: 3, data: 0..3, done: true }));
        assert_eq!(fixed.decode(b"def"), Ok(Decoded { consumed: 0, data: 0..0, done: true }));
        let mut none = BodyDecoder::new(Framing::None, &policy);
        assert!(none.is_done() && none.eof().is_ok());
        assert_eq!(none.decode(b"GET"), Ok(Decoded { consumed: 0, data: 0..0, done: true }));
        let mut chunked = chunked(&policy);
        assert_eq!(chunked.decode(b"0\r\n\r\nGET").unwrap().consumed, 5);
        assert_eq!(chunked.decode(b"GET"), Ok(Decoded { consumed: 0, data: 0..0, done: true }));
    }

    #[test]
    fn the_end_of_input_is_right_after_the_body_only() {
        let mut decoder = BodyDecoder::new(Framing::Length(3), &Policy::default());
        assert_eq!(decoder.remaining_hint(), Some(3));
        decoder.decode(b"ab").unwrap();
        assert_eq!(decoder.remaining_hint(), Some(1));
        assert_eq!(decoder.eof().map_err(|reject| reject.status), Err(400));
        decoder.decode(b"c").unwrap();
        assert_eq!((decoder.remaining_hint(), decoder.eof()), (Some(0), Ok(())));
    }

    #[test]
    fn data_that_was_read_elsewhere_is_passed_over() {
        let mut fixed = BodyDecoder::new(Framing::Length(3), &Policy::default());
        fixed.pass(b"ab").unwrap();
        assert_eq!(fixed.remaining_hint(), Some(1));
        let mut chunked = chunked(&Policy::default());
        chunked.decode(b"5\r\nh").unwrap();
        assert_eq!(chunked.remaining_hint(), Some(4));
        chunked.pass(b"ello").unwrap();
        assert_eq!(chunked.remaining_hint(), None, "framing follows");
        assert_eq!(read(&mut chunked, b"\r\n1\r\n!\r\n0\r\n\r\n"), Ok(b"!".to_vec()));
        assert!(chunked.is_done());
    }

    #[test]
    fn a_malformed_body_stays_malformed() {
        let mut decoder = chunked(&Policy::default());
        assert!(decoder.decode(b"x").is_err());
        assert!(decoder.decode(b"0\r\n\r\n").is_err());
        assert!(!decoder.is_done() && decoder.eof().is_err());
    }

    #[test]
    fn the_sum_of_chunks_is_limited() {
        let policy = Policy { limit_request_body: 10, ..Policy::default() };
        assert_eq!(
            read(&mut chunked(&policy), b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n"),
            Ok(b"helloworld".to_vec())
        );
        assert_eq!(read(&mut chunked(&policy), b"5\r\nhello\r\n6\r\n"), Err(413));
        assert_eq!(read(&mut chunked(&policy), b"b\r\n"), Err(413));
    }

    #[test]
    fn a_size_line_is_limited() {
        let line = |len: usize| format!("5;{}\r\nhello\r\n", "x".repeat(len - 4));
        assert_eq!(
            read(&mut chunked(&Policy::default()), line(8190).as_bytes()),
            Ok(b"hello".to_vec())
        );
        assert_eq!(read(&mut chunked(&Policy::default()), line(8191).as_bytes()), Err(400));
        let endless = vec![b'0'; 64 * 1024];
        assert_eq!(read(&mut chunked(&Policy::default()), &endless), Err(400));
    }

    /// CVE-2023-39326 and similar attacks: extensions that cost more than the body.
    #[test]
    fn extensions_may_not_outgrow_the_data() {
        let chunk = format!("1;{}\r\nx\r\n", "y".repeat(1000));
        let small = chunk.repeat(1000);
        assert_eq!(read(&mut chunked(&Policy::default()), small.as_bytes()), Err(400));
        // A signature of 85 bytes with each chunk of 64 KiB is in use and must be accepted.
        let signed =
            format!("10000;chunk-signature={}\r\n{}\r\n", "0".repeat(64), "x".repeat(65536));
        let body = [signed.repeat(500), "0\r\n\r\n".to_owned()].concat();
        assert_eq!(
            read(&mut chunked(&Policy::default()), body.as_bytes()).map(|data| data.len()),
            Ok(500 * 65536)
        );
    }

    #[test]
    fn trailers_are_limited() {
        let trailers = |count: usize| format!("0\r\n{}\r\n", "X: y\r\n".repeat(count));
        assert_eq!(
            read(&mut chunked(&Policy::default()), trailers(100).as_bytes()),
            Ok(Vec::new())
        );
        assert_eq!(read(&mut chunked(&Policy::default()), trailers(101).as_bytes()), Err(431));
        let long = format!("0\r\nX: {}\r\n\r\n", "y".repeat(8190));
        assert_eq!(read(&mut chunked(&Policy::default()), long.as_bytes()), Err(431));
    }
}
