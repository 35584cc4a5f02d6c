//! Asks one instance for its status at regular intervals, and reports the result to the supervisor.
//!
//! Each instance has a thread for this, because a hung instance blocks a status request until its time limit.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};

use crate::supervisor::readiness::Readiness;
use crate::tfs::backend::Backend;
use crate::tfs::client::Client;
use crate::tfs::query::{Silence, ask};
use crate::tfs::signature_reader::SignatureReader;
use crate::tfs::status::{self, Versions};

/// The time limit of a status request: the response is small and comes at once, or TFS hangs.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How often to ask for the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Never: there is no process.
    Off,
    /// Often, while the instance starts. TFS opens its port once a version of each model is loaded; until then the
    /// connection is refused, which takes microseconds.
    Starting,
    /// Every second, while the instance serves.
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

/// A handle to the thread, which ends when the handle is dropped.
#[derive(Debug)]
pub struct Probe {
    orders: Sender<(u64, Pace)>,
}

impl Probe {
    /// Starts the thread for instance `index` of `backend`. `report` gets each result with the number of the process
    /// that it is about.
    ///
    /// # Errors
    /// The system's, when it cannot start the thread.
    pub fn start(
        index: usize,
        backend: Arc<Backend>,
        models: Vec<Versions>,
        report: impl Fn(u64, Readiness) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (orders, receive) = unbounded();
        thread::Builder::new()
            .name(format!("probe-{index}"))
            .spawn(move || {
                let port = backend.ports[index].rest;
                let (mut process, mut pace) = (0, Pace::Off);
                let mut complained = false;
                let mut signatures = SignatureReader::new(&models);
                loop {
                    match receive.recv_timeout(pace.interval()) {
                        Ok(order) => (process, pace) = order,
                        Err(RecvTimeoutError::Timeout) if pace == Pace::Off => {}
                        Err(RecvTimeoutError::Timeout) => {
                            match readiness_of(&backend.client, port, &models) {
                                Ok(mut readiness) => {
                                    complained = false;
                                    if readiness == Readiness::Ready
                                        && let Err(why) = signatures.read(process, &backend, port)
                                    {
                                        // Not yet, so that the first request finds them.
                                        readiness = Readiness::NotReady(why);
                                    }
                                    report(process, readiness);
                                }
                                // We learned nothing about the instance, so its last status stays valid.
                                Err(why) if !complained => {
                                    complained = true;
                                    log::error!(
                                        "instance {index}: cannot ask for its status: {why}"
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

    /// Sets the pace, and the number of the process that results are about from now on.
    pub fn set_pace(&self, process: u64, pace: Pace) {
        // The thread runs as long as this handle exists, so this cannot fail.
        let _ = self.orders.send((process, pace));
    }
}

/// Asks the instance on this port whether these versions of its models are AVAILABLE.
///
/// # Errors
/// Why we could not ask, when this server lacks a resource for a connection.
pub(super) fn readiness_of(
    client: &Client,
    port: u16,
    models: &[Versions],
) -> Result<Readiness, String> {
    let mut first_problem = None;
    for model in models {
        let path = format!("/v1/models/{}", model.name);
        let readiness = match ask(client, port, &path, TIMEOUT) {
            Ok(response) => status::of_model(&response, model),
            // It will not answer for the other models either.
            Err(Silence::Ended(problem) | Silence::TooSlow(problem)) => {
                return Ok(Readiness::NotReady(problem));
            }
            Err(Silence::Local(why)) => return Err(why),
        };
        match readiness {
            Readiness::Ready => {}
            Readiness::Failed { .. } => return Ok(readiness),
            Readiness::NotReady(_) => {
                first_problem.get_or_insert(readiness);
            }
        }
    }
    Ok(first_problem.unwrap_or(Readiness::Ready))
}
