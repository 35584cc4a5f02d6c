//! The protocol between the server and a Python worker (`sagemaker-tfs-python`): frames on socketpairs, and a record of
//! begun calls in shared memory. Both executables use this module; what a call means is left to `handlers` and to
//! `src/python/`.

pub mod frame;
pub mod record;
