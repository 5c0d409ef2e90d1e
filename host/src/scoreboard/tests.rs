//! Both kinds of memory, and the effects of writers, as seen by readers.

use super::*;

/// A slot of a board, with a writer and a reader for it.
pub(crate) fn claim(
    board: &Scoreboard,
    generation: u32,
    age: u64,
) -> (u32, SlotWriter, SlotReader) {
    let claimed = board.claim(generation, age).unwrap();
    let writer = SlotWriter::new().unwrap();
    writer.enter(claimed.memory).unwrap();
    (claimed.index, writer, board.reader(claimed.index).unwrap())
}

pub(super) fn boards() -> [Scoreboard; 2] {
    [Scoreboard::map(false).unwrap(), Scoreboard::map(true).unwrap()]
}

#[test]
fn a_slot_is_claimed_once_and_can_be_claimed_again_after_its_release() {
    for board in boards() {
        let (first, writer, reader) = claim(&board, 1, 1);
        writer.count_accepted(5);
        let (second, ..) = claim(&board, 1, 2);
        assert_ne!(first, second);
        board.release(first);
        writer.count_accepted(5);
        board.release(first);
        let (again, ..) = claim(&board, 2, 3);
        assert_eq!(again, first);
        assert_eq!(board.occupied().count(), 2);
        let snapshot = reader.snapshot();
        assert_eq!((snapshot.generation, snapshot.age), (2, 3));
        // Only a private file keeps later writes of a worker that has been declared dead.
        assert_eq!(snapshot.totals.accepted, if board.area.is_inherited() { 5 } else { 0 });
    }
}

#[test]
fn a_full_board_refuses_and_stays_intact() {
    let board = Scoreboard::new().unwrap();
    for age in 1..=SLOTS_MAX as u64 {
        assert!(board.claim(1, age).is_ok());
    }
    assert!(matches!(board.claim(1, 1), Err(ClaimError::Full)));
    assert_eq!(board.claim(1, 0).unwrap().index as usize, SLOTS_MAX, "a mold needs none of these");
    assert_eq!(board.occupied().count(), SLOTS_MAX);
    board.release(7);
    assert_eq!(board.claim(1, 1).unwrap().index, 7);
}

#[test]
fn the_arbiter_reads_what_a_worker_writes() {
    let board = Scoreboard::new().unwrap();
    let (index, writer, reader) = claim(&board, 3, 9);
    board.note_pid(index, 17);
    writer.set_state(WorkerState::Ready);
    writer.heartbeat();
    let token = writer.begin_request(b"GET /slow", 1);
    writer.count_accepted(1);
    writer.count_response(404, 1_500, 10, 20);
    writer.count_connections(3);
    writer.count_connections(-1);
    writer.count_upgraded(2);
    writer.count_upgraded(-1);
    writer.count_messages_received(7);
    writer.count_messages_sent(8);
    writer.count_request_slots(8);
    writer.count_busy_request_slots(-1);
    writer.leave_last_words("the application panicked");

    let snapshot = reader.snapshot();
    assert_eq!(snapshot.pid, 17);
    assert_eq!((snapshot.generation, snapshot.age), (3, 9));
    assert_eq!(snapshot.state, WorkerState::Ready);
    assert_eq!((snapshot.totals.accepted, snapshot.totals.requests, snapshot.held), (1, 1, 1));
    assert_eq!(snapshot.totals.statuses, [(404, 1)].into());
    assert_eq!(
        (snapshot.connections, snapshot.busy_request_slots, snapshot.request_slots),
        (2, 0, 8)
    );
    assert_eq!(snapshot.upgraded, 1);
    assert_eq!((snapshot.totals.messages_received, snapshot.totals.messages_sent), (7, 8));
    assert_eq!((snapshot.totals.bytes_in, snapshot.totals.bytes_out), (10, 20));
    assert_eq!(snapshot.totals.latency.iter().sum::<u64>(), 1);
    assert_eq!(snapshot.last_words.as_deref(), Some("the application panicked"));
    let in_flight = reader.in_flight();
    assert_eq!(in_flight.len(), 1);
    assert_eq!(in_flight[0].text, "GET /slow");

    writer.end_request(token);
    assert_eq!(reader.in_flight(), vec![]);
    assert_eq!(reader.snapshot().held, 0);
}

