//! Tests of the real executable: each starts `sagemaker-tfs serve` in front of the fake model server and looks at
//! it from outside, as clients, operators and the platform do.
//!
//! `support` starts, watches and ends the processes; the other modules are named by the feature they pin.

mod support;

mod batch_transform;
mod chunked_bodies;
mod conversion;
mod custom_attributes;
mod discovery;
mod faults;
mod gpu_placement;
mod hostile_clients;
mod http_protocol;
mod linkage;
mod logs;
mod model_server_flags;
mod overload;
mod pass_through;
mod process_one;
mod responses;
mod routes;
mod shutdown;
mod start;
mod start_refusals;
mod wrong_settings;
