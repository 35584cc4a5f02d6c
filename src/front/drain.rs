//! Answers requests whose body is still to come and is not wanted, without ever blocking a worker.
//!
//! tiny_http reads such a body to its end before the connection goes on, at the client's pace and on the thread
//! that answers. So that is done by threads of their own, started on demand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tiny_http::{Header, Request, Response};

use crate::error::RequestError;

/// More requests than this wait for one of the threads to be free.
const MAX_THREADS: usize = 256;

/// The threads and what waits for them.
#[derive(Clone, Default)]
pub struct Drain(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    threads: usize,
    /// Each has a connection, with a thread of tiny_http, of its own.
    waiting: VecDeque<(Request, RequestError)>,
}

impl Drain {
    /// Answers `request` with `error`, and drains its body.
    pub fn answer(&self, request: Request, error: RequestError) {
        let mut state = self.lock();
        state.waiting.push_back((request, error));
        if state.threads == MAX_THREADS {
            return;
        }
        state.threads += 1;
        drop(state);
        let drain = self.clone();
        let started = thread::Builder::new()
            .name("drain".into())
            .spawn(move || drain.work());
        if let Err(e) = started {
            log::error!("cannot start a thread: {e}");
            self.work();
        }
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            let Some((request, error)) = state.waiting.pop_front() else {
                state.threads -= 1;
                return;
            };
            drop(state);
            respond(request, &error);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers first and drains then, which is the order of tiny_http's own `respond`.
fn respond(request: Request, error: &RequestError) {
    let header = |(name, value): (&str, &str)| {
        Header::from_bytes(name, value).expect("our headers are ASCII")
    };
    let mut response = Response::from_data(error.to_json())
        .with_status_code(error.status)
        .with_header(header(("Content-Type", "application/json")));
    if let Some(more) = error.header {
        response.add_header(header(more));
    }
    // The client may be gone, which is fine.
    let _ = request.respond(response);
}
