//! Sends a request to one of the TFS instances: waits for an instance with room, sends the request, and sends it again
//! if it was lost.
//!
//! The pool in `dispatch` chooses the instance and decides which lost requests are quarantined; `client.rs` does the
//! HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::Buffer;
use crate::config::InstancePorts;
use crate::dispatch::pool::{self, Capacity, Health, Unavailable, Words};
use crate::dispatch::quarantine::Losses;
use crate::error::{RequestError, clipped};
use crate::pauses;
use crate::tfs::client::{Address, Client, LOCAL_PAUSE, SendError};
use crate::tfs::message::{TfsRequest, TfsResponse};
use crate::tfs::outgoing::Outgoing;
use crate::tfs::signatures::SignatureTable;
use crate::wait::{self, Mutex, WaitError};

/// A request is given up when instances that keep running have closed its connection this often: then the request is
/// the likely cause.
const MAX_CLOSED: u32 = 5;
/// How long to wait for the supervisor to learn that an instance is gone.
const SUPERVISOR_DELAY: Duration = Duration::from_millis(20);
/// The shortest time between two log lines about connections that cannot be opened, which every request could write.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// The pool of instances.
pub type Pool = pool::Pool<InFlight>;

/// The instance chosen for a request that will be sent soon.
pub type Choice = pool::Choice<InFlight>;

/// The number of requests that an instance can take now.
#[derive(Debug)]
pub struct InFlight {
    free: usize,
}

impl Capacity for InFlight {
    const WORDS: Words = Words {
        member: "instance",
        none_ready: "TensorFlow Serving has not been available",
        none_free: "every TensorFlow Serving instance is at its limit of concurrent requests",
        quarantine: "TensorFlow Serving ended several times; the requests that it was working on are now sent a \
                     few at a time",
    };
    type Place = ();

    fn has_free(&self) -> bool {
        self.free > 0
    }

    fn take(&mut self) -> Option<()> {
        self.free = self.free.checked_sub(1)?;
        Some(())
    }

    fn give_back(&mut self, (): ()) {
        self.free += 1;
    }
}

/// The instances that serve a model, and how to reach them.
#[derive(Debug)]
pub struct Backend {
    /// The state of the instances.
    pub pool: Arc<Pool>,
    /// The HTTP client.
    pub client: Client,
    /// The signatures of the models.
    pub signatures: SignatureTable,
    /// The ports of each instance.
    pub ports: Vec<InstancePorts>,
    /// The address of each instance's REST API.
    addresses: Vec<Address>,
    /// The most requests sent to an instance at once.
    in_flight: usize,
    /// The time limit of a whole request.
    limit: Duration,
    /// When we last logged that no connection can be opened.
    last_complaint: Mutex<Option<Instant>>,
}

impl Backend {
    /// A backend for instances on these ports. `limit` is the time limit of a whole request, `in_flight` the most
    /// requests sent to an instance at once, and `connections` the most idle connections that each worker keeps.
    pub fn new(
        ports: Vec<InstancePorts>,
        limit: Duration,
        in_flight: usize,
        connections: usize,
    ) -> Self {
        Self {
            pool: Pool::new(ports.len()),
            client: Client::new(connections),
            signatures: SignatureTable::default(),
            addresses: ports.iter().map(|ports| Address::new(ports.rest)).collect(),
            ports,
            in_flight,
            limit,
            last_complaint: Mutex::new(None),
        }
    }

    /// Sets the health of an instance, which began at `since`; `what` says in words what the instance is doing.
    pub fn set(&self, index: usize, health: Health, what: String, since: Instant) {
        let free = self.in_flight;
        let capacity = Some(InFlight { free });
        self.pool.set(index, health, what, since, capacity);
    }

    /// Sends `request` and returns the response, whatever its status; its memory counts toward the request that
    /// `memory` belongs to. Inference has no side effects, so a request that was lost is sent again.
    ///
    /// # Errors
    /// 504 at the deadline, 499 when the client has hung up, 503 when we could not open a connection by the deadline,
    /// 502 when this request makes TFS crash or close the connection, 400 when the request cannot be sent (see
    /// [`Outgoing`]), 503 or 507 when there is no memory for the response.
    pub fn call(
        &self,
        request: &TfsRequest,
        memory: &Buffer,
        deadline: Instant,
    ) -> Result<TfsResponse, RequestError> {
        self.call_chosen(None, request, memory, deadline)
    }

