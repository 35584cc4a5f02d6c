//! The limit on running requests: decides which requests run, which wait in the backlog, and which are refused.
//!
//! It only counts and queues: the workers run the requests and report when they are done.

use std::collections::VecDeque;

use crate::wait::{Mutex, MutexGuard};

/// What happens to a request that asks for a slot.
#[derive(Debug, PartialEq, Eq)]
pub enum Placement<T> {
    /// It has a slot and runs now. Call [`Slots::next`] when it is done.
    Run(T),
    /// It waits in the backlog until a slot is free.
    Queued,
    /// The backlog is full.
    Refused(T),
}

/// A fixed number of slots, and a bounded backlog for the time when all are taken.
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
    /// Creates `slots` free slots and an empty backlog for `max_backlog` requests.
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

    /// Asks for a slot. If all are taken, queues the work while the backlog has room.
    pub fn admit(&self, work: T) -> Placement<T> {
        let mut state = self.lock();
        if state.taken < self.slots {
            state.taken += 1;
            Placement::Run(work)
        } else if state.backlog.len() < self.max_backlog {
            state.backlog.push_back(work);
            Placement::Queued
        } else {
            Placement::Refused(work)
        }
    }

    /// Passes a slot on when its work is done: returns the next work from the backlog, or frees the slot if the backlog
    /// is empty.
    pub fn next(&self) -> Option<T> {
        let mut state = self.lock();
        let next = state.backlog.pop_front();
        if next.is_none() {
            state.taken -= 1;
        }
        next
    }

    /// Removes the work for which `matches` returns true from the backlog, and returns it.
    pub fn take_from_backlog(&self, matches: impl Fn(&T) -> bool) -> Vec<T> {
        let backlog = &mut self.lock().backlog;
        let (taken, others) = backlog.drain(..).partition(matches);
        *backlog = others;
        Vec::from(taken)
    }

    /// Whether further work would be refused.
    pub fn is_full(&self) -> bool {
        let state = self.lock();
        state.taken == self.slots && state.backlog.len() >= self.max_backlog
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_then_queues_then_refuses() {
        let slots = Slots::new(2, 1);
        assert_eq!(slots.admit(1), Placement::Run(1));
        assert_eq!(slots.admit(2), Placement::Run(2));
        assert_eq!(slots.admit(3), Placement::Queued);
        assert!(slots.is_full());
        assert_eq!(slots.admit(4), Placement::Refused(4));
        assert_eq!(slots.next(), Some(3));
        assert!(!slots.is_full());
        assert_eq!(slots.next(), None);
        assert_eq!(slots.admit(5), Placement::Run(5));
        assert_eq!(slots.next(), None);
        assert_eq!(slots.next(), None);
    }

    #[test]
    fn removes_matching_work_from_the_backlog() {
        let slots = Slots::new(1, 4);
        assert_eq!(slots.admit(0), Placement::Run(0));
        for work in 1..5 {
            assert_eq!(slots.admit(work), Placement::Queued);
        }
        let mut odd = slots.take_from_backlog(|work| work % 2 == 1);
        odd.sort_unstable();
        assert_eq!(odd, [1, 3]);
        assert_eq!(slots.next(), Some(2));
        assert_eq!(slots.next(), Some(4));
        assert_eq!(slots.next(), None);
    }
}
