//! TensorFlow Serving: how it is started, what it is sent, how its answers are read.

mod error_bodies;
mod flags;
mod gpu_placement;
mod pass_through;
mod response_framing;
mod smuggling;
mod versions;
