//! Opens the port, and shows the HTTP server to the supervisor as something to drain.

use crate::api::Mode;
use crate::config::Config;
use crate::error::StartError;
use crate::http::Front;
use crate::supervisor::drain::Drain;
use crate::supervisor::handle::SupervisorHandle;

/// Opens the port. From now on the supervisor drains requests when a signal ends the program.
///
/// # Errors
/// When the port cannot be opened, or a thread not be started.
pub fn open(config: &Config, mode: Mode, supervisor: &SupervisorHandle) -> Result<(), StartError> {
    Front::start(config, mode, |front| {
        supervisor.drain_at_end(Box::new(front));
    })?;
    log::info!("listening on {}:{}", config.listen, config.port);
    Ok(())
}

impl Drain for Front {
    fn stop_accepting(&self) {
        self.stop_accepting();
    }

    fn in_flight(&self) -> usize {
        self.in_flight()
    }

    fn refuse_the_rest(&self) {
        self.refuse_the_rest();
    }

    fn finish(&self) {
        self.finish();
    }
}
