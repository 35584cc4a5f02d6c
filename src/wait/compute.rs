//! Threads for long computations, such as converting large bodies, so that these do not delay the other requests of a
//! worker.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::{Condition, Mutex, task};

type Job = Box<dyn FnOnce() + Send>;

/// The queue of the computing threads. It needs no bound: each request has at most one job in it.
static JOBS: OnceLock<Sender<Job>> = OnceLock::new();

/// Starts the computing threads of this process.
///
/// # Errors
/// When a thread cannot be started.
pub fn start_computing(threads: usize) -> io::Result<()> {
    let (sender, receiver) = unbounded::<Job>();
    for index in 0..threads {
        let jobs: Receiver<Job> = receiver.clone();
        thread::Builder::new()
            .name(format!("compute-{index}"))
            .spawn(move || jobs.iter().for_each(|job| job()))?;
    }
    // Tests call this more than once in a process. Jobs keep going to the first threads.
    let _ = JOBS.set(sender);
    Ok(())
}

/// Computations on up to this many bytes stay on the worker. They take a fraction of a millisecond.
const SMALL_BYTES: usize = 256 << 10;

/// Runs `work`, which processes `bytes` bytes: by [`compute`] if they are many, otherwise here.
pub fn compute_large<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    match bytes > SMALL_BYTES {
        true => compute(work),
        false => work(),
    }
}

/// Runs `work` on a computing thread and waits for the result, even if the job is cancelled. On a plain thread, runs
/// `work` here.
///
/// # Panics
/// When `work` panics.
pub fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let Some(jobs) = JOBS.get().filter(|_| task::is_task()) else {
        return work();
    };
    let shared = Arc::new((Mutex::new(None), Condition::new()));
    let of_job = Arc::clone(&shared);
    let job = move || {
        let result: Result<T, Box<dyn Any + Send>> = catch_unwind(AssertUnwindSafe(work));
        *of_job.0.lock() = Some(result);
        of_job.1.notify_all();
    };
    // The threads live as long as the process.
    jobs.send(Box::new(job))
        .expect("the computing threads are there");
    let (result, done) = &*shared;
    let mut guard = result.lock();
    loop {
        if let Some(result) = guard.take() {
            drop(guard);
            return result.unwrap_or_else(|panic| resume_unwind(panic));
        }
        (guard, _) = done.wait_always(guard, None);
    }
}
