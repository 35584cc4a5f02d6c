//! Finishes calls whose requests no longer wait for them: sends the rest of each call and skips its answer, so that the
//! channel can be used again.
//!
//! This must happen at once: a worker that runs all calls on one thread does nothing until it has read the whole call
//! and the server has taken the answer. One thread finishes the calls of all workers, with a coroutine for each call.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::dispatch::pool::Lease;
use crate::handlers::pool::Channels;
use crate::wait::{Mutex, Reactor, Remote};

/// The leased channel of an abandoned call. When this is dropped before the call is finished, the channel is closed.
#[derive(Debug)]
struct Abandoned(Option<Lease<Channels>>);

/// Passes calls to the thread and wakes the thread.
#[derive(Debug)]
struct Finisher {
    calls: Sender<Abandoned>,
    remote: Arc<Remote>,
}

static FINISHER: OnceLock<Finisher> = OnceLock::new();
/// Held while the thread is being started.
static STARTING: Mutex<()> = Mutex::new(());

/// Starts the thread unless it runs already. To be called before the first call is sent.
///
/// # Errors
/// When the thread cannot be started.
pub fn start() -> io::Result<()> {
    let _starting = STARTING.lock();
    if FINISHER.get().is_some() {
        return Ok(());
    }
    let (calls, inbox) = unbounded();
    let remote = Arc::new(Remote::new()?);
    let theirs = Arc::clone(&remote);
    thread::Builder::new()
        .name("abandoned-calls".into())
        .spawn(move || {
            if let Err(e) = finish_all(Reactor::new(&theirs, 0), &inbox) {
                log::error!("abandoned calls to Python workers are no longer finished: {e}");
            }
        })?;
    // Cannot fail: `STARTING` is held.
    let _ = FINISHER.set(Finisher { calls, remote });
    Ok(())
}

fn finish_all(mut reactor: Reactor<()>, inbox: &Receiver<Abandoned>) -> io::Result<()> {
    let (mut events, mut done) = (Vec::new(), Vec::new());
    loop {
        for call in inbox.try_iter() {
            match reactor.prepare() {
                Ok(()) => drop(reactor.spawn(|| call.finish())),
                // The loop drops the call, which closes its channel.
                Err(e) => log::error!("closing a channel to a Python worker: {e}"),
            }
        }
        reactor.turn(None, &mut events, &mut done)?;
        done.clear();
    }
}

/// Passes the abandoned call on the leased channel to the thread. The lease ends when the call is finished.
pub fn finish(mut lease: Lease<Channels>) {
    // The call may still run for long, and quarantined requests must not wait for it.
    lease.leave_quarantine();
    let call = Abandoned(Some(lease));
    if let Some(finisher) = FINISHER.get()
        && finisher.calls.send(call).is_ok()
    {
        finisher.remote.nudge();
    }
}

impl Abandoned {
    fn finish(mut self) {
        let Some(lease) = &self.0 else { return };
        let (worker, channel) = lease.place();
        if worker.finish(*channel).is_ok() {
            self.0 = None;
        }
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(lease) = self.0.take() {
            let (worker, channel) = lease.place();
            worker.give_up(*channel);
            lease.discard();
        }
    }
}
