//! A request to whichever instance serves: waits for one, sends, and sends again when an instance was lost.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::config::InstancePorts;
use crate::error::RequestError;
use crate::tfs::client::{Client, SendError, TfsAnswer, TfsRequest};
use crate::tfs::pool::Pool;

/// A request is sent this often at most. Inference is pure, so sending again is safe; but a request that has lost
/// its connection this often is probably what makes the model server fall.
const MAX_ATTEMPTS: u32 = 5;
/// A request that lost its connection this often is sent only when no other such request is: of many that were
/// lost together, the one that makes the model server fall is so found out, and the others get through.
const SUSPECT_AFTER: u32 = 2;
/// After a refused connection the watchdog needs a moment to learn that the instance is gone.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

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
    suspects: Suspects,
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
            suspects: Suspects::new(),
        }
    }

    /// Sends `request` and returns the answer, whatever its status.
    ///
    /// # Errors
    /// 504 at the deadline, 502 when the connection was lost [`MAX_ATTEMPTS`] times, 400 for a path or content
    /// type that cannot be sent.
    pub fn call(&self, request: &TfsRequest, deadline: Instant) -> Result<TfsAnswer, RequestError> {
        let too_late = |why: &str| RequestError::deadline(self.limit, why);
        let mut lost = 0;
        loop {
            let turn = match lost {
                SUSPECT_AFTER.. => Some(self.suspects.turn(deadline).ok_or_else(|| {
                    too_late("TensorFlow Serving fell, and others had to be sent again first")
                })?),
                _ => None,
            };
            let lease = self.pool.acquire(deadline).map_err(|why| too_late(&why))?;
            let index = lease.index;
            let sent = self.client.send(self.ports[index].rest, request, deadline);
            drop((lease, turn));
            match sent {
                Ok(answer) => return Ok(answer),
                Err(SendError::Deadline) => {
                    return Err(too_late(&format!(
                        "TensorFlow Serving instance {index} did not answer in time"
                    )));
                }
                Err(SendError::Malformed(why)) => return Err(RequestError::bad_request(why)),
                Err(SendError::Refused) => {
                    let pause = Instant::now() + REFUSED_PAUSE;
                    self.pool.wait_for_change(deadline.min(pause));
                }
                Err(SendError::Lost(why)) => {
                    lost += 1;
                    log::warn!(
                        "instance {index}: {why}; request to {} lost {lost} of {MAX_ATTEMPTS} times",
                        request.path
                    );
                    if lost == MAX_ATTEMPTS {
                        return Err(RequestError::new(
                            502,
                            format!(
                                "TensorFlow Serving closed the connection {lost} times without an answer: {why}"
                            ),
                        ));
                    }
                }
            }
        }
    }
}

/// Lets one suspect request at a time be sent. A mutex whose lock has a deadline: a channel that holds one token.
#[derive(Debug)]
struct Suspects {
    give: Sender<()>,
    take: Receiver<()>,
}

/// The turn of a suspect request; over when dropped.
struct Turn<'a>(&'a Sender<()>);

impl Suspects {
    fn new() -> Self {
        let (give, take) = bounded(1);
        give.send(()).expect("a new channel has room");
        Self { give, take }
    }

    fn turn(&self, deadline: Instant) -> Option<Turn<'_>> {
        self.take.recv_deadline(deadline).ok()?;
        Some(Turn(&self.give))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // There is one token, so there is room.
        let _ = self.0.try_send(());
    }
}
