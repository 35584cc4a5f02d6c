//! Tests of the real executable: each starts `sagemaker-tfs serve` in front of the fake model server and looks at
//! it from outside, as clients, operators and the platform do.
//!
//! `support` starts, watches and ends the processes; the other modules are named by the feature they pin.

#![forbid(unsafe_code)]
// Tests have threads of their own, and of processes that they start no other program knows.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

mod answer_framing;
mod batch_transform;
mod child_files;
mod child_surroundings;
mod chunked_bodies;
mod clock;
mod connections;
mod conversion;
mod custom_attributes;
mod descriptors;
mod discovery;
mod error_bodies;
mod faults;
mod gpu_placement;
#[cfg(feature = "python")]
mod handler_bodies;
#[cfg(feature = "python")]
mod handler_crashes;
#[cfg(feature = "python")]
mod handler_directory;
#[cfg(feature = "python")]
mod handler_hangs;
#[cfg(feature = "python")]
mod handler_loading;
#[cfg(feature = "python")]
mod handler_modes;
#[cfg(feature = "python")]
mod handler_output;
#[cfg(feature = "python")]
mod handler_python;
#[cfg(feature = "python")]
mod handler_refusals;
#[cfg(feature = "python")]
mod handler_shutdown;
#[cfg(feature = "python")]
mod handler_single_threaded;
mod hostile_clients;
mod http_protocol;
mod kills;
mod linkage;
mod log_lines;
mod log_trouble;
mod logs;
mod malformed_requests;
mod memory;
mod model_server_flags;
mod model_versions;
mod multi_model_failures;
#[cfg(feature = "python")]
mod multi_model_handler_loading;
#[cfg(feature = "python")]
mod multi_model_handler_packages;
#[cfg(feature = "python")]
mod multi_model_handlers;
mod multi_model_independence;
mod multi_model_invoke;
mod multi_model_limits;
mod multi_model_list;
mod multi_model_load;
mod multi_model_many;
mod multi_model_restart;
mod multi_model_routes;
mod multi_model_safety;
mod multi_model_shutdown;
#[cfg(feature = "python")]
mod multi_model_soak;
mod multi_model_unload;
mod nested_json;
mod overload;
mod pass_through;
mod pauses;
mod process_one;
mod read_only;
mod responses;
mod routes;
mod shutdown;
mod smuggling;
mod start;
mod start_limits;
mod start_refusals;
mod start_signals;
mod unchecked_code;
mod unprivileged;
mod waiting;
mod wrong_settings;
