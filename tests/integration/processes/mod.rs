//! Child processes: what they inherit, and how they and the server end.

mod child_environment;
mod child_files;
mod process_one;
mod shutdown;
