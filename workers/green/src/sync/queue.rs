//! A bounded queue between greenlets of one thread. For values from other threads, see
//! [`Handle::call`](crate::Handle::call).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use super::Semaphore;
use crate::interrupt::Interrupt;

/// A first-in, first-out queue. Inserting into a full queue waits, and so does removing from an empty one.
#[derive(Debug)]
pub struct Queue<T> {
    items: RefCell<VecDeque<T>>,
    filled: Semaphore,
    room: Semaphore,
}

/// The value that did not fit.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T> Queue<T> {
    /// Creates a queue of at most `items_max` values.
    pub fn new(items_max: usize) -> Self {
        Self {
            items: RefCell::new(VecDeque::new()),
            filled: Semaphore::new(0),
            room: Semaphore::new(items_max),
        }
    }

    /// Appends a value, waiting up to `timeout` for room. Returns the value if there was none.
    pub fn put(
        &self,
        item: T,
        timeout: Option<Duration>,
    ) -> Result<Result<(), Full<T>>, Interrupt> {
        if !self.room.acquire(timeout)? {
            return Ok(Err(Full(item)));
        }
        self.append(item);
        Ok(Ok(()))
    }

    /// Appends a value if there is room.
    pub fn try_put(&self, item: T) -> Result<(), Full<T>> {
        if !self.room.try_acquire() {
            return Err(Full(item));
        }
        self.append(item);
        Ok(())
    }

    /// Removes the first value, waiting up to `timeout` for one.
    pub fn get(&self, timeout: Option<Duration>) -> Result<Option<T>, Interrupt> {
        if !self.filled.acquire(timeout)? {
            return Ok(None);
        }
        Ok(self.take_first())
    }

    /// Removes the first value if there is one.
    pub fn try_get(&self) -> Option<T> {
        if self.filled.try_acquire() { self.take_first() } else { None }
    }

    /// Returns the number of values in the queue.
    pub fn len(&self) -> usize {
        self.items.borrow().len()
    }

    /// Returns whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn append(&self, item: T) {
        self.items.borrow_mut().push_back(item);
        self.filled.release();
    }

    /// Each permit of `filled` stands for one value, so there is one.
    fn take_first(&self) -> Option<T> {
        let item = self.items.borrow_mut().pop_front();
        self.room.release();
        item
    }
}
