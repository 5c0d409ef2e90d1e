//! A connection in memory: what a server would serve of the bytes that a client sends, and how the connection
//! ends.

use worker_api::Header;

use crate::{BodyDecoder, Head, HeadScan, Policy, Reject, Scan, normalize, parse_head};

/// A request that was served with a complete body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Served {
    /// Method.
    pub method: String,
    /// Target as sent.
    pub target: Vec<u8>,
    /// Authority.
    pub authority: String,
    /// Headers for the application.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Body, without framing.
    pub body: Vec<u8>,
}

/// How a connection ends, or its state when all bytes are consumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The server waits for another request.
    Idle,
    /// The server waits for the rest of a head.
    InHead,
    /// The server waits for the rest of a body: the application has been called and waits for data.
    InBody,
    /// The last request announced the end: what follows it is ignored.
    Closed,
    /// A head was rejected with this status, and the connection closed. The application is not called.
    Refused(u16),
    /// A body was rejected with this status, and the connection closed. The application may have been called.
    BodyRefused(u16),
}

/// Outcome of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transcript {
    /// Requests that were served, in order.
    pub served: Vec<Served>,
    /// How it ended.
    pub end: End,
}

/// Serves the bytes, which arrive in these parts.
///
/// # Panics
/// If the crate violates its contract: these are assertions of tests.
pub fn serve<'p>(parts: impl IntoIterator<Item = &'p [u8]>, policy: &Policy) -> Transcript {
    let mut connection = Connection::default();
    for part in parts {
        connection.receive(part, policy);
    }
    let end = connection.end.unwrap_or(match &connection.body {
        Some(_) => End::InBody,
        None if connection.scan.is_idle() && connection.buf.is_empty() => End::Idle,
        None => End::InHead,
    });
    Transcript { served: connection.served, end }
}

#[derive(Default)]
struct Connection {
    buf: Vec<u8>,
    scan: HeadScan,
    body: Option<(BodyDecoder, Served, bool)>,
    served: Vec<Served>,
    end: Option<End>,
}

impl Connection {
    fn receive(&mut self, part: &[u8], policy: &Policy) {
        self.buf.extend_from_slice(part);
        while self.end.is_none() {
            let step = if self.body.is_some() {
                self.read_body().map_err(|reject| End::BodyRefused(reject.status))
            } else {
                self.read_head(policy).map_err(|reject| End::Refused(reject.status))
            };
            match step {
                Ok(true) => {}
                Ok(false) => return,
                Err(end) => self.end = Some(end),
            }
        }
    }

    /// Reads a head; returns whether there is more to do.
    fn read_head(&mut self, policy: &Policy) -> Result<bool, Reject> {
        if self.scan.advance(&self.buf, policy)? == Scan::Incomplete {
            assert!(self.buf.len() <= policy.head_max(), "an incomplete head is beyond its bound");
            return Ok(false);
        }
        if policy.rewrites() {
            normalize(&mut self.buf, policy);
        }
        let mut headers = Vec::new();
        let head = parse_head(&self.buf, policy, &mut headers)?;
        let head = head.expect("the scan has found the head to be complete");
        assert!(head.len <= policy.head_max(), "a head is beyond its bound");
        let decoder = BodyDecoder::new(head.framing, policy);
        self.body = Some((decoder, describe(&head, &headers), head.persistent()));
        let len = head.len;
        self.buf.drain(..len);
        self.scan = HeadScan::new();
        Ok(true)
    }

    /// Reads a part of a body; returns whether there is more to do.
    fn read_body(&mut self) -> Result<bool, Reject> {
        let (body, served, _) = self.body.as_mut().expect("a body is being read");
        let decoded = body.decode(&self.buf)?;
        assert!(decoded.consumed <= self.buf.len(), "more was consumed than there was");
        assert!(decoded.data.end <= decoded.consumed, "data was found beyond what was consumed");
        assert_eq!(decoded.done, body.is_done(), "two answers to whether the body is done");
        assert_eq!(
            decoded.done,
            body.eof().is_ok(),
            "the end of input is right after the body only"
        );
        served.body.extend_from_slice(&self.buf[decoded.data.clone()]);
        self.buf.drain(..decoded.consumed);
        if !decoded.done {
            assert!(
                !decoded.data.is_empty() || self.buf.is_empty(),
                "bytes were left for no reason"
            );
            return Ok(!self.buf.is_empty());
        }
        let (_, served, persistent) = self.body.take().expect("a body is being read");
        self.served.push(served);
        if !persistent {
            self.end = Some(End::Closed);
        }
        Ok(true)
    }
}

fn describe(head: &Head<'_>, headers: &[Header<'_>]) -> Served {
    let field = |field: &Header<'_>| (field.name.to_string(), field.value.to_vec());
    Served {
        method: head.method.to_owned(),
        target: head.target.to_vec(),
        authority: String::from_utf8_lossy(head.authority.as_bytes()).into_owned(),
        fields: headers.iter().map(field).collect(),
        body: Vec::new(),
    }
}
