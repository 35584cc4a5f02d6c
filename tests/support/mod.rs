//! Shared by all Rust tests: starting and ending servers, a raw HTTP client, the records of the fake model server.
//!
//! Every wait polls, and lasts at most [`LIMIT`].

pub mod ending;
#[cfg(feature = "python")]
pub mod handlers;
pub mod http;
pub mod load;
pub mod malformed;
pub mod memory;
pub mod models;
pub mod ports;
pub mod processes;
pub mod record;
pub mod server;
pub mod setup;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use ending::AnswersUntilTheEnd;
pub use http::{Connection, Response, request};
pub use server::{Ended, Server};
pub use setup::Setup;

/// The hard deadline of every wait. It is generous, because only a failing test reaches it.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The time between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The response of half_plus_three to 1, 2 and 5. The fake model server gives this response to every request.
pub const PREDICTIONS: &str = "{\n    \"predictions\": [3.5, 4.0, 5.5\n    ]\n}";

/// A small request in TensorFlow Serving's own format.
pub const INSTANCES: &[u8] = br#"{"instances": [1.0, 2.0, 5.0]}"#;

/// Polls until `look` returns a value.
///
/// # Panics
/// After [`LIMIT`], with a message that names `what`.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < until,
            "waited {} s in vain: {what}",
            LIMIT.as_secs()
        );
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Polls until `is_so` returns `true`.
///
/// # Panics
/// After [`LIMIT`], with a message that names `what`.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || is_so().then_some(()));
}

/// Reports that a test was skipped, and why.
pub fn skipped(test: &str, why: &str) {
    // Bypasses the test harness, which shows the output of `eprintln` only when a test fails.
    let text = format!("\n!!! SKIPPED {test}: {why} !!!\n");
    std::io::stderr()
        .write_all(text.as_bytes())
        .expect("standard error can be written to");
}

/// Sets a flag that tells other threads that the test is over, even when the test panics. Without it, they would run
/// forever.
pub struct SetWhenDropped<'a>(pub &'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
