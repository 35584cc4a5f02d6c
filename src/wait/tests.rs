//! Tests that run on threads and in coroutines (`everywhere.rs`, `cancelling.rs`), and tests of coroutines alone
//! (`coroutines.rs`, `computing.rs`).

mod cancelling;
mod computing;
mod coroutines;
mod everywhere;

use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::testing::*;
use super::*;

/// A number that tests wait for.
#[derive(Default)]
struct Counter {
    number: Mutex<usize>,
    changed: Condition,
}

impl Counter {
    fn set(&self, number: usize) {
        *self.number.lock() = number;
        self.changed.notify_all();
    }

    /// Waits until the number is at least this.
    fn reach(&self, number: usize) {
        let mut guard = self.number.lock();
        while *guard < number {
            let result;
            (guard, result) = self.changed.wait(guard, far());
            assert_ne!(
                result,
                Err(WaitError::TimedOut),
                "the number is not reached"
            );
        }
    }
}
