//! Threads that run until a common signal stops them.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A flag for many threads, set once: time to stop.
#[derive(Clone, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    pub fn set(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    pub fn is_set(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Waits until the flag is set, at most for this time; returns whether it is set.
    pub fn wait(&self, limit: Duration) -> bool {
        let (is_set, changed) = &*self.0;
        let is_set = is_set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(is_set, limit, |is_set| !*is_set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Threads that stop together.
#[derive(Default)]
pub struct Load {
    pub stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn spawn(&mut self, name: String, run: impl FnOnce(&Stop) + Send + 'static) {
        let stop = self.stop.clone();
        let thread = thread::Builder::new().name(name).spawn(move || run(&stop));
        self.threads.push(thread.expect("threads can be started"));
    }

    /// Stops all threads. Reports those that panicked, without which a run would pass for the wrong reason, and those
    /// that have not ended in time.
    pub fn end(self, limit: Duration) -> Vec<String> {
        self.stop.set();
        let until = Instant::now() + limit;
        let mut problems = Vec::new();
        for thread in self.threads {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            while !thread.is_finished() && Instant::now() < until {
                thread::sleep(Duration::from_millis(5));
            }
            if !thread.is_finished() {
                problems.push(format!("{name} never ended"));
            } else if thread.join().is_err() {
                problems.push(format!("{name} panicked"));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_fails_or_does_not_end_is_a_problem() {
        let mut load = Load::default();
        let held = Stop::default();
        load.spawn("bad".into(), |_| panic!("on purpose"));
        load.spawn("stuck".into(), {
            let held = held.clone();
            move |_| assert!(held.wait(Duration::MAX))
        });
        crate::support::wait_until("one has panicked", || load.threads[0].is_finished());
        let problems = load.end(Duration::from_millis(100));
        held.set();
        assert_eq!(problems, ["bad panicked", "stuck never ended"]);
    }
}
