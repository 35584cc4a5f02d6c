//! Finishes calls that nobody waits for any more: sends what is left of them and reads over their answers, so that their
//! channels can be used again.
//!
//! This cannot wait: a worker that runs all calls on one thread does nothing else until it has read a call to its end and
//! its answer is taken. One thread does it for all workers, with a coroutine for each call.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::dispatch::pool::Lease;
use crate::handlers::pool::Channels;
use crate::wait::{Mutex, Reactor, Remote};

/// The channel of an abandoned call. Dropped before that is finished, the channel is given up.
#[derive(Debug)]
struct Abandoned(Option<Lease<Channels>>);

/// The way to the thread.
#[derive(Debug)]
struct Finisher {
    calls: Sender<Abandoned>,
    remote: Arc<Remote>,
}

static FINISHER: OnceLock<Finisher> = OnceLock::new();
/// Held while the thread is started.
static STARTING: Mutex<()> = Mutex::new(());

/// Starts the thread, if there is none. To be called before the first call is sent.
///
/// # Errors
/// When it cannot be started.
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
                log::error!("abandoned calls to Python workers are finished no more: {e}");
            }
        })?;
    // Nobody else starts it meanwhile.
    let _ = FINISHER.set(Finisher { calls, remote });
    Ok(())
}

fn finish_all(mut reactor: Reactor<()>, inbox: &Receiver<Abandoned>) -> io::Result<()> {
    let (mut events, mut done) = (Vec::new(), Vec::new());
    loop {
        for call in inbox.try_iter() {
            match reactor.prepare() {
                Ok(()) => drop(reactor.spawn(|| call.finish())),
                Err(e) => log::error!("a channel to a Python worker is given up: {e}"),
            }
        }
        reactor.turn(None, &mut events, &mut done)?;
        done.clear();
    }
}

/// Has the abandoned call on the leased channel finished. The lease ends with that.
pub fn finish(mut lease: Lease<Channels>) {
    // Its code still runs, but nobody is to wait for that.
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
