//! What the server and `sagemaker-tfs-python` say to each other: frames on socketpairs, and a record of begun calls.

pub mod frame;
pub mod record;
