//! Records each request in the worker's slot of the scoreboard and in the access log. The hot path: without an
//! access log it has no allocation, no lock and no system call.

use worker_api::{AccessRecord, Counter, RequestHead};

use crate::clock;
use crate::log::AccessLog;
use crate::scoreboard::{InFlightToken, REQUEST_TEXT_MAX, SlotWriter};

/// Records the start of a request. The returned token is never 0. `with_query` tells whether the status may show
/// the query.
pub(super) fn began(slot: SlotWriter, head: &RequestHead<'_>, with_query: bool) -> u32 {
    let mut text = [0; REQUEST_TEXT_MAX];
    let length = describe(head, with_query, &mut text);
    // The class has just read the clock: do not read it again.
    let start_ns = if head.received_ns == 0 { clock::now_ns() } else { head.received_ns };
    slot.begin_request(&text[..length], start_ns).to_number()
}

/// Records the end of a request. Token 0 is that of a request that was refused before it started.
pub(super) fn ended(
    slot: SlotWriter,
    access: Option<&AccessLog>,
    token: u32,
    record: &AccessRecord<'_>,
) {
    let announced = record.head.into_option().and_then(|head| head.content_length.into_option());
    let duration_us = record.duration_ns / NANOS_PER_MICRO;
    slot.count_response(record.status, duration_us, announced.unwrap_or(0), record.body_bytes);
    // After the count, so that a request that is no longer in flight is already counted.
    if token != 0 {
        slot.end_request(InFlightToken::from_number(token));
    }
    if let Some(access) = access {
        access.record(record);
    }
}

/// Adds to a counter. Counters that this host does not have are ignored.
pub(super) fn count(slot: SlotWriter, counter: Counter, by: i64) {
    match counter {
        Counter::ACCEPTED => slot.count_accepted(by.max(0) as u64),
        Counter::CONNECTIONS => slot.count_connections(by),
        Counter::BUSY_SLOTS => slot.count_busy_request_slots(by),
        Counter::SLOTS => slot.count_request_slots(by),
        Counter::QUEUED_US => slot.count_queued(by.max(0) as u64),
        Counter::UPGRADED => slot.count_upgraded(by),
        Counter::MESSAGES_RECEIVED => slot.count_messages_received(by.max(0) as u64),
        Counter::MESSAGES_SENT => slot.count_messages_sent(by.max(0) as u64),
        _ => {}
    }
}

/// Writes method and target, as far as there is room; without the query, which may hold secrets, unless
/// requested.
fn describe(head: &RequestHead<'_>, with_query: bool, text: &mut [u8; REQUEST_TEXT_MAX]) -> usize {
    let target = head.target.as_slice();
    // The query is the end of the target, after a question mark.
    let hidden = if with_query || head.query.is_empty() { 0 } else { head.query.len() + 1 };
    let target = &target[..target.len().saturating_sub(hidden)];
    let mut length = 0;
    for part in [head.method.as_str().as_bytes(), b" ", target] {
        let part = &part[..part.len().min(text.len() - length)];
        text[length..length + part.len()].copy_from_slice(part);
        length += part.len();
    }
    length
}

