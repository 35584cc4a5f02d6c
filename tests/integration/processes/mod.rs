//! Child processes, and the end of all of them.

mod child_environment;
mod child_files;
mod process_one;
mod shutdown;
