//! Downloads files from S3 and compatible stores, with signed requests.
//!
//! `credentials.rs` finds credentials in the places and order of AWS's own tools; `bucket.rs` lists and downloads.
//! Which bucket and prefix to download, and what the files mean, is left to `app`.

pub mod bucket;
mod credentials;

pub use bucket::download;

use std::time::Duration;

use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::typestate::AgentScope;

/// Services on this machine or in this data center accept a connection at once or do not exist.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Time limit of one request.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// A client for the store, which may be behind a proxy (`HTTPS_PROXY` and related variables).
fn agent() -> Agent {
    build(Agent::config_builder())
}

/// A client for credentials. Their services are on this machine or its host, and no proxy must see the credentials.
fn direct_agent() -> Agent {
    build(Agent::config_builder().proxy(None))
}

fn build(config: ConfigBuilder<AgentScope>) -> Agent {
    let config = config
        .http_status_as_error(false)
        // Redirects cannot be followed: a signature is valid for one address only, and S3's redirect for a bucket in
        // another region names no address.
        .max_redirects(0)
        .timeout_connect(Some(CONNECT_LIMIT))
        .timeout_global(Some(REQUEST_LIMIT))
        .build();
    Agent::new_with_config(config)
}
