//! Reads over the answers that nobody waits for any more, so that their channels can be used again.
//!
//! Somebody must, and at once: a worker that runs all calls on one thread can do nothing else until its answer is taken.
//! One thread does it for all workers, with a coroutine for each channel that owes an answer.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::dispatch::pool::Lease;
use crate::handlers::pool::Channels;
use crate::wait::{Mutex, Reactor, Remote};

/// A channel that owes an answer. Dropped before that was read, the channel is given up.
#[derive(Debug)]
struct Debt(Option<Lease<Channels>>);

/// The way to the thread.
#[derive(Debug)]
struct Reader {
    debts: Sender<Debt>,
    remote: Arc<Remote>,
}

static READER: OnceLock<Reader> = OnceLock::new();
/// Held while the thread is started.
static STARTING: Mutex<()> = Mutex::new(());

/// Starts the thread, if there is none. To be called before the first call is sent.
///
/// # Errors
/// When it cannot be started.
pub fn start_reader() -> io::Result<()> {
    let _starting = STARTING.lock();
    if READER.get().is_some() {
        return Ok(());
    }
    let (debts, inbox) = unbounded();
    let remote = Arc::new(Remote::new()?);
    let theirs = Arc::clone(&remote);
    thread::Builder::new()
        .name("late-answers".into())
        .spawn(move || {
            if let Err(e) = read_all(Reactor::new(&theirs, 0), &inbox) {
                log::error!("late answers of Python workers are read no more: {e}");
            }
        })?;
    // Nobody else starts it meanwhile.
    let _ = READER.set(Reader { debts, remote });
    Ok(())
}

fn read_all(mut reactor: Reactor<()>, inbox: &Receiver<Debt>) -> io::Result<()> {
    let (mut events, mut done) = (Vec::new(), Vec::new());
    loop {
        for debt in inbox.try_iter() {
            match reactor.prepare() {
                Ok(()) => drop(reactor.spawn(|| debt.settle())),
                Err(e) => log::error!("a channel to a Python worker is given up: {e}"),
            }
        }
        reactor.turn(None, &mut events, &mut done)?;
        done.clear();
    }
}

/// Has the answer read over that the leased channel owes. The lease ends with that.
pub fn read_over(mut lease: Lease<Channels>) {
    // Its code still runs, but nobody is to wait for that.
    lease.leave_quarantine();
    let debt = Debt(Some(lease));
    if let Some(reader) = READER.get()
        && reader.debts.send(debt).is_ok()
    {
        reader.remote.nudge();
    }
}

impl Debt {
    fn settle(mut self) {
        let Some(lease) = &self.0 else { return };
        let (worker, channel) = lease.place();
        if worker.read_over(*channel).is_ok() {
            self.0 = None;
        }
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        if let Some(lease) = self.0.take() {
            let (worker, channel) = lease.place();
            worker.give_up(*channel);
            lease.discard();
        }
    }
}
