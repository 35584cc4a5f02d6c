//! Which process gets a request: model servers and Python workers alike.

pub mod pool;
pub mod quarantine;
