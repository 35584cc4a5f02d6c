//! A counting semaphore: limits how many requests of one model run at once.

use std::time::Instant;

use crate::wait::{Condition, Mutex, MutexGuard, WaitError};

/// A number of permits that requests take and give back.
#[derive(Debug)]
pub struct Semaphore {
    permits: Mutex<usize>,
    released: Condition,
}

impl Semaphore {
    /// A semaphore with this many permits.
    pub fn new(permits: usize) -> Self {
        Self {
            permits: Mutex::new(permits),
            released: Condition::new(),
        }
    }

    /// Takes a permit if there is one.
    pub fn try_acquire(&self) -> bool {
        take(&mut self.lock())
    }

    /// Waits for a permit.
    ///
    /// # Errors
    /// See [`WaitError`].
    pub fn acquire(&self, deadline: Instant) -> Result<(), WaitError> {
        let mut permits = self.lock();
        while !take(&mut permits) {
            let waited;
            (permits, waited) = self.released.wait(permits, Some(deadline));
            waited?;
        }
        Ok(())
    }

    /// Gives a permit back.
    pub fn release(&self) {
        *self.lock() += 1;
        self.released.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.permits.lock()
    }
}

fn take(permits: &mut usize) -> bool {
    let is_free = *permits > 0;
    *permits -= usize::from(is_free);
    is_free
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
