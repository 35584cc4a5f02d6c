//! Supervision: starts child processes, restarts them, runs one-off tasks, and ends the program in good order.
//!
//! One thread, the `watchdog`, owns every child process; all others reach it through a `SupervisorHandle`. Nothing here
//! knows what the processes do: programs are described by [`unit::Unit`], and whatever needs time to finish its work at
//! the end of the program implements [`drain::Drain`].

pub mod child;
pub mod drain;
pub mod event_loop;
#[cfg(test)]
mod fakes;
pub mod handle;
pub mod inherited;
pub mod lifecycle;
mod reaper;
mod supervised;
mod system;
mod task;
pub mod unit;
