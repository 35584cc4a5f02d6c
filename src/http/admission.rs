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

    /// Takes the work that `is_meant` out of the backlog.
    pub fn take_from_backlog(&self, is_meant: impl Fn(&T) -> bool) -> Vec<T> {
        let backlog = &mut self.lock().backlog;
        let (meant, others) = backlog.drain(..).partition(is_meant);
        *backlog = others;
        Vec::from(meant)
    }

    /// Whether more work would be refused.
    pub fn is_full(&self) -> bool {
        let state = self.lock();
        state.taken == self.slots && state.backlog.len() >= self.max_backlog
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
        assert!(slots.is_full());
        assert_eq!(slots.admit(4), Admission::Refused(4));
        assert_eq!(slots.next(), Some(3));
        assert!(!slots.is_full());
        assert_eq!(slots.next(), None);
        assert_eq!(slots.admit(5), Admission::Run(5));
        assert_eq!(slots.next(), None);
        assert_eq!(slots.next(), None);
    }

    #[test]
    fn what_waits_can_be_taken_out() {
        let slots = Slots::new(1, 4);
        assert_eq!(slots.admit(0), Admission::Run(0));
        for work in 1..5 {
            assert_eq!(slots.admit(work), Admission::Queued);
        }
        let mut odd = slots.take_from_backlog(|work| work % 2 == 1);
        odd.sort_unstable();
        assert_eq!(odd, [1, 3]);
        assert_eq!(slots.next(), Some(2));
        assert_eq!(slots.next(), Some(4));
        assert_eq!(slots.next(), None);
    }
}
