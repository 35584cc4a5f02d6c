//! The requests of a worker's connections: starts each in its lane, and finishes or cancels it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use super::{SocketOf, Worker, stopping};
use crate::error::RequestError;
use crate::http::access_log::log_access;
use crate::http::admission::TOO_MANY_REQUESTS;
use crate::http::connection::Arrived;
use crate::http::executor::answer;
use crate::http::response::{self, Response, ResponseWriter};
use crate::http::service::{Lane, Planned, Request, Service};
use crate::http::shared::{Answered, Message, Work, start_thread};
use crate::http::slots::Placement;
use crate::http::socket::{Running, Socket};
use crate::wait::Spawned;

impl<S: Service> Worker<S> {
    /// Starts a request in the lane of its plan, or queues or refuses it.
    pub(super) fn dispatch(
        &mut self,
        socket: &SocketOf<S>,
        arrived: Arrived,
        planned: Planned<S::Plan>,
    ) {
        let shared = Arc::clone(&self.shared);
        let Arrived {
            head,
            body,
            received,
        } = arrived;
        let work = Work {
            socket: Arc::clone(socket),
            request: Request {
                head,
                body,
                received,
                deadline: received + shared.deadline,
            },
            plan: planned.plan,
            has_slot: planned.lane == Lane::Request,
        };
        match planned.lane {
            Lane::Immediate => {
                let answered = answer(&shared, work);
                self.send(
                    socket,
                    Some(&answered.request.head),
                    answered.response,
                    received,
                );
            }
            _ if shared.is_refusing.load(Ordering::SeqCst) => {
                self.reply(socket, work.request, stopping().into());
            }
            Lane::Thread => self.run_on_thread(work),
            Lane::Request => match shared.slots.admit(work) {
                Placement::Run(work) => self.runnable.push_back(work),
                Placement::Queued => {}
                Placement::Refused(work) => self.turn_away(work),
            },
        }
    }

    /// Starts a request that has a slot.
    pub(super) fn start(&mut self, work: Work<S::Plan>) {
        let socket = Arc::clone(&work.socket);
        if socket.has_hung_up() {
            close(&socket);
            return self.finish(Answered {
                socket,
                request: work.request,
                has_slot: work.has_slot,
                response: RequestError::hung_up().into(),
            });
        }
        if let Some(threads) = &self.shared.threads {
            // Never fails: the threads live as long as the process.
            let _ = threads.send(work);
            return;
        }
        if let Err(e) = self.reactor.prepare() {
            log::error!("no memory for a request's stack: {e}");
            return self.finish(Answered {
                socket,
                request: work.request,
                has_slot: work.has_slot,
                response: RequestError::busy("There is no memory for the request; try again.")
                    .into(),
            });
        }
        let shared = Arc::clone(&self.shared);
        match self.reactor.spawn(move || answer(&shared, work)) {
            Spawned::Done(result) => self.done.push(result),
            Spawned::Waiting(task) => socket.set_running(Some(Running::Coroutine(task))),
        }
    }

    /// Runs a request on a thread of its own. If none can be started, the service decides what happens.
    pub(super) fn run_on_thread(&mut self, work: Work<S::Plan>) {
        // A channel, so that the work can be taken back if the thread does not start.
        let (give, take) = crossbeam_channel::bounded::<Work<S::Plan>>(1);
        let (taken, shared) = (take.clone(), Arc::clone(&self.shared));
        let run = move || {
            for work in taken.try_iter() {
                let worker = work.socket.worker;
                let answered = answer(&shared, work);
                shared.mailboxes[worker].send(Message::Answered(Box::new(answered)));
            }
        };
        // Never fails: the channel has room for one.
        let _ = give.send(work);
        let Err(error) = start_thread("manage".into(), run) else {
            return;
        };
        log::error!("{error}");
        for work in take.try_iter() {
            match self.shared.service.without_thread(&work.plan, &error) {
                Some(response) => self.reply(&work.socket, work.request, response),
                None => self.runnable.push_back(work),
            }
        }
    }

    /// Sends a response, and passes the slot to the next request.
    pub(super) fn finish(&mut self, answered: Answered<S::Plan>) {
        let Answered {
            socket,
            request,
            response,
            has_slot,
        } = answered;
        socket.set_running(None);
        self.reply(&socket, request, response);
        if !has_slot {
            return;
        }
        match self.shared.slots.next() {
            Some(work) if work.socket.worker == self.index => self.runnable.push_back(work),
            Some(work) => {
                let worker = work.socket.worker;
                self.shared.mailboxes[worker].send(Message::Run(Box::new(work)));
            }
            None => {}
        }
    }

    /// Responds that slots and backlog are full. Under overload this has to be cheap, so the response is usually
    /// prepared in advance.
    pub(super) fn turn_away(&mut self, work: Work<S::Plan>) {
        static BUSY: LazyLock<Vec<u8>> =
            LazyLock::new(|| response::prepare(&RequestError::busy(TOO_MANY_REQUESTS).into()));
        let Work {
            socket, request, ..
        } = work;
        let head = &request.head;
        if head.is_http_1_0 || head.method() == "HEAD" || !self.keeps_open(&socket, head) {
            let response = RequestError::busy(TOO_MANY_REQUESTS).into();
            return self.reply(&socket, request, response);
        }
        log_access(&socket, Some(head), 503, BUSY.len(), request.received);
        self.catch_panic(&socket, |worker| {
            worker.respond(&socket, ResponseWriter::prepared(&BUSY), true);
        });
    }

    /// Cancels the request of a client that has hung up, whether it runs or waits.
    pub(super) fn cancel(&mut self, socket: &SocketOf<S>) {
        match socket.take_running() {
            Some(Running::Coroutine(task)) => {
                close(socket);
                self.reactor.cancel(task, &mut self.done);
            }
            Some(Running::Thread(canceller)) => {
                close(socket);
                canceller.cancel();
            }
            None => {
                let is_of_this_client = |work: &Work<S::Plan>| Arc::ptr_eq(&work.socket, socket);
                for work in self.shared.slots.take_from_backlog(is_of_this_client) {
                    close(socket);
                    self.reply(socket, work.request, Response::empty());
                }
            }
        }
    }
}

/// Ends a connection whose client hung up during its request.
fn close<P>(socket: &Socket<P>) {
    socket.connection().close();
}
