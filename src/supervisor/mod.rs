//! Child processes: starting them, their life cycles, and the one thread that looks after all of them.

pub mod child;
pub mod handle;
pub mod inherited;
pub mod lifecycle;
pub mod unit;
pub mod watchdog;
