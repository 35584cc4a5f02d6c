//! A counting semaphore: limits how many requests of one model run at once.

use std::time::Instant;

use crate::wait::{Condition, Mutex, WaitError};

/// A number of permits that requests take and give back, first come, first served.
#[derive(Debug)]
pub struct Semaphore {
    state: Mutex<State>,
    released: Condition,
}

#[derive(Debug)]
struct State {
    permits: usize,
    /// Requests that wait for one. Others are not to overtake them.
    waiting: usize,
}

impl Semaphore {
    /// A semaphore with this many permits.
    pub fn new(permits: usize) -> Self {
        Self {
            state: Mutex::new(State {
                permits,
                waiting: 0,
            }),
            released: Condition::new(),
        }
    }

    /// Takes a permit if there is one that nobody waits for.
    pub fn try_acquire(&self) -> bool {
        let mut state = self.state.lock();
        state.waiting == 0 && state.take()
    }

    /// Waits for a permit.
    ///
    /// # Errors
    /// See [`WaitError`].
    pub fn acquire(&self, deadline: Instant) -> Result<(), WaitError> {
        let mut state = self.state.lock();
        if state.waiting == 0 && state.take() {
            return Ok(());
        }
        state.waiting += 1;
        let result = loop {
            let waited;
            (state, waited) = self.released.wait(state, Some(deadline));
            if state.take() {
                break Ok(());
            }
            if let Err(error) = waited {
                break Err(error);
            }
        };
        state.waiting -= 1;
        let is_next_due = state.permits > 0 && state.waiting > 0;
        drop(state);
        if is_next_due {
            self.released.notify_one();
        }
        result
    }

    /// Gives a permit back.
    pub fn release(&self) {
        self.state.lock().permits += 1;
        self.released.notify_one();
    }
}

impl State {
    fn take(&mut self) -> bool {
        let is_free = self.permits > 0;
        self.permits -= usize::from(is_free);
        is_free
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn permits_run_out_and_come_back() {
        let semaphore = Semaphore::new(2);
        assert!(semaphore.try_acquire());
        assert!(semaphore.acquire(Instant::now()).is_ok());
        assert!(!semaphore.try_acquire());
        assert!(semaphore.acquire(Instant::now()).is_err());
        semaphore.release();
        assert!(semaphore.try_acquire());
    }

    #[test]
    fn a_release_wakes_one_that_waits() {
        let semaphore = Semaphore::new(0);
        thread::scope(|scope| {
            let waiting =
                [(); 2].map(|()| scope.spawn(|| semaphore.acquire(Instant::now() + LONG)));
            semaphore.release();
            semaphore.release();
            for thread in waiting {
                thread.join().unwrap().unwrap();
            }
        });
        assert!(!semaphore.try_acquire());
    }
}
