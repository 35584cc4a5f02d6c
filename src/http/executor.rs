//! Making the answer to one request, wherever that runs, and the threads for when requests are no coroutines.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;

use crate::error::{RequestError, StartError};
use crate::http::service::Service;
use crate::http::shared::{Answered, Message, Shared, Work, cannot_start, start_thread};
use crate::http::socket::{Running, Socket};
use crate::pauses;
use crate::wait::{CancellablePlace, Canceller};

/// Answers a request, however long it takes.
pub fn answer<S: Service>(shared: &Shared<S>, work: Work<S::Plan>) -> Answered<S::Plan> {
    let Work {
        socket,
        mut request,
        plan,
        has_slot,
    } = work;
    let response = catch_unwind(AssertUnwindSafe(|| {
        // This process may have been stopped while the request arrived or waited.
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

/// Starts the fixed pool of threads of [`Workers::Threads`](crate::http::Workers::Threads), one for each slot.
pub fn start_threads<S: Service>(
    threads: usize,
    work: &Receiver<Work<S::Plan>>,
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
