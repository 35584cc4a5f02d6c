//! Child processes: starting them, their life cycles, and the one thread that looks after all of them.

pub mod child;
pub mod handle;
pub mod inherited;
pub mod lifecycle;
pub mod unit;
pub mod watchdog;

/// What is drained before the program ends: the server.
pub trait Drain: Send {
    /// Takes no new connections.
    fn stop_accepting(&self);
    /// Requests that are not finished.
    fn in_flight(&self) -> usize;
    /// Refuses everything that needs a child, from now on.
    fn refuse_the_rest(&self);
    /// Waits a moment for the last responses to leave.
    fn finish(&self);
}
