//! Processes that crash, hang or are paused.

mod kills;
mod model_server;
mod pauses;
