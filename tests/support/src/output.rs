//! The output of a process, collected by a thread and awaited by tests.

use std::{
    io::Read,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// The text that a process has written so far.
#[derive(Clone, Debug, Default)]
pub struct Output(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    text: String,
    ended: bool,
}

impl Output {
    /// Collects `stream` until its last writer closes it.
    pub fn of(mut stream: impl Read + Send + 'static) -> Self {
        let output = Self::default();
        let writer = output.clone();
        thread::spawn(move || {
            let mut chunk = [0; 16 << 10];
            loop {
                let n = stream.read(&mut chunk).unwrap_or(0);
                let mut state = writer.0.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.text.push_str(&String::from_utf8_lossy(&chunk[..n]));
                state.ended = n == 0;
                writer.0.changed.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        output
    }

    /// Returns everything that has been written.
    pub fn text(&self) -> String {
        self.0.state.lock().unwrap().text.clone()
    }

    /// Returns the number of lines that contain `word`.
    pub fn count(&self, word: &str) -> usize {
        self.text().lines().filter(|line| line.contains(word)).count()
    }

    /// Waits for a line that contains all of `words`, ignoring case, and returns it.
    pub fn line(&self, words: &[&str], limit: Duration) -> String {
        self.line_after(0, words, limit)
    }

    /// Like [`Output::line`], among the output after the first `start` bytes.
    pub fn line_after(&self, start: usize, words: &[&str], limit: Duration) -> String {
        let wanted: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
        self.until(limit, |text| {
            let tail = text.get(start..)?;
            let complete = &tail[..=tail.rfind('\n')?];
            let found = complete.lines().find(|line| {
                let line = line.to_lowercase();
                wanted.iter().all(|word| line.contains(word.as_str()))
            })?;
            Some(found.to_owned())
        })
        .unwrap_or_else(|| panic!("no line with {words:?} within {limit:?}"))
    }

    /// Returns the length of the output: a mark for [`Output::line_after`].
    pub fn mark(&self) -> usize {
        self.0.state.lock().unwrap().text.len()
    }

    /// Waits until `found` finds something in the text; `None` if it did not within the limit or before the
    /// end.
    pub fn until<T>(&self, limit: Duration, found: impl Fn(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut state = self.0.state.lock().unwrap();
        loop {
            if let Some(value) = found(&state.text) {
                return Some(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended {
                return None;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits until the last writer has closed the stream.
    pub fn ended(&self, limit: Duration) -> bool {
        let state = self.0.state.lock().unwrap();
        let (state, _) =
            self.0.changed.wait_timeout_while(state, limit, |state| !state.ended).unwrap();
        state.ended
    }
}
