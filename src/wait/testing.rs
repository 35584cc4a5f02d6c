//! Helpers for tests that wait: run a job on a thread, on a thread whose jobs can be cancelled, or in a coroutine.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use super::{CancellableParker, Canceller, Event, Reactor, Remote, Spawned, TaskId};

/// A test that takes longer than this hangs.
pub const LIMIT: Duration = Duration::from_secs(60);
/// The deadline of waits that are expected to time out.
pub const SHORT: Duration = Duration::from_millis(20);

/// Where a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On a plain thread.
    Thread,
    /// On a thread whose jobs can be cancelled.
    CancellableThread,
    /// In a coroutine.
    Coroutine,
}

/// All places.
pub const PLACES: [Place; 3] = [Place::Thread, Place::CancellableThread, Place::Coroutine];
/// The places where a job can be cancelled.
pub const CANCELLABLE: [Place; 2] = [Place::CancellableThread, Place::Coroutine];

/// A running job.
pub struct Job<T> {
    /// Cancels the job.
    pub cancel: Box<dyn Fn() + Send>,
    result: Receiver<thread::Result<T>>,
}

impl<T> Job<T> {
    /// The result of the job. A job that hangs or panics fails the test.
    pub fn join(self) -> T {
        match self.result.recv_timeout(LIMIT) {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => panic!("the job hangs"),
        }
    }
}

/// Starts a job on a new thread, in the given way.
pub fn start<T: Send + 'static>(place: Place, job: impl FnOnce() -> T + Send + 'static) -> Job<T> {
    let (give, result) = bounded(1);
    let cancel: Box<dyn Fn() + Send> = match place {
        Place::Thread => {
            thread::spawn(move || give.send(caught(job)));
            Box::new(|| panic!("jobs on plain threads cannot be cancelled"))
        }
        Place::CancellableThread => {
            let parker = CancellableParker::new().unwrap();
            let (announce, cancellers) = bounded(1);
            thread::spawn(move || {
                let announce = |canceller| announce.send(canceller).unwrap();
                let _ = give.send(parker.run(announce, || caught(job)));
            });
            let canceller: Canceller = cancellers.recv_timeout(LIMIT).unwrap();
            Box::new(move || canceller.cancel())
        }
        Place::Coroutine => {
            let remote = Arc::new(Remote::new().unwrap());
            let is_cancelled = Arc::new(AtomicBool::new(false));
            let (shared, cancelled) = (Arc::clone(&remote), Arc::clone(&is_cancelled));
            thread::spawn(move || {
                let mut worker = TestWorker::with(shared);
                let task = worker.spawn(job);
                while worker.done.is_empty() {
                    worker.turn();
                    if let Some(task) = task
                        && cancelled.swap(false, Ordering::SeqCst)
                    {
                        worker.cancel(task);
                    }
                }
                let _ = give.send(worker.done.remove(0));
            });
            Box::new(move || {
                is_cancelled.store(true, Ordering::SeqCst);
                remote.nudge();
            })
        }
    };
    Job { cancel, result }
}

/// Runs a job and catches its panic.
pub fn caught<T>(job: impl FnOnce() -> T) -> thread::Result<T> {
    catch_unwind(AssertUnwindSafe(job))
}

/// Runs a job in each place.
pub fn everywhere(job: impl Fn() + Clone + Send + 'static) {
    for place in PLACES {
        start(place, job.clone()).join();
    }
}

/// A reactor whose turns the test runs.
pub struct TestWorker<R: 'static> {
    /// The reactor's handle for other threads.
    pub remote: Arc<Remote>,
    reactor: Reactor<R>,
    /// Events of the test's own files.
    pub events: Vec<Event>,
    /// Results of finished coroutines.
    pub done: Vec<thread::Result<R>>,
}

impl<R: 'static> TestWorker<R> {
    /// A worker without coroutines, on the calling thread.
    pub fn new() -> Self {
        Self::with(Arc::new(Remote::new().unwrap()))
    }

    fn with(remote: Arc<Remote>) -> Self {
        Self {
            reactor: Reactor::new(&remote, 0),
            remote,
            events: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Starts a coroutine. `None` if it has finished at once.
    pub fn spawn(&mut self, body: impl FnOnce() -> R + 'static) -> Option<TaskId> {
        self.reactor.prepare().unwrap();
        match self.reactor.spawn(body) {
            Spawned::Done(result) => {
                self.done.push(result);
                None
            }
            Spawned::Waiting(task) => Some(task),
        }
    }

    /// Cancels a coroutine.
    pub fn cancel(&mut self, task: TaskId) {
        self.reactor.cancel(task, &mut self.done);
    }

    /// Runs one turn, waiting for an event.
    pub fn turn(&mut self) {
        self.turn_within(LIMIT);
    }

    /// Runs one turn, waiting at most `limit` for an event.
    pub fn turn_within(&mut self, limit: Duration) {
        let turned = self
            .reactor
            .turn(Some(limit), &mut self.events, &mut self.done);
        turned.unwrap();
    }

    /// Runs until `count` coroutines have finished, and returns their results in the order in which they finished.
    pub fn results(&mut self, count: usize) -> Vec<R> {
        let limit = Instant::now() + LIMIT;
        while self.done.len() < count {
            assert!(Instant::now() < limit, "a coroutine hangs");
            self.turn_within(Duration::from_secs(1));
        }
        self.done.drain(..).map(Result::unwrap).collect()
    }
}

/// A pair of connected non-blocking sockets.
pub fn pair() -> (UnixStream, UnixStream) {
    let (one, other) = UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    other.set_nonblocking(true).unwrap();
    (one, other)
}

/// Writes until the socket is full. Returns how many bytes it took.
pub fn fill(mut socket: &UnixStream) -> usize {
    let mut sum = 0;
    while let Ok(amount) = socket.write(&[0; 4096]) {
        sum += amount;
    }
    sum
}

/// A deadline that passes soon.
pub fn soon() -> Option<Instant> {
    Some(Instant::now() + SHORT)
}

/// A deadline that no passing test reaches.
pub fn far() -> Option<Instant> {
    Some(Instant::now() + LIMIT)
}
