//! Converts clients' bodies into requests to TensorFlow Serving, and its responses into the formats that clients
//! accept.
//!
//! All functions are pure: bytes in, bytes or a [`RequestError`](crate::error::RequestError) out. What depends on the
//! model comes as a [`signature`]. Running large conversions on other threads is left to the caller.

pub mod depth;
mod media_type;
pub mod request;
pub mod response;
pub mod settings;
pub mod signature;
