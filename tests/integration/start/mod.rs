//! From the start to the first response, and starts that are refused.

mod archives;
mod discovery;
mod limits;
mod linkage;
mod read_only;
mod readiness;
mod refusals;
mod signals;
mod unprivileged;
mod wrong_settings;
