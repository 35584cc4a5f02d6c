//! Users' Python handlers: their workers, calls, crashes and hangs.

mod bodies;
mod crashes;
mod directory;
mod hangs;
mod loading;
mod modes;
mod output;
mod python;
mod refusals;
mod shutdown;
mod single_threaded;
