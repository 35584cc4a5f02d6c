//! The log: levels, lines, and output that cannot be written.

mod broken_output;
mod forged_lines;
mod levels;
