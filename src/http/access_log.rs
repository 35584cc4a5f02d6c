//! The access log: one line for each request.

use std::time::Instant;

use crate::error::clipped;
use crate::http::head::Head;
use crate::http::socket::Socket;
use crate::logging::FRONT;

/// The status logged when the client hung up, as in nginx. It is never sent.
pub const CLIENT_HUNG_UP: u16 = 499;

/// Logs a request and its response at level `info`. `head` is `None` if the request had no readable head; `bytes` is
/// the size of the response body, and `received` is when the head was complete.
pub fn log_access<P>(
    socket: &Socket<P>,
    head: Option<&Head>,
    status: u16,
    bytes: usize,
    received: Instant,
) {
    if !log::log_enabled!(target: FRONT, log::Level::Info) {
        return; // formatting is not free
    }
    let (method, target) = head.map_or(("-", "-"), |head| (head.method(), head.target()));
    log::info!(
        target: FRONT,
        "{} \"{} {}\" {status} {bytes} {:.1} ms",
        socket.peer,
        clipped(method),
        clipped(target).escape_default(),
        received.elapsed().as_secs_f64() * 1000.0
    );
}
