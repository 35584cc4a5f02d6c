//! Sees to it that every connection gets a thread of tiny_http.
//!
//! tiny_http gives a connection to an idle thread of its pool, or to a new one when none is idle. But a thread that
//! was just woken still counts as idle, so of connections that come close together some are left without a thread
//! until another connection ends. Connections that end at once, made here, free a thread each. There is no way to
//! see a connection that waits; but when several come together, some of them are served, and a first request from
//! an unknown port gives them away.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tiny_http::Request;

use crate::front::door::Door;

/// When new clients were seen, connections are made in batches until the allowance is used up: at first enough for
/// twice the slots there are by default. Clients that make a connection for each request are new all the time, but
/// their connections end by themselves.
const BATCH: f64 = 8.0;
const BATCH_PAUSE: Duration = Duration::from_millis(1);
const MAX_ALLOWANCE: f64 = 128.0;
const ALLOWANCE_PER_SECOND: f64 = 400.0;
/// Pause when new clients were seen and the allowance is used up.
const WAITING_PAUSE: Duration = Duration::from_millis(20);
/// Otherwise one connection is made this often: for connections that said nothing when they came. It also
/// keeps accepting from running into the idle limit, which would end it.
const INTERVAL: Duration = Duration::from_millis(250);
/// After this time all clients are new again, for ports are used again.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// How often to check that connections are accepted and answered.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The clients' ports seen of late, and the thread that is told of new ones.
pub struct Usher {
    /// A bit for each port.
    seen: Vec<AtomicU64>,
    newcomers: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Usher {
    /// Nothing is seen yet.
    pub fn new() -> Self {
        Self {
            seen: (0..=u16::MAX / 64).map(|_| AtomicU64::new(0)).collect(),
            newcomers: AtomicBool::new(false),
            thread: OnceLock::new(),
        }
    }

    /// Notes where a request comes from.
    pub fn note(&self, request: &Request) {
        let port = request.remote_addr().map_or(0, |address| address.port());
        let (word, bit) = (&self.seen[usize::from(port / 64)], 1 << (port % 64));
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
            self.newcomers.store(true, Ordering::Release);
            self.thread.get().inspect(|thread| thread.unpark());
        }
    }

    /// The usher's thread: ends when the door is closed. `stray` is as in [`Door::receive`].
    pub fn run(&self, door: &Arc<Door>, stray: &(impl Fn(Request) + Clone + Send + 'static)) {
        self.thread.get_or_init(thread::current);
        let mut now = Instant::now();
        let (mut last_check, mut last_forgotten) = (now, now);
        let mut allowance = MAX_ALLOWANCE;
        while !door.is_closed() {
            if allowance >= BATCH && self.newcomers.swap(false, Ordering::Acquire) {
                while allowance >= BATCH && make_connections(door, BATCH as u32) {
                    allowance -= BATCH;
                    thread::sleep(BATCH_PAUSE);
                }
            } else {
                make_connections(door, 1);
            }
            if last_check + CHECK_INTERVAL <= now {
                door.check(stray);
                last_check = now;
            }
            if last_forgotten + FORGET_INTERVAL <= now {
                self.seen
                    .iter()
                    .for_each(|word| word.store(0, Ordering::Relaxed));
                last_forgotten = now;
            }
            match self.newcomers.load(Ordering::Relaxed) {
                true => thread::sleep(WAITING_PAUSE),
                false => thread::park_timeout(INTERVAL),
            }
            let elapsed = now.elapsed();
            now += elapsed;
            allowance =
                (allowance + elapsed.as_secs_f64() * ALLOWANCE_PER_SECOND).min(MAX_ALLOWANCE);
        }
    }
}

/// `false` when one could not be made; the check then finds out what is wrong.
fn make_connections(door: &Door, count: u32) -> bool {
    (0..count).all(|_| match door.connect_and_end() {
        Ok(()) => true,
        Err(e) => {
            log::debug!("no connection to our own port: {e}");
            false
        }
    })
}
