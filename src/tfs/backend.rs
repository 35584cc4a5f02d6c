//! A request to whichever instance serves: waits for one, sends, and sends again when an instance was lost.

use std::time::{Duration, Instant};

use crate::config::InstancePorts;
use crate::error::RequestError;
use crate::supervise::suspicion::Losses;
use crate::tfs::client::{Client, SendError, TfsAnswer, TfsRequest};
use crate::tfs::pool::{Lease, Pool};

/// A request whose connection was closed this often by a model server that goes on is given up: it is the request
/// that the model server does not like.
const MAX_CLOSED: u32 = 5;
/// The watchdog needs a moment to learn that an instance is gone.
const NEWS_PAUSE: Duration = Duration::from_millis(20);

/// All instances and the way to them.
#[derive(Debug)]
pub struct Backend {
    /// Who serves.
    pub pool: Pool,
    /// How requests get there.
    pub client: Client,
    /// Ports of each instance.
    pub ports: Vec<InstancePorts>,
    /// The deadline of a whole request, for messages.
    limit: Duration,
}

impl Backend {
    /// Instances that answer on these ports. `limit` is the deadline of a whole request, `connections` the number
    /// of idle connections to keep.
    pub fn new(ports: Vec<InstancePorts>, limit: Duration, connections: usize) -> Self {
        Self {
            pool: Pool::new(ports.len()),
            client: Client::new(connections),
            ports,
            limit,
        }
    }

    /// Sends `request` and returns the answer, whatever its status. Inference is pure, so a request that was lost is
    /// sent again.
    ///
    /// # Errors
    /// 504 at the deadline, 502 when it is this request that ends the model server or has it close the connection,
    /// 400 for a path or content type that cannot be sent.
    pub fn call(&self, request: &TfsRequest, deadline: Instant) -> Result<TfsAnswer, RequestError> {
        let too_late = |why: &str| RequestError::deadline(self.limit, why);
        let (mut losses, mut closed) = (Losses::default(), 0);
        loop {
            let lease = self.pool.acquire(losses.company(), deadline);
            let lease = lease.map_err(|why| too_late(&why))?;
            let index = lease.index;
            let why = match self.client.send(self.ports[index].rest, request, deadline) {
                Ok(answer) => return Ok(answer),
                Err(SendError::Deadline) => {
                    return Err(too_late(&format!(
                        "TensorFlow Serving instance {index} did not answer in time"
                    )));
                }
                Err(SendError::Malformed(why)) => return Err(RequestError::bad_request(why)),
                Err(SendError::Refused) => {
                    drop(lease);
                    let pause = Instant::now() + NEWS_PAUSE;
                    self.pool.wait_for_change(deadline.min(pause));
                    continue;
                }
                Err(SendError::Lost(why)) => why,
            };
            let times = if self.has_fallen(&lease, deadline) {
                losses.add();
                losses.count()
            } else {
                closed += 1;
                closed
            };
            drop(lease);
            log::warn!(
                "instance {index}: {why}; request to {} lost {times} times",
                request.path
            );
            if losses.is_guilty() {
                let text = format!(
                    "TensorFlow Serving ended {times} times while it worked on this request, at last on nothing else"
                );
                return Err(RequestError::new(502, text));
            }
            if closed == MAX_CLOSED {
                let text = format!(
                    "TensorFlow Serving closed the connection {closed} times without an answer: {why}"
                );
                return Err(RequestError::new(502, text));
            }
        }
    }

    /// Whether the instance that lost a request is gone, or has just closed that one connection. Of a process that
    /// ends, the system closes the port no later than the connections, mostly; the watchdog's word comes later.
    fn has_fallen(&self, lease: &Lease, deadline: Instant) -> bool {
        let pause = Instant::now() + NEWS_PAUSE;
        lease.wait_for_fall(deadline.min(pause))
            || !self.client.is_open(self.ports[lease.index].rest)
    }
}