#[test]
fn more_requests_than_entries_are_counted_all_the_same() {
    let board = Scoreboard::new().unwrap();
    let (_, writer, reader) = claim(&board, 1, 1);
    let tokens: Vec<_> =
        (0..IN_FLIGHT_MAX + 3).map(|_| writer.begin_request(b"GET /", 1)).collect();
    assert_eq!(reader.in_flight().len(), IN_FLIGHT_MAX);
    assert_eq!(reader.snapshot().held as usize, IN_FLIGHT_MAX + 3);
    for token in tokens {
        writer.end_request(token);
    }
    assert_eq!(reader.snapshot().held, 0);
}

#[test]
fn long_texts_are_truncated_at_a_character() {
    let board = Scoreboard::new().unwrap();
    let (_, writer, reader) = claim(&board, 1, 1);
    let _held = writer.begin_request(&[b'a'; 500], 1);
    assert_eq!(reader.in_flight()[0].text, "a".repeat(REQUEST_TEXT_MAX));
    writer.leave_last_words(&"ä".repeat(LAST_WORDS_MAX));
    assert_eq!(reader.snapshot().last_words, Some("ä".repeat(LAST_WORDS_MAX / 2)));
}

#[test]
fn a_reader_never_mixes_two_requests() {
    let board = Scoreboard::new().unwrap();
    let (_, writer, reader) = claim(&board, 1, 1);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..20_000u32 {
                let letter = if round % 2 == 0 { b'a' } else { b'b' };
                let token = writer.begin_request(&[letter; 100], 1);
                writer.end_request(token);
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            for request in reader.in_flight() {
                let first = request.text.chars().next();
                assert_eq!(request.text.len(), 100);
                assert!(request.text.chars().all(|letter| Some(letter) == first));
            }
        }
    });
}

#[test]
fn garbage_in_every_byte_is_read_as_plausible_values() {
    for board in boards() {
        let (index, writer, reader) = claim(&board, 1, 1);
        board.note_pid(index, 17);
        for garbage in
            [u64::MAX, u64::MAX / 2, 0x8080_8080_8080_8080, 1 << 63, 0x0101_0101_0101_0101]
        {
            writer.scribble(garbage);
            let snapshot = reader.snapshot();
            assert_eq!((snapshot.pid, snapshot.generation, snapshot.age), (17, 1, 1));
            assert!(reader.heartbeat_ns() <= crate::clock::now_ns());
            assert!(snapshot.held <= 1 << 24 && snapshot.connections <= 1 << 24);
            let requests = reader.in_flight();
            assert!(requests.iter().all(|request| request.text.len() <= 3 * REQUEST_TEXT_MAX));
            let mut totals = snapshot.totals.clone();
            totals.add(&snapshot.totals);
            assert!(totals.statuses.keys().all(|status| (100..600).contains(status)));
            board.logged();
        }
        writer.scribble(u64::MAX);
        board.release(index);
        assert_eq!(board.logged(), [0; 5]);
        let requests: u64 = board.ledger().ended().iter().map(|(_, all)| all.requests).sum();
        assert_eq!(requests, 0);
    }
}

#[test]
fn a_slot_cannot_be_shrunk() {
    let board = Scoreboard::new().unwrap();
    let claimed = board.claim(1, 1).unwrap();
    let SlotMemory::File(file) = claimed.memory else { return };
    assert_eq!(nix::unistd::ftruncate(&file, 0), Err(Errno::EPERM));
}

#[test]
fn children_of_a_worker_have_no_slot() {
    for board in boards() {
        let (_, writer, reader) = claim(&board, 1, 1);
        writer.count_accepted(1);
        // SAFETY: the child calls async-signal-safe functions only, and exits.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                writer.count_accepted(10);
                writer.set_state(WorkerState::Draining);
                writer.leave_last_words("not mine");
                crate::process::exit_now(0)
            }
            nix::unistd::ForkResult::Parent { child } => {
                let ended = nix::sys::wait::waitpid(child, None).unwrap();
                assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(child, 0));
            }
        }
        let snapshot = reader.snapshot();
        assert_eq!(snapshot.totals.accepted, 1);
        assert_eq!((snapshot.state, snapshot.last_words), (WorkerState::Booting, None));
    }
}

#[test]
fn a_slot_created_by_another_process_counts_once_it_is_mapped() {
    let board = Scoreboard::new().unwrap();
    let claimed = board.claim(1, 1).unwrap();
    let SlotMemory::File(file) = &claimed.memory else { return };
    // As in a process that was forked before.
    board.mapped[claimed.index as usize].store(0, Ordering::Relaxed);
    assert_eq!(board.occupied().count(), 0);
    board.adopt(claimed.index, claimed.serial, file).unwrap();
    assert_eq!(board.occupied().count(), 1);
}
