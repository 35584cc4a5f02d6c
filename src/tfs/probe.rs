//! Asks one instance for its status, again and again, on a thread of its own: a hung instance may take its time
//! to not answer, and the watchdog has others to look after.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};

use crate::supervisor::lifecycle::Status;
use crate::tfs::backend::Backend;
use crate::tfs::status::Versions;

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
                            match backend.client.status(port, &models) {
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
