//! Making the answer to one request, wherever that runs, and the threads for when requests are no coroutines.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::error::{RequestError, StartError};
use crate::http::pauses;
use crate::http::response::Response;
use crate::http::server::{Shared, cannot_start, start_thread};
use crate::http::service::{Request, Service};
use crate::http::socket::{Running, Socket};
use crate::http::worker::Message;
use crate::wait::{CancellablePlace, Canceller};

/// A request to be answered, and whose it is.
pub struct Work<P> {
    pub socket: Arc<Socket<P>>,
    pub request: Request,
    pub plan: P,
    /// Whether it counts among the requests at work.
    pub has_slot: bool,
}

/// A request and its response.
pub struct Answered<P> {
    pub socket: Arc<Socket<P>>,
    pub request: Request,
    pub response: Response,
    pub has_slot: bool,
}

/// Answers a request, however long it takes.
pub fn answer<S: Service>(shared: &Shared<S>, work: Work<S::Plan>) -> Answered<S::Plan> {
    let Work {
        socket,
        mut request,
        plan,
        has_slot,
    } = work;
    let response = catch_unwind(AssertUnwindSafe(|| {
        // The request may have been taken just before this process was stopped.
        let from = request.received.max(pauses::last_end());
        request.deadline = from + shared.deadline;
        if Instant::now() >= request.deadline {
            return waited_too_long(shared).into();
        }
        shared.service.respond(plan, &mut request)
    }));
    Answered {
        socket,
        request,
        has_slot,
        // A mistake in our code costs one request.
        response: response.unwrap_or_else(|_| {
            log::error!("a request panicked; it gets 500");
            RequestError::new(500, "The server made a mistake with this request.").into()
        }),
    }
}

/// 504 for a request whose turn did not come before its deadline.
pub fn waited_too_long<S: Service>(shared: &Shared<S>) -> RequestError {
    RequestError::deadline(shared.deadline, "it waited for others to finish")
}

/// The fixed pool of threads of `Workers::Threads`.
pub struct Threads<P>(Sender<Work<P>>);

impl<P: Send + 'static> Threads<P> {
    /// The pool, and where its threads take their work from.
    pub fn new() -> (Self, Receiver<Work<P>>) {
        let (sender, receiver) = unbounded();
        (Self(sender), receiver)
    }

    /// Gives a request to a thread. There is one for each slot.
    pub fn run(&self, work: Work<P>) {
        // The threads live as long as the process.
        let _ = self.0.send(work);
    }

    /// Starts the threads.
    pub fn start<S: Service<Plan = P>>(
        threads: usize,
        work: &Receiver<Work<P>>,
        shared: &Arc<Shared<S>>,
    ) -> Result<(), StartError> {
        for index in 0..threads {
            let (work, shared) = (work.clone(), Arc::clone(shared));
            // Where a thread is told that a request is cancelled; made here, where it can still be reported.
            let place = CancellablePlace::new().map_err(cannot_start)?;
            start_thread(format!("request-{index}"), move || {
                for work in work {
                    let socket = Arc::clone(&work.socket);
                    let announce = |canceller| announce(&socket, canceller);
                    let answered = place.run(announce, || answer(&shared, work));
                    shared.mailboxes[socket.worker].send(Message::Answered(Box::new(answered)));
                }
            })?;
        }
        Ok(())
    }
}

/// Notes what cancels the request that this thread is about to answer.
fn announce<P>(socket: &Socket<P>, canceller: Canceller) {
    socket.set_running(Some(Running::Thread(canceller)));
    // A hang-up is reported once: if it was before that, the worker found nothing to cancel.
    if socket.has_hung_up()
        && let Some(Running::Thread(canceller)) = socket.take_running()
    {
        socket.connection().close();
        canceller.cancel();
    }
}
