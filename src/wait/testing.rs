//! Where tests wait: threads, threads whose work can be cancelled, and coroutines.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use super::{CancellablePlace, Canceller, Event, Reactor, Remote, Spawned, TaskId};

/// A test that takes longer hangs.
pub const LIMIT: Duration = Duration::from_secs(60);
/// A wait that is to end by its deadline takes as long.
pub const SHORT: Duration = Duration::from_millis(20);

/// Where code waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Thread,
    CancellableThread,
    Coroutine,
}

pub const PLACES: [Place; 3] = [Place::Thread, Place::CancellableThread, Place::Coroutine];
pub const CANCELLABLE: [Place; 2] = [Place::CancellableThread, Place::Coroutine];

/// A job that runs in a place.
pub struct Job<T> {
    pub cancel: Box<dyn Fn() + Send>,
    result: Receiver<thread::Result<T>>,
}

impl<T> Job<T> {
    /// Its result. A job that hangs or panics fails the test.
    pub fn join(self) -> T {
        match self.result.recv_timeout(LIMIT) {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => panic!("it hangs"),
        }
    }
}

/// Starts a job on a thread of its own.
pub fn start<T: Send + 'static>(place: Place, job: impl FnOnce() -> T + Send + 'static) -> Job<T> {
    let (give, result) = bounded(1);
    let cancel: Box<dyn Fn() + Send> = match place {
        Place::Thread => {
            thread::spawn(move || give.send(caught(job)));
            Box::new(|| panic!("nothing cancels this"))
        }
        Place::CancellableThread => {
            let place = CancellablePlace::new().unwrap();
            let (announce, cancellers) = bounded(1);
            thread::spawn(move || {
                let announce = |canceller| announce.send(canceller).unwrap();
                let _ = give.send(place.run(announce, || caught(job)));
            });
            let canceller: Canceller = cancellers.recv_timeout(LIMIT).unwrap();
            Box::new(move || canceller.cancel())
        }
        Place::Coroutine => {
            let remote = Arc::new(Remote::new().unwrap());
            let is_cancelled = Arc::new(AtomicBool::new(false));
            let (theirs, cancelled) = (Arc::clone(&remote), Arc::clone(&is_cancelled));
            thread::spawn(move || {
                let mut worker = TestWorker::with(theirs);
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

pub fn caught<T>(job: impl FnOnce() -> T) -> thread::Result<T> {
    catch_unwind(AssertUnwindSafe(job))
}

/// Runs a job in each kind of place.
pub fn everywhere(job: impl Fn() + Clone + Send + 'static) {
    for place in PLACES {
        start(place, job.clone()).join();
    }
}

/// A reactor that the test drives.
pub struct TestWorker<R: 'static> {
    pub remote: Arc<Remote>,
    reactor: Reactor<R>,
    pub events: Vec<Event>,
    pub done: Vec<thread::Result<R>>,
}

impl<R: 'static> TestWorker<R> {
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

    /// Starts a coroutine, which waits afterwards unless it is done.
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

    pub fn cancel(&mut self, task: TaskId) {
        self.reactor.cancel(task, &mut self.done);
    }

    /// Waits for something to happen.
    pub fn turn(&mut self) {
        self.turn_within(LIMIT);
    }

    pub fn turn_within(&mut self, limit: Duration) {
        let turned = self
            .reactor
            .turn(Some(limit), &mut self.events, &mut self.done);
        turned.unwrap();
    }

    /// The results of so many coroutines, in the order of their ends.
    pub fn results(&mut self, count: usize) -> Vec<R> {
        let limit = Instant::now() + LIMIT;
        while self.done.len() < count {
            assert!(Instant::now() < limit, "it hangs");
            self.turn_within(Duration::from_secs(1));
        }
        self.done.drain(..).map(Result::unwrap).collect()
    }
}

/// Two connected sockets that do not block.
pub fn pair() -> (UnixStream, UnixStream) {
    let (one, other) = UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    other.set_nonblocking(true).unwrap();
    (one, other)
}

/// Writes until no more fits. How much did.
pub fn fill(mut socket: &UnixStream) -> usize {
    let mut sum = 0;
    while let Ok(amount) = socket.write(&[0; 4096]) {
        sum += amount;
    }
    sum
}

pub fn soon() -> Option<Instant> {
    Some(Instant::now() + SHORT)
}

pub fn far() -> Option<Instant> {
    Some(Instant::now() + LIMIT)
}
