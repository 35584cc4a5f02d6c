//! Shutdown of the front: no new connections, running requests finish, everything else gets 503.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Front;
use crate::error::RequestError;
use crate::http::budget::Buffer;
use crate::http::response::{Answer, Wire};
use crate::http::socket::Connection;

/// Time for the last answers to leave.
const FINISH_LIMIT: Duration = Duration::from_millis(500);
/// How often to look whether they have.
const FINISH_STEP: Duration = Duration::from_millis(5);

impl Front {
    /// Refuses new connections; open ones are served on and told that they end.
    pub fn stop_accepting(&self) {
        self.shared.door.close();
    }

    /// Requests being received, waiting or being answered.
    pub fn in_flight(&self) -> usize {
        let connections = self.shared.door.all();
        let is_at_work = |connection: &&Arc<Connection>| {
            let exchange = connection.try_exchange();
            exchange.is_none_or(|exchange| !exchange.is_idle())
        };
        connections.iter().filter(is_at_work).count()
    }

    /// Answers 503 to every request that needs a model, from now on: to new ones, waiting ones and running ones. Called
    /// before the models are stopped.
    pub fn refuse_the_rest(&self) {
        let shared = &self.shared;
        shared.is_refusing.store(true, Ordering::SeqCst);
        for connection in shared.door.all() {
            shared.guarded(&connection, || {
                let mut exchange = connection.exchange();
                if exchange.is_busy() {
                    let mut answer = Answer::from(stopping());
                    if exchange.is_head_request() {
                        answer.body = Buffer::default();
                    }
                    let keep = exchange.has_more(&*connection);
                    exchange.answer(Wire::new(answer, None, keep), keep);
                    let step = shared.advance(&connection, &mut exchange);
                    drop(exchange);
                    shared.follow(&connection, step);
                }
            });
        }
    }

    /// Waits until all answers have left, but not for long: the process is about to end.
    pub fn finish(&self) {
        let until = Instant::now() + FINISH_LIMIT;
        let mut quiet = 0;
        while quiet < 2 && Instant::now() < until {
            quiet = if self.in_flight() == 0 { quiet + 1 } else { 0 };
            thread::sleep(FINISH_STEP);
        }
    }
}

/// The answer while the models are being stopped.
pub(super) fn stopping() -> RequestError {
    RequestError::new(503, "The server is stopping.")
}
