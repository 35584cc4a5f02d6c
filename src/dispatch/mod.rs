//! Which process gets a request: model servers and Python workers alike.

pub mod quarantine;
