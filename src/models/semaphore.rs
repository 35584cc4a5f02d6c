//! A counting semaphore, which limits how many requests of one model run at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::wait::{Condition, Mutex, WaitError};

/// A number of permits that requests take and give back. Waiting requests get them in order of arrival.
#[derive(Debug)]
pub struct Semaphore {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Free permits; 0 while requests wait.
    permits: usize,
    /// The number of the last request that began to wait.
    last: u64,
    /// The waiting requests, by number in order of arrival. A request that was removed from here has been given a
    /// permit.
    waiting: BTreeMap<u64, Arc<Condition>>,
}

impl Semaphore {
    /// A semaphore with this many permits.
    pub fn new(permits: usize) -> Self {
        Self {
            state: Mutex::new(State {
                permits,
                last: 0,
                waiting: BTreeMap::new(),
            }),
        }
    }

    /// Takes a permit if one is free.
    pub fn try_acquire(&self) -> bool {
        self.state.lock().take()
    }

    /// Takes a permit, and waits for one until `deadline`.
    ///
    /// # Errors
    /// See [`WaitError`]; no permit is taken then.
    pub fn acquire(&self, deadline: Instant) -> Result<(), WaitError> {
        let mut state = self.state.lock();
        if state.take() {
            return Ok(());
        }
        state.last += 1;
        let (number, given) = (state.last, Arc::new(Condition::new()));
        state.waiting.insert(number, Arc::clone(&given));
        loop {
            let waited;
            (state, waited) = given.wait(state, Some(deadline));
            let is_given = !state.waiting.contains_key(&number);
            match waited {
                Ok(()) if is_given => return Ok(()),
                Ok(()) => {}
                Err(error) => {
                    state.waiting.remove(&number);
                    drop(state);
                    if is_given {
                        self.release();
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Gives a permit back: to the request that has waited longest, if one waits.
    pub fn release(&self) {
        let mut state = self.state.lock();
        let first = state.waiting.pop_first();
        state.permits += usize::from(first.is_none());
        drop(state);
        if let Some((_, given)) = first {
            given.notify_one();
        }
    }

    /// The number of waiting requests.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
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
    use crate::wait::testing::{CANCELLABLE, PLACES, SHORT, TestWorker, start};
    use crate::wait::until;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    /// A limit longer than any test takes.
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn permits_run_out_and_can_be_given_back() {
        let semaphore = Semaphore::new(2);
        assert!(semaphore.try_acquire());
        assert!(semaphore.acquire(Instant::now()).is_ok());
        assert!(!semaphore.try_acquire());
        assert!(semaphore.acquire(Instant::now()).is_err());
        semaphore.release();
        assert!(semaphore.try_acquire());
    }

    #[test]
    fn a_request_that_came_later_and_wakes_earlier_does_not_take_the_permit() {
        let semaphore = Arc::new(Semaphore::new(0));
        let mut worker = TestWorker::new();
        let its_semaphore = Arc::clone(&semaphore);
        // This coroutine does not run until the end, as on a busy worker.
        let first = worker.spawn(move || its_semaphore.acquire(Instant::now() + LONG));
        assert!(first.is_some());
        thread::scope(|scope| {
            let second = scope.spawn(|| semaphore.acquire(Instant::now() + 5 * SHORT));
            while semaphore.waiting() < 2 && !second.is_finished() {
                thread::yield_now();
            }
            semaphore.release();
            assert_eq!(second.join().unwrap(), Err(WaitError::TimedOut));
        });
        assert!(!semaphore.try_acquire(), "the first request has it");
        assert_eq!(worker.results(1), [Ok(())]);
        semaphore.release();
        assert!(semaphore.try_acquire(), "no request waits");
    }

    #[test]
    fn among_many_requests_no_permit_is_lost() {
        let semaphore = Arc::new(Semaphore::new(2));
        let at_work = Arc::new(AtomicUsize::new(0));
        let jobs = Vec::from_iter((0..12).map(|number: usize| {
            let (semaphore, at_work) = (Arc::clone(&semaphore), Arc::clone(&at_work));
            start(PLACES[number % PLACES.len()], move || {
                for visit in number..number + 100 {
                    let is_patient = !visit.is_multiple_of(3);
                    let patience = match is_patient {
                        true => LONG,
                        false => Duration::from_micros(visit as u64),
                    };
                    let acquired = semaphore.acquire(Instant::now() + patience);
                    assert!(!is_patient || acquired.is_ok());
                    if acquired.is_ok() {
                        assert!(at_work.fetch_add(1, Ordering::SeqCst) < 2);
                        let _ = until(Instant::now() + Duration::from_micros(20));
                        at_work.fetch_sub(1, Ordering::SeqCst);
                        semaphore.release();
                    }
                }
            })
        }));
        jobs.into_iter().for_each(|job| job.join());
        assert_eq!(semaphore.waiting(), 0);
        assert!(semaphore.try_acquire() && semaphore.try_acquire() && !semaphore.try_acquire());
    }

    #[test]
    fn a_request_that_hangs_up_passes_its_permit_on() {
        for round in 0..100 {
            let semaphore = Arc::new(Semaphore::new(0));
            let wait = |number: usize| {
                let semaphore = Arc::clone(&semaphore);
                start(CANCELLABLE[(round + number) % 2], move || {
                    let acquired = semaphore.acquire(Instant::now() + LONG);
                    if acquired.is_ok() {
                        semaphore.release();
                    }
                    acquired
                })
            };
            let hangs_up = wait(0);
            while semaphore.waiting() < 1 {
                thread::yield_now();
            }
            let stays = wait(1);
            while semaphore.waiting() < 2 {
                thread::yield_now();
            }
            thread::scope(|scope| {
                scope.spawn(|| semaphore.release());
                (hangs_up.cancel)();
            });
            let _either = hangs_up.join();
            assert_eq!(stays.join(), Ok(()));
            assert!(semaphore.try_acquire());
        }
    }

    #[test]
    fn each_release_wakes_one_waiting_request() {
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
