//! Runs a request to its response, on whatever thread calls it, and starts the pool of threads for requests that are
//! not coroutines. The connection's worker sends the response.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;

use crate::error::{RequestError, StartError};
use crate::http::service::Service;
use crate::http::shared::{Answered, Message, Shared, Work, cannot_start, start_thread};
use crate::http::socket::{Running, Socket};
use crate::pauses;
use crate::wait::{CancellableParker, Canceller};

/// Runs a request to its response. A panic of the service becomes 500.
pub fn answer<S: Service>(shared: &Shared<S>, work: Work<S::Plan>) -> Answered<S::Plan> {
    let Work {
        socket,
        mut request,
        plan,
        has_slot,
    } = work;
    let response = catch_unwind(AssertUnwindSafe(|| {
        // The deadline does not count time before the end of the last pause of this process.
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
        // A bug in the service costs one request.
        response: response.unwrap_or_else(|_| {
            log::error!("the server panicked while handling a request; the client gets 500");
            RequestError::new(
                500,
                "The server failed to handle this request because of an internal error.",
            )
            .into()
        }),
    }
}

/// 504 for a request that got no slot before its deadline.
pub fn waited_too_long<S: Service>(shared: &Shared<S>) -> RequestError {
    RequestError::deadline(shared.deadline, "the request waited for others to finish")
}

/// Starts the fixed pool of threads for [`Workers::Threads`](crate::http::Workers::Threads), one for each slot.
pub fn start_threads<S: Service>(
    threads: usize,
    work: &Receiver<Work<S::Plan>>,
    shared: &Arc<Shared<S>>,
) -> Result<(), StartError> {
    for index in 0..threads {
        let (work, shared) = (work.clone(), Arc::clone(shared));
        // Cancels the waits of this thread. Made here, where a failure still ends the start.
        let parker = CancellableParker::new().map_err(cannot_start)?;
        start_thread(format!("request-{index}"), move || {
            for work in work {
                let socket = Arc::clone(&work.socket);
                let store_canceller = |canceller| store_canceller(&socket, canceller);
                let answered = parker.run(store_canceller, || answer(&shared, work));
                shared.mailboxes[socket.worker].send(Message::Answered(Box::new(answered)));
            }
        })?;
    }
    Ok(())
}

/// Stores the canceller of the request that this thread is about to run.
fn store_canceller<P>(socket: &Socket<P>, canceller: Canceller) {
    socket.set_running(Some(Running::Thread(canceller)));
    // The hang-up is reported once. If that was before this point, the worker found nothing to cancel.
    if socket.has_hung_up()
        && let Some(Running::Thread(canceller)) = socket.take_running()
    {
        socket.connection().close();
        canceller.cancel();
    }
}
