//! Who may do slow work now, who waits, and who is turned away: a plain structure under one mutex.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What becomes of a piece of slow work.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<T> {
    /// Do it now; call [`Slots::next`] when done.
    Run(T),
    /// Kept; whoever is done with something else takes it.
    Queued,
    /// There is no room.
    Refused(T),
}

/// A number of slots, and a bounded backlog for when all are taken.
#[derive(Debug)]
pub struct Slots<T> {
    state: Mutex<State<T>>,
    slots: usize,
    max_backlog: usize,
}

#[derive(Debug)]
struct State<T> {
    taken: usize,
    backlog: VecDeque<T>,
}

impl<T> Slots<T> {
    /// Free slots and an empty backlog.
    pub fn new(slots: usize, max_backlog: usize) -> Self {
        Self {
            state: Mutex::new(State {
                taken: 0,
                backlog: VecDeque::new(),
            }),
            slots,
            max_backlog,
        }
    }

    /// Asks for a slot.
    pub fn admit(&self, work: T) -> Admission<T> {
        let mut state = self.lock();
        if state.taken < self.slots {
            state.taken += 1;
            Admission::Run(work)
        } else if state.backlog.len() < self.max_backlog {
            state.backlog.push_back(work);
            Admission::Queued
        } else {
            Admission::Refused(work)
        }
    }

    /// After a piece of work: the next one from the backlog, else the slot is free again.
    pub fn next(&self) -> Option<T> {
        let mut state = self.lock();
        let next = state.backlog.pop_front();
        if next.is_none() {
            state.taken -= 1;
        }
        next
    }

    /// Gives a slot back with its work undone: it goes to the head of the backlog.
    pub fn give_back(&self, work: T) {
        let mut state = self.lock();
        state.taken -= 1;
        state.backlog.push_front(work);
    }

    /// A slot for work that waits in the backlog, if there are both.
    pub fn take_queued(&self) -> Option<T> {
        let mut state = self.lock();
        if state.taken == self.slots {
            return None;
        }
        let work = state.backlog.pop_front()?;
        state.taken += 1;
        Some(work)
    }

    /// Work running or waiting.
    pub fn in_flight(&self) -> usize {
        let state = self.lock();
        state.taken + state.backlog.len()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_then_queues_then_refuses() {
        let slots = Slots::new(2, 1);
        assert_eq!(slots.admit(1), Admission::Run(1));
        assert_eq!(slots.admit(2), Admission::Run(2));
        assert_eq!(slots.admit(3), Admission::Queued);
        assert_eq!(slots.admit(4), Admission::Refused(4));
        assert_eq!(slots.in_flight(), 3);
        assert_eq!(slots.next(), Some(3));
        assert_eq!(slots.next(), None);
        assert_eq!(slots.in_flight(), 1);
        assert_eq!(slots.admit(5), Admission::Run(5));
        assert_eq!(slots.next(), None);
        assert_eq!(slots.next(), None);
        assert_eq!(slots.in_flight(), 0);
    }

    #[test]
    fn work_given_back_is_taken_by_another() {
        let slots = Slots::new(1, 1);
        assert_eq!(slots.take_queued(), None);
        assert_eq!(slots.admit(1), Admission::Run(1));
        slots.give_back(1);
        assert_eq!(slots.in_flight(), 1);
        assert_eq!(slots.take_queued(), Some(1));
        assert_eq!(slots.admit(2), Admission::Queued);
        assert_eq!(slots.take_queued(), None);
        assert_eq!(slots.next(), Some(2));
    }
}
