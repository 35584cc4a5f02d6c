//! A request to whichever instance serves: waits for one, sends, and sends again when an instance was lost.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::InstancePorts;
use crate::dispatch::quarantine::Losses;
use crate::error::RequestError;
use crate::http::budget::Buffer;
use crate::http::pauses;
use crate::tfs::client::{Client, LOCAL_PAUSE, SendError, TfsAnswer, TfsRequest};
use crate::tfs::outgoing::Outgoing;
use crate::tfs::pool::{Lease, Pool};

/// A request whose connection was closed this often by a model server that goes on is given up: it is the request
/// that the model server does not like.
const MAX_CLOSED: u32 = 5;
/// The watchdog needs a moment to learn that an instance is gone.
const NEWS_PAUSE: Duration = Duration::from_millis(20);
/// A message that could be logged for each request is logged this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

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
    /// When it was last said that no connection can be opened.
    complained: Mutex<Option<Instant>>,
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
            complained: Mutex::new(None),
        }
    }

    /// Sends `request` and returns the answer, whatever its status; it is counted where `memory` is. Inference is pure,
    /// so a request that was lost is sent again.
    ///
    /// # Errors
    /// 504 at the deadline, 503 when we could open no connection until then, 502 when it is this request that ends the
    /// model server or has it close the connection, 400 for what cannot be sent, see [`Outgoing`], 503 or 507 when there
    /// is no memory for the answer.
    pub fn call(
        &self,
        request: &TfsRequest,
        memory: &Buffer,
        deadline: Instant,
    ) -> Result<TfsAnswer, RequestError> {
        let too_late = |why: &str| RequestError::deadline(self.limit, why);
        let outgoing = Outgoing::new(request)?;
        let (mut losses, mut closed) = (Losses::default(), 0);
        let (mut begin, mut deadline) = (Instant::now(), deadline);
        // What may have come while we did not run is not late.
        let mut has_more_time = |deadline: &mut Instant| {
            let last_pause = pauses::last_end();
            let had_pause = last_pause > begin;
            if had_pause {
                begin = last_pause;
                *deadline = last_pause + self.limit;
            }
            had_pause
        };
        loop {
            let lease = match self.pool.acquire(losses.company(), deadline) {
                Ok(lease) => lease,
                Err(_) if has_more_time(&mut deadline) => continue,
                Err(why) => return Err(too_late(&why)),
            };
            let index = lease.index;
            let why = match self
                .client
                .send(self.ports[index].rest, &outgoing, memory, deadline)
            {
                Ok(answer) => return Ok(answer),
                Err(SendError::Deadline) if has_more_time(&mut deadline) => continue,
                Err(SendError::Deadline) => {
                    return Err(too_late(&format!(
                        "TensorFlow Serving instance {index} did not answer in time"
                    )));
                }
                Err(SendError::Cancelled) => return Err(RequestError::hung_up()),
                Err(SendError::NoRoom(why)) => return Err(why.for_answer()),
                Err(SendError::Local(why)) => {
                    drop(lease);
                    self.wait_for_resources(&why, deadline)?;
                    continue;
                }
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

    /// This process ran out of something that a connection needs: waits a little for it.
    ///
    /// # Errors
    /// 503 at the deadline.
    fn wait_for_resources(&self, why: &str, deadline: Instant) -> Result<(), RequestError> {
        let now = Instant::now();
        let complained = self.complained.lock();
        let mut complained = complained.unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|time| now - time >= COMPLAINT_INTERVAL) {
            *complained = Some(now);
            log::error!("no connection to TensorFlow Serving can be opened: {why}");
        }
        drop(complained);
        let left = deadline.saturating_duration_since(now);
        thread::sleep(LOCAL_PAUSE.min(left));
        if left > LOCAL_PAUSE {
            return Ok(());
        }
        Err(RequestError::busy(format!(
            "No connection to TensorFlow Serving could be opened within {} s: {why}",
            self.limit.as_secs_f64()
        )))
    }

    /// Whether the instance that lost a request is gone, or has just closed that one connection. Of a process that
    /// ends, the system closes the port no later than the connections, mostly; the watchdog's word comes later.
    fn has_fallen(&self, lease: &Lease, deadline: Instant) -> bool {
        let pause = Instant::now() + NEWS_PAUSE;
        lease.wait_for_fall(deadline.min(pause))
            || !self.client.is_open(self.ports[lease.index].rest)
    }
}
