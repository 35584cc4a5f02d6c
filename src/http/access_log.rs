//! The line in the log for each request.

use std::time::Instant;

use crate::http::head::Head;
use crate::http::socket::Socket;
use crate::logging::FRONT;

/// What nginx logs for a client that has hung up. Nobody gets it.
pub const CLIENT_HUNG_UP: u16 = 499;

/// Logs a request and its response, if that is wanted.
pub fn log_access<P>(
    socket: &Socket<P>,
    head: Option<&Head>,
    status: u16,
    bytes: usize,
    received: Instant,
) {
    if !log::log_enabled!(target: FRONT, log::Level::Info) {
        return; // what follows costs
    }
    let (method, target) = head.map_or(("-", "-"), |head| (head.method(), head.target()));
    log::info!(
        target: FRONT,
        "{} \"{method} {}\" {status} {bytes} {:.1} ms",
        socket.peer,
        target.escape_default(),
        received.elapsed().as_secs_f64() * 1000.0
    );
}
