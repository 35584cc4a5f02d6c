//! Asks one instance a question of our own: for its status, or for the signatures of its models.

use std::time::{Duration, Instant};

use crate::budget::Budget;
use crate::tfs::checked_body::CheckedBody;
use crate::tfs::client::{Address, Client, LOCAL_PAUSE, SendError};
use crate::tfs::message::{Method, TfsRequest, TfsResponse};
use crate::tfs::outgoing::Outgoing;
use crate::wait;

/// The longest response: signatures of thousands of inputs take a few megabytes.
const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// Why there is no answer, in words.
#[derive(Debug)]
pub enum Silence {
    /// We could not ask, because this server lacks a resource for a connection.
    Local(String),
    /// No answer came in time, or one that is too large.
    TooSlow(String),
    /// The connection was lost or refused: the process has ended, or not opened its port yet.
    Ended(String),
}

/// Sends a GET request to the instance on this port.
pub fn ask(
    client: &Client,
    port: u16,
    path: &str,
    limit: Duration,
) -> Result<TfsResponse, Silence> {
    let request = TfsRequest {
        method: Method::Get,
        path,
        content_type: None,
        body: &CheckedBody::default(),
    };
    let request = Outgoing::new(&request).map_err(|e| Silence::Local(e.text))?;
    let address = Address::new(port);
    let deadline = Instant::now() + limit;
    let memory = Budget::new(MAX_RESPONSE_BYTES).arriving(0);
    let send = || loop {
        match client.send(&address, &request, &memory, deadline) {
            Err(SendError::Local(_)) if Instant::now() + LOCAL_PAUSE < deadline => {
                let _ = wait::until(Instant::now() + LOCAL_PAUSE);
            }
            other => break other,
        }
    };
    let response = match send() {
        // TFS may have closed the idle connection just when we used it.
        Err(SendError::Lost(_)) => send(),
        other => other,
    };
    response.map_err(|error| match error {
        SendError::Local(why) => Silence::Local(why),
        SendError::Deadline => Silence::TooSlow(format!(
            "no response to GET {path} within {} s",
            limit.as_secs_f64()
        )),
        SendError::Lost(_) | SendError::Refused => Silence::Ended(error.to_string()),
        SendError::NoRoom(_) | SendError::Cancelled => Silence::TooSlow(error.to_string()),
    })
}
