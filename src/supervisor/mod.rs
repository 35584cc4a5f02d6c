//! Supervision: starts child processes, restarts them, runs one-off tasks, and shuts the program down in order.
//!
//! One thread, the `watchdog`, owns every child process; all other threads reach it through a
//! [`SupervisorHandle`](handle::SupervisorHandle). The supervisor does not know what the processes do: a [`unit::Unit`]
//! describes each program, and the HTTP server, which needs time to finish its requests, implements [`drain::Drain`].

pub mod child;
pub mod drain;
pub mod event_loop;
#[cfg(test)]
mod fakes;
pub mod handle;
pub mod inherited;
pub mod lifecycle;
pub mod readiness;
mod reaper;
mod supervised;
mod system;
mod task;
pub mod unit;
