//! Multi-model mode: loading, unloading and using models at run time.

mod failures;
#[cfg(feature = "python")]
mod handler_loading;
#[cfg(feature = "python")]
mod handler_packages;
#[cfg(feature = "python")]
mod handlers;
mod independence;
mod invoke;
mod limits;
mod list;
mod load;
mod many;
mod restart;
mod routes;
mod safety;
mod shutdown;
#[cfg(feature = "python")]
mod unload;
