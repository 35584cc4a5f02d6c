//! Memory for the bodies of all requests in flight: what is received, its conversion, and the answer.
//!
//! A new body, or more of one, is taken only while there is room. What belongs to a request that was accepted is
//! counted, too, but never refused: so the limit can be passed by what accepted requests grow to, and whoever comes
//! then is turned away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// All the memory there is for bodies.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
}

/// A request's part of it, given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// Room for `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
        })
    }

    /// Bytes that fit in all.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether so many bytes more would fit now.
    pub fn has_room(&self, bytes: usize) -> bool {
        let used = self.used.load(Ordering::Relaxed);
        used.saturating_add(bytes) <= self.limit
    }

    /// A share that is empty yet.
    pub fn share(self: &Arc<Self>) -> Share {
        Share {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }
}

impl Share {
    /// Takes as much as is needed to have `bytes`, if there is room for that.
    pub fn try_grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let fits = |used: usize| {
            let total = used.checked_add(more)?;
            (total <= self.budget.limit).then_some(total)
        };
        let (relaxed, used) = (Ordering::Relaxed, &self.budget.used);
        let grown = more == 0 || used.fetch_update(relaxed, relaxed, fits).is_ok();
        if grown {
            self.bytes = self.bytes.max(bytes);
        }
        grown
    }

    /// Has `bytes` from now on, whether or not there is room for them.
    pub fn set(&mut self, bytes: usize) {
        let used = &self.budget.used;
        if bytes >= self.bytes {
            used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_bodies_must_fit_and_accepted_ones_may_grow() {
        let budget = Budget::new(100);
        let (mut first, mut second) = (budget.share(), budget.share());
        assert!(first.try_grow_to(60));
        assert!(first.try_grow_to(10), "it has that already");
        assert!(!second.try_grow_to(41));
        assert!(second.try_grow_to(40));
        assert!(budget.has_room(0) && !budget.has_room(1));
        second.set(200);
        assert!(!budget.has_room(0));
        second.set(30);
        assert!(budget.has_room(10) && !budget.has_room(11));
        drop((first, second));
        assert!(budget.has_room(100) && !budget.has_room(usize::MAX));
    }
}