const NANOS_PER_MICRO: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::{IN_FLIGHT_MAX, Scoreboard, SlotReader, Totals};
    use worker_api::abi::std_types::{ROption, RSlice, RStr};
    use worker_api::{Address, Header, Version};

    fn head<'a>(target: &'a [u8], headers: &'a [Header<'a>]) -> RequestHead<'a> {
        let nowhere = Address { host: RStr::from_str("127.0.0.1"), port: 0 };
        RequestHead {
            method: RStr::from_str("PUT"),
            target: RSlice::from_slice(target),
            path: RSlice::from_slice(target),
            query: RSlice::EMPTY,
            authority: RStr::from_str("localhost"),
            version: Version::HTTP_11,
            trusted_peer: false,
            chunked: false,
            content_length: ROption::RSome(7),
            scheme: RStr::from_str("http"),
            headers: RSlice::from_slice(headers),
            peer: nowhere,
            local: nowhere,
            tls: ROption::RNone,
            received_ns: 1,
            id: 0,
        }
    }

    fn record<'a>(head: Option<&'a RequestHead<'a>>, status: u16) -> AccessRecord<'a> {
        AccessRecord {
            head: head.into(),
            request_line: RSlice::EMPTY,
            peer: Address { host: RStr::from_str(""), port: 0 },
            status,
            body_bytes: 20,
            duration_ns: 1_500_000,
            response_headers: RSlice::EMPTY,
        }
    }

    fn slot() -> (Scoreboard, SlotWriter, SlotReader) {
        let board = Scoreboard::new().unwrap();
        let (_, writer, reader) = crate::scoreboard::tests::claim(&board, 1, 1);
        (board, writer, reader)
    }

    #[test]
    fn a_query_is_shown_only_on_request() {
        let head =
            RequestHead { query: RSlice::from_slice(b"key=secret"), ..head(b"/a?key=secret", &[]) };
        for (with_query, shown) in [(true, "PUT /a?key=secret"), (false, "PUT /a")] {
            let mut text = [0; REQUEST_TEXT_MAX];
            let length = describe(&head, with_query, &mut text);
            assert_eq!(&text[..length], shown.as_bytes());
        }
    }

    #[test]
    fn a_request_is_shown_while_it_runs_and_counted_at_its_end() {
        let (_board, writer, reader) = slot();
        let head = head(b"/slow?a=1", &[]);
        let token = began(writer, &head, true);
        assert_ne!(token, 0);
        assert_eq!(reader.in_flight()[0].text, "PUT /slow?a=1");
        ended(writer, None, token, &record(Some(&head), 404));
        let snapshot = reader.snapshot();
        assert_eq!(reader.in_flight(), vec![]);
        assert_eq!((snapshot.held, snapshot.totals.requests), (0, 1));
        assert_eq!(snapshot.totals.statuses.values().sum::<u64>(), 1);
        assert_eq!((snapshot.totals.bytes_in, snapshot.totals.bytes_out), (7, 20));
    }

    #[test]
    fn requests_without_a_start_or_a_response_are_counted_once() {
        let (_board, writer, reader) = slot();
        ended(writer, None, 0, &record(None, 400));
        let head = head(b"/", &[]);
        let token = began(writer, &head, true);
        ended(writer, None, token, &record(Some(&head), 0));
        let snapshot = reader.snapshot();
        assert_eq!((snapshot.held, snapshot.totals.requests), (0, 2));
        assert_eq!(snapshot.totals.statuses.values().sum::<u64>(), 1);
    }

    #[test]
    fn targets_and_requests_may_be_arbitrarily_long_and_many() {
        let (_board, writer, reader) = slot();
        let target = [b'/'; 9000];
        let head = head(&target, &[]);
        let tokens: Vec<_> = (0..IN_FLIGHT_MAX * 2).map(|_| began(writer, &head, true)).collect();
        assert_eq!(reader.in_flight().len(), IN_FLIGHT_MAX);
        assert_eq!(reader.in_flight()[0].text.len(), REQUEST_TEXT_MAX);
        for token in tokens {
            ended(writer, None, token, &record(Some(&head), 200));
        }
        assert_eq!((reader.snapshot().held, reader.in_flight().len()), (0, 0));
    }

    #[test]
    fn unknown_counters_change_nothing() {
        let (_board, writer, reader) = slot();
        count(writer, Counter(200), 5);
        count(writer, Counter::ACCEPTED, -5);
        count(writer, Counter::CONNECTIONS, 2);
        count(writer, Counter::MESSAGES_SENT, -5);
        let snapshot = reader.snapshot();
        assert_eq!((snapshot.totals.accepted, snapshot.connections), (0, 2));
        assert_eq!(snapshot.totals.messages_sent, 0);
    }

    #[test]
    fn upgraded_connections_and_their_messages_are_counted() {
        let (_board, writer, reader) = slot();
        for (counter, by) in [
            (Counter::UPGRADED, 1),
            (Counter::UPGRADED, 1),
            (Counter::MESSAGES_RECEIVED, 3),
            (Counter::MESSAGES_SENT, 2),
            (Counter::UPGRADED, -1),
        ] {
            count(writer, counter, by);
        }
        let snapshot = reader.snapshot();
        let Totals { messages_received, messages_sent, .. } = snapshot.totals;
        assert_eq!((snapshot.upgraded, messages_received, messages_sent), (1, 3, 2));
    }
}
