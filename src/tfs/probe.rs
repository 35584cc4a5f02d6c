//! Asks one instance for its status, again and again, on a thread of its own: a hung instance may take its time
//! to not answer, and the watchdog has others to look after.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};

use crate::budget::Buffer;
use crate::supervisor::lifecycle::Status;
use crate::tfs::backend::Backend;
use crate::tfs::checked_body::CheckedBody;
use crate::tfs::client::{Address, Client, LOCAL_PAUSE, SendError};
use crate::tfs::message::{Method, TfsAnswer, TfsRequest};
use crate::tfs::outgoing::Outgoing;
use crate::tfs::status::{self, Versions};
use crate::wait;

/// Answers about a status are small and come at once, or the model server hangs.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How often to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Not at all: there is no process.
    Off,
    /// While it starts. TensorFlow Serving opens its port once a version of each model is loaded: until then the
    /// question is a refused connection, which costs microseconds.
    Starting,
    /// While it serves.
    Serving,
}

impl Pace {
    fn interval(self) -> Duration {
        match self {
            Self::Off => Duration::from_secs(3600),
            Self::Starting => Duration::from_millis(10),
            Self::Serving => Duration::from_secs(1),
        }
    }
}

/// A handle to the thread, which ends with it.
#[derive(Debug)]
pub struct Probe {
    orders: Sender<(u64, Pace)>,
}

impl Probe {
    /// Starts the thread for instance `index`. `report` gets each answer with the process number it belongs to.
    pub fn start(
        index: usize,
        backend: Arc<Backend>,
        models: Vec<Versions>,
        report: impl Fn(u64, Status) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (orders, receive) = unbounded();
        thread::Builder::new()
            .name(format!("probe-{index}"))
            .spawn(move || {
                let port = backend.ports[index].rest;
                let (mut process, mut pace) = (0, Pace::Off);
                let mut complained = false;
                loop {
                    match receive.recv_timeout(pace.interval()) {
                        Ok(order) => (process, pace) = order,
                        Err(RecvTimeoutError::Timeout) if pace == Pace::Off => {}
                        Err(RecvTimeoutError::Timeout) => {
                            match status_of(&backend.client, port, &models) {
                                Ok(status) => {
                                    complained = false;
                                    report(process, status);
                                }
                                // Nothing is known about the instance, so its last status holds.
                                Err(why) if !complained => {
                                    complained = true;
                                    log::error!(
                                        "instance {index} cannot be asked for its status: {why}"
                                    );
                                }
                                Err(_) => {}
                            }
                        }
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            })?;
        Ok(Self { orders })
    }

    /// From now on ask about process number `process` at this pace.
    pub fn set_pace(&self, process: u64, pace: Pace) {
        // The thread ends only with this handle.
        let _ = self.orders.send((process, pace));
    }
}

/// Asks the model server on this port whether all these versions of models are AVAILABLE.
///
/// # Errors
/// When it could not be asked, for a reason of ours.
pub(super) fn status_of(client: &Client, port: u16, models: &[Versions]) -> Result<Status, String> {
    let mut first_problem = None;
    for model in models {
        let status = match ask(client, port, &model.name)? {
            Ok(answer) => status::of_model(&answer, model),
            // It will not answer about the others either.
            Err(problem) => return Ok(Status::Other(problem)),
        };
        match status {
            Status::Available => {}
            Status::Failed { .. } => return Ok(status),
            Status::Other(_) => {
                first_problem.get_or_insert(status);
            }
        }
    }
    Ok(first_problem.unwrap_or(Status::Available))
}

/// The inner error is the model server's.
fn ask(client: &Client, port: u16, model: &str) -> Result<Result<TfsAnswer, String>, String> {
    let request = TfsRequest {
        method: Method::Get,
        path: &format!("/v1/models/{model}"),
        content_type: None,
        body: &CheckedBody::default(),
    };
    let request = Outgoing::new(&request).map_err(|e| e.text)?;
    let address = Address::new(port);
    let deadline = Instant::now() + TIMEOUT;
    let send = || loop {
        match client.send(&address, &request, &Buffer::default(), deadline) {
            Err(SendError::Local(_)) if Instant::now() + LOCAL_PAUSE < deadline => {
                let _ = wait::until(Instant::now() + LOCAL_PAUSE);
            }
            other => break other,
        }
    };
    let answer = match send() {
        // The connection was kept, and closed just as it was used.
        Err(SendError::Lost(_)) => send(),
        other => other,
    };
    match answer {
        Err(SendError::Local(why)) => Err(why),
        Err(SendError::Deadline) => Ok(Err(format!(
            "no answer to a status request within {} s",
            TIMEOUT.as_secs()
        ))),
        other => Ok(other.map_err(|error| error.to_string())),
    }
}
