//! A request to whichever instance serves: waits for one, sends, and sends again when an instance was lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::Buffer;
use crate::config::InstancePorts;
use crate::dispatch::pool::{self, Capacity, Health, Unavailable, Words};
use crate::dispatch::quarantine::Losses;
use crate::error::RequestError;
use crate::pauses;
use crate::tfs::client::{Address, Client, LOCAL_PAUSE, SendError};
use crate::tfs::message::{TfsAnswer, TfsRequest};
use crate::tfs::outgoing::Outgoing;
use crate::wait::{self, Mutex, WaitError};

/// A request whose connection was closed this often by a model server that goes on is given up: it is the request
/// that the model server does not like.
const MAX_CLOSED: u32 = 5;
/// The supervisor needs a moment to learn that an instance is gone.
const NEWS_PAUSE: Duration = Duration::from_millis(20);
/// A message that could be logged for each request is logged this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// All instances of the model server.
pub type Pool = pool::Pool<InFlight>;

/// The instance at which a request is expected soon.
pub type Choice = pool::Choice<InFlight>;

/// How many requests an instance can be sent now.
#[derive(Debug)]
pub struct InFlight {
    free: usize,
}

impl Capacity for InFlight {
    const WORDS: Words = Words {
        member: "instance",
        none_ready: "TensorFlow Serving has not been available",
        none_free: "no TensorFlow Serving instance takes more requests",
        quarantine: "TensorFlow Serving ended several times with requests in it, which are now sent a few at a time",
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

/// All instances and the way to them.
#[derive(Debug)]
pub struct Backend {
    /// Who serves.
    pub pool: Arc<Pool>,
    /// How requests get there.
    pub client: Client,
    /// Ports of each instance.
    pub ports: Vec<InstancePorts>,
    /// The REST API of each instance.
    addresses: Vec<Address>,
    /// Requests sent to an instance at once, at most.
    in_flight: usize,
    /// The deadline of a whole request, for messages.
    limit: Duration,
    /// When it was last said that no connection can be opened.
    complained: Mutex<Option<Instant>>,
}

impl Backend {
    /// Instances that answer on these ports. `limit` is the deadline of a whole request, `in_flight` the number of
    /// requests that each instance is sent at once, at most, `connections` the number of idle connections to keep.
    pub fn new(
        ports: Vec<InstancePorts>,
        limit: Duration,
        in_flight: usize,
        connections: usize,
    ) -> Self {
        Self {
            pool: Pool::new(ports.len()),
            client: Client::new(connections),
            addresses: ports.iter().map(|ports| Address::new(ports.rest)).collect(),
            ports,
            in_flight,
            limit,
            complained: Mutex::new(None),
        }
    }

    /// Says how an instance is, since when, and in words what it is doing.
    pub fn set(&self, index: usize, health: Health, what: String, since: Instant) {
        let free = self.in_flight;
        let capacity = Some(InFlight { free });
        self.pool.set(index, health, what, since, capacity);
    }

    /// Sends `request` and returns the answer, whatever its status; it is counted where `memory` is. Inference is pure,
    /// so a request that was lost is sent again.
    ///
    /// # Errors
    /// 504 at the deadline, 499 when the client has hung up, 503 when we could open no connection until then, 502 when it
    /// is this request that ends the model server or has it close the connection, 400 for what cannot be sent, see
    /// [`Outgoing`], 503 or 507 when there is no memory for the answer.
    pub fn call(
        &self,
        request: &TfsRequest,
        memory: &Buffer,
        deadline: Instant,
    ) -> Result<TfsAnswer, RequestError> {
        self.call_chosen(None, request, memory, deadline)
    }

    /// The same, and sends it to the instance that was chosen for it, if that takes the request now.
    ///
    /// # Errors
    /// As [`Backend::call`].
    pub fn call_chosen(
        &self,
        mut choice: Option<Choice>,
        request: &TfsRequest,
        memory: &Buffer,
        deadline: Instant,
    ) -> Result<TfsAnswer, RequestError> {
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
            // It is no longer expected there, but sent.
            drop(choice.take());
            let index = lease.index();
            let to = &self.addresses[index];
            let why = match (self.client).send(to, &outgoing, memory, deadline) {
                Ok(answer) => return Ok(answer),
                Err(SendError::Deadline) if self.has_more_time(&mut deadline) => continue,
                Err(SendError::Deadline) => {
                    let why = format!("TensorFlow Serving instance {index} did not answer in time");
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
                    let pause = Instant::now() + NEWS_PAUSE;
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
                "instance {index}: {why}; request to {} lost {times} times",
                request.path
            );
            tries.check(&why)?;
        }
    }

    /// Moves the deadline if this process was paused, and says whether: what may have come meanwhile is not late.
    fn has_more_time(&self, deadline: &mut Instant) -> bool {
        let from_last_pause = pauses::last_end() + self.limit;
        let has_more = from_last_pause > *deadline;
        *deadline = from_last_pause.max(*deadline);
        has_more
    }

    /// This process ran out of something that a connection needs: waits a little for it.
    ///
    /// # Errors
    /// 503 at the deadline, 499 when the client has hung up.
    fn wait_for_resources(&self, why: &str, deadline: Instant) -> Result<(), RequestError> {
        let now = Instant::now();
        let mut complained = self.complained.lock();
        if complained.is_none_or(|time| now - time >= COMPLAINT_INTERVAL) {
            *complained = Some(now);
            log::error!("no connection to TensorFlow Serving can be opened: {why}");
        }
        drop(complained);
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

    /// Whether the instance that lost a request is gone, or has just closed that one connection. Of a process that
    /// ends, the system closes the port no later than the connections, mostly; the supervisor's word comes later.
    fn is_gone(
        &self,
        lease: &pool::Lease<InFlight>,
        deadline: Instant,
    ) -> Result<bool, RequestError> {
        let pause = Instant::now() + NEWS_PAUSE;
        let is_gone = lease
            .wait_until_gone(deadline.min(pause))
            .map_err(hung_up)?;
        Ok(is_gone || !self.client.is_open(self.ports[lease.index()].rest))
    }
}

/// How often a request was lost.
#[derive(Debug, Default)]
struct Tries {
    /// With instances that ended.
    losses: Losses,
    /// With connections that instances closed, which go on.
    closed: u32,
}

impl Tries {
    /// Counts a loss; returns how many of its kind there are.
    fn note_loss(&mut self, is_gone: bool) -> u32 {
        if is_gone {
            self.losses.add();
            return self.losses.count();
        }
        self.closed += 1;
        self.closed
    }

    /// Whether the request may be sent again. `why` is how it was lost last.
    ///
    /// # Errors
    /// 502 when it is given up.
    fn check(&self, why: &str) -> Result<(), RequestError> {
        let text = if self.losses.is_poison() {
            let times = self.losses.count();
            format!(
                "TensorFlow Serving ended {times} times while it worked on this request, at last on nothing else"
            )
        } else if self.closed >= MAX_CLOSED {
            let times = self.closed;
            format!(
                "TensorFlow Serving closed the connection {times} times without an answer: {why}"
            )
        } else {
            return Ok(());
        };
        Err(RequestError::new(502, text))
    }
}

/// A wait without a deadline of the request ends so.
fn hung_up(_: WaitError) -> RequestError {
    RequestError::hung_up()
}