    /// Like [`Backend::call`], but sends the request to the chosen instance if that has room.
    ///
    /// # Errors
    /// Those of [`Backend::call`].
    pub fn call_chosen(
        &self,
        mut choice: Option<Choice>,
        request: &TfsRequest,
        memory: &Buffer,
        deadline: Instant,
    ) -> Result<TfsResponse, RequestError> {
        let outgoing = Outgoing::new(request)?;
        let mut tries = Tries::default();
        let mut deadline = deadline;
        let mut preferred = choice.as_ref().map(Choice::index);
        loop {
            let limit = tries.losses.concurrency_limit();
            let lease = match self.pool.acquire(limit, preferred, deadline) {
                Ok(lease) => lease,
                Err(Unavailable::TimedOut(_)) if self.has_more_time(&mut deadline) => continue,
                Err(why) => return Err(why.into_error(self.limit)),
            };
            // From now on the lease counts for the instance instead of the choice.
            drop(choice.take());
            let index = lease.index();
            let to = &self.addresses[index];
            let why = match (self.client).send(to, &outgoing, memory, deadline) {
                Ok(response) => return Ok(response),
                Err(SendError::Deadline) if self.has_more_time(&mut deadline) => continue,
                Err(SendError::Deadline) => {
                    let why =
                        format!("TensorFlow Serving instance {index} did not respond in time");
                    return Err(RequestError::deadline(self.limit, &why));
                }
                Err(SendError::Cancelled) => return Err(RequestError::hung_up()),
                Err(SendError::NoRoom(why)) => return Err(why.for_response()),
                Err(SendError::Local(why)) => {
                    drop(lease);
                    self.wait_for_resources(&why, deadline)?;
                    continue;
                }
                Err(SendError::Refused) => {
                    drop(lease);
                    preferred = None;
                    let pause = Instant::now() + SUPERVISOR_DELAY;
                    let waited = self.pool.wait_for_change(deadline.min(pause));
                    waited.map_err(hung_up)?;
                    continue;
                }
                Err(SendError::Lost(why)) => why,
            };
            preferred = None;
            let is_gone = self.is_gone(&lease, deadline)?;
            drop(lease);
            let times = tries.note_loss(is_gone);
            log::warn!(
                "instance {index}: {why}; request to {} lost (losses so far: {times})",
                clipped(request.path)
            );
            tries.check(&why)?;
        }
    }

    /// The error for a request that got no place.
    pub fn unavailable(&self, why: Unavailable) -> RequestError {
        why.into_error(self.limit)
    }

    /// Extends the deadline if this process was paused, because a response may have come during the pause. Returns
    /// whether it did.
    fn has_more_time(&self, deadline: &mut Instant) -> bool {
        let from_last_pause = pauses::last_end() + self.limit;
        let has_more = from_last_pause > *deadline;
        *deadline = from_last_pause.max(*deadline);
        has_more
    }

    /// Waits a little after this process ran out of something that a connection needs.
    ///
    /// # Errors
    /// 503 at the deadline, 499 when the client has hung up.
    fn wait_for_resources(&self, why: &str, deadline: Instant) -> Result<(), RequestError> {
        let now = Instant::now();
        let mut last_complaint = self.last_complaint.lock();
        if last_complaint.is_none_or(|time| now - time >= COMPLAINT_INTERVAL) {
            *last_complaint = Some(now);
            log::error!("cannot open a connection to TensorFlow Serving: {why}");
        }
        drop(last_complaint);
        let pause = now + LOCAL_PAUSE;
        wait::until(pause.min(deadline)).map_err(hung_up)?;
        if pause < deadline {
            return Ok(());
        }
        Err(RequestError::busy(format!(
            "No connection to TensorFlow Serving could be opened within {} s: {why}",
            self.limit.as_secs_f64()
        )))
    }

    /// Whether the instance that lost a request is gone, or only closed that one connection. When a process ends, the
    /// system usually closes its port no later than its connections; the supervisor learns of the end after that.
    fn is_gone(
        &self,
        lease: &pool::Lease<InFlight>,
        deadline: Instant,
    ) -> Result<bool, RequestError> {
        let pause = Instant::now() + SUPERVISOR_DELAY;
        let is_gone = lease
            .wait_until_gone(deadline.min(pause))
            .map_err(hung_up)?;
        Ok(is_gone || !self.client.is_open(self.ports[lease.index()].rest))
    }
}

/// How often a request was lost, and how.
#[derive(Debug, Default)]
struct Tries {
    /// Losses because the instance ended.
    losses: Losses,
    /// Losses because an instance that keeps running closed the connection.
    closed: u32,
}

impl Tries {
    /// Counts a loss and returns the number of losses of this kind.
    fn note_loss(&mut self, is_gone: bool) -> u32 {
        if is_gone {
            self.losses.add();
            return self.losses.count();
        }
        self.closed += 1;
        self.closed
    }

    /// Returns an error if the request may not be sent again. `why` says how it was lost last.
    ///
    /// # Errors
    /// 502 when the request is given up.
    fn check(&self, why: &str) -> Result<(), RequestError> {
        let text = if self.losses.is_poison() {
            let times = self.losses.count();
            format!(
                "TensorFlow Serving ended {times} times while it worked on this request, most recently on this \
                 request alone"
            )
        } else if self.closed >= MAX_CLOSED {
            let times = self.closed;
            format!("TensorFlow Serving gave no complete response {times} times: {why}")
        } else {
            return Ok(());
        };
        Err(RequestError::new(502, text))
    }
}

/// The error of a wait that is shorter than the deadline: it fails only if the client has hung up.
fn hung_up(_: WaitError) -> RequestError {
    RequestError::hung_up()
}
