//! TensorFlow Serving: how the server starts it, what it sends, and how it reads the responses.

mod error_bodies;
mod flags;
mod gpu_placement;
mod pass_through;
mod response_framing;
mod smuggling;
mod versions;
