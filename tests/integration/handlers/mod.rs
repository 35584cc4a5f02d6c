//! Python handlers of users: how they are loaded, called, restarted and stopped.

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
