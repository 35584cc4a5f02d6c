//! Decides which process gets a request. TFS instances and Python workers use the same code.
//!
//! `pool.rs` keeps track of the processes and leases places at them; `quarantine.rs` finds the request that crashes a
//! process. How a process is started and how requests reach it is left to `tfs` and `handlers`.

pub mod pool;
pub mod quarantine;
