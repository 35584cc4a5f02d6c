//! A request to whichever instance serves: waits for one, sends, and sends again when an instance was lost.

use std::time::{Duration, Instant};

use crate::error::RequestError;
use crate::tfs::client::{Client, SendError, TfsAnswer, TfsRequest};
use crate::tfs::pool::Pool;

/// A request is sent this often at most. Inference is pure, so sending again is safe; but a request that has lost
/// its connection this often is probably what makes the model server fall.
const MAX_ATTEMPTS: u32 = 5;
/// After a refused connection the watchdog needs a moment to learn that the instance is gone.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

/// All instances and the way to them.
#[derive(Debug)]
pub struct Backend {
    /// Who serves.
    pub pool: Pool,
    /// How requests get there.
    pub client: Client,
    /// REST port of each instance.
    pub rest_ports: Vec<u16>,
    /// The deadline of a whole request, for messages.
    pub limit: Duration,
}

impl Backend {
    /// Sends `request` and returns the answer, whatever its status.
    ///
    /// # Errors
    /// 504 at the deadline, 502 when the connection was lost [`MAX_ATTEMPTS`] times, 400 for a path or content
    /// type that cannot be sent.
    pub fn call(&self, request: &TfsRequest, deadline: Instant) -> Result<TfsAnswer, RequestError> {
        let mut attempts = 0;
        loop {
            let lease = self
                .pool
                .acquire(deadline)
                .map_err(|why| RequestError::deadline(self.limit, &why))?;
            let index = lease.index;
            let sent = self.client.send(self.rest_ports[index], request, deadline);
            drop(lease);
            match sent {
                Ok(answer) => return Ok(answer),
                Err(SendError::Deadline) => {
                    return Err(RequestError::deadline(
                        self.limit,
                        &format!("TensorFlow Serving instance {index} did not answer in time"),
                    ));
                }
                Err(SendError::Malformed(why)) => return Err(RequestError::bad_request(why)),
                Err(SendError::Refused) => {
                    self.pool
                        .wait_for_change(deadline.min(Instant::now() + REFUSED_PAUSE));
                }
                Err(SendError::Lost(why)) => {
                    attempts += 1;
                    log::warn!(
                        "instance {index}: {why}; request to {} sent {attempts} of {MAX_ATTEMPTS} times",
                        request.path
                    );
                    if attempts == MAX_ATTEMPTS {
                        return Err(RequestError::new(
                            502,
                            format!(
                                "TensorFlow Serving closed the connection {attempts} times without an answer: {why}"
                            ),
                        ));
                    }
                }
            }
        }
    }
}
