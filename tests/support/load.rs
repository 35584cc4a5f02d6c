//! Clients that send one request after another while a test breaks something.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::{Connection, Server, SetWhenDropped, wait_until};

/// How many requests have been answered so far.
#[derive(Debug, Default)]
pub struct Progress(AtomicUsize);

impl Progress {
    /// Waits until this many more requests have been answered.
    #[track_caller]
    pub fn wait_for(&self, more: usize) {
        let goal = self.0.load(Ordering::Relaxed) + more;
        wait_until("requests are answered", || {
            self.0.load(Ordering::Relaxed) >= goal
        });
    }
}

/// Runs clients, each with its own connection, until `body` returns. `exchange` sends a request and reads the response;
/// it gets the numbers of the client and of the request.
pub fn under_load(
    server: &Server,
    clients: usize,
    exchange: impl Fn(&mut Connection, usize, usize) + Sync,
    body: impl FnOnce(&Progress),
) {
    let (over, progress) = (AtomicBool::new(false), Progress::default());
    let run = |client: usize| {
        let mut connection = server.connect();
        let mut numbers = 0..;
        while !over.load(Ordering::Relaxed) {
            exchange(&mut connection, client, numbers.next().expect("no end"));
            progress.0.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        for client in 0..clients {
            let run = &run;
            scope.spawn(move || run(client));
        }
        let _over = SetWhenDropped(&over);
        body(&progress);
    });
}
