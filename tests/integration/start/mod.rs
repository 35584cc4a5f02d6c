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
mod warm_up;
mod wrong_settings;
