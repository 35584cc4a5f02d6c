//! What all tests share: starting and ending servers, a raw HTTP client, what the fake model server recorded.
//!
//! Nothing here waits longer than [`LIMIT`] or sleeps without looking: everything is polled.

pub mod ending;
#[cfg(feature = "python")]
pub mod handlers;
pub mod http;
pub mod malformed;
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

/// The hard deadline of every wait. Generous, for it is only ever reached by a test that fails.
pub const LIMIT: Duration = Duration::from_secs(30);

/// How often something is looked at that cannot be waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What half_plus_three answers to 1, 2 and 5, which is what the fake model server answers to everything.
pub const PREDICTIONS: &str = "{\n    \"predictions\": [3.5, 4.0, 5.5\n    ]\n}";

/// A small request in TensorFlow Serving's own form.
pub const INSTANCES: &[u8] = br#"{"instances": [1.0, 2.0, 5.0]}"#;

/// Polls until `look` gives something.
///
/// # Panics
/// After [`LIMIT`], saying `what` did not come.
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

/// Polls until `is_so`.
///
/// # Panics
/// After [`LIMIT`], saying `what` did not come.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || is_so().then_some(()));
}

/// Says loudly that a test was not done, and why.
pub fn skipped(test: &str, why: &str) {
    // Past the test harness, which shows what `eprintln` writes only when a test fails.
    let text = format!("\n!!! SKIPPED {test}: {why} !!!\n");
    std::io::stderr()
        .write_all(text.as_bytes())
        .expect("standard error can be written to");
}

/// Tells other threads that a test is over, also when it panics: else they would never end.
pub struct SetWhenDropped<'a>(pub &'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
