//! Fetching files from S3 and stores like it: credentials as AWS's own tools find them, signed requests.

pub mod bucket;
mod credentials;

pub use bucket::download;

use std::time::Duration;

use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::typestate::AgentScope;

/// Services on this machine or in this data centre connect at once, or are not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest time of one request.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// For the store, which may be behind the proxy that `HTTPS_PROXY` and the like name.
fn agent() -> Agent {
    build(Agent::config_builder())
}

/// For credentials, which come from this machine or beside it and are nobody else's business.
fn direct_agent() -> Agent {
    build(Agent::config_builder().proxy(None))
}

fn build(config: ConfigBuilder<AgentScope>) -> Agent {
    let config = config
        .http_status_as_error(false)
        // A signature holds for one address only, and S3 does not say where a bucket of another region is.
        .max_redirects(0)
        .timeout_connect(Some(CONNECT_LIMIT))
        .timeout_global(Some(REQUEST_LIMIT))
        .build();
    Agent::new_with_config(config)
}
