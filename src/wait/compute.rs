//! Threads for what computes long, so that the requests of a worker do not wait for one another's conversions.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::{Condition, Mutex, task};

type Job = Box<dyn FnOnce() + Send>;

/// The way to the computing threads. Each request has at most one job there.
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
    // A second call in one process, as in tests: the first threads go on.
    let _ = JOBS.set(sender);
    Ok(())
}

/// Bytes that are computed with where they are: it takes a fraction of a millisecond.
const SMALL_BYTES: usize = 256 << 10;

/// Runs `work`, which goes through so many bytes: see [`compute`] if they are many.
pub fn compute_large<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    match bytes > SMALL_BYTES {
        true => compute(work),
        false => work(),
    }
}

/// Runs `work` on a computing thread and waits for it, also when nobody needs the result any more; on a plain thread it runs here.
///
/// # Panics
/// When `work` does.
pub fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let Some(jobs) = JOBS.get().filter(|_| task::is_task()) else {
        return work();
    };
    let place = Arc::new((Mutex::new(None), Condition::new()));
    let theirs = Arc::clone(&place);
    let job = move || {
        let result: Result<T, Box<dyn Any + Send>> = catch_unwind(AssertUnwindSafe(work));
        *theirs.0.lock() = Some(result);
        theirs.1.notify_all();
    };
    // The threads live as long as the process.
    jobs.send(Box::new(job))
        .expect("the computing threads are there");
    let (result, done) = &*place;
    let mut guard = result.lock();
    loop {
        if let Some(result) = guard.take() {
            drop(guard);
            return result.unwrap_or_else(|panic| resume_unwind(panic));
        }
        (guard, _) = done.wait_always(guard, None);
    }
}
