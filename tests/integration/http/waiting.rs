//! A waiting request holds no thread, and a client that hangs up frees its place at once.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

#[cfg(feature = "python")]
use crate::support::handlers::answered;
use crate::support::server::fake;
use crate::support::setup::tested_workers;
use crate::support::{
    Connection, INSTANCES, PREDICTIONS, Server, SetWhenDropped, Setup, processes, request, skipped,
    wait_until,
};

const FRONT_LOG: &str = "SAGEMAKER_TFS_NGINX_LOGLEVEL";

/// A server that logs how each request ended; the model server records no requests.
fn setup() -> Setup {
    processes::raise_own_file_limit(); // the servers inherit the limit
    Setup::new()
        .var("FAKE_TFS_RECORD_REQUESTS", 0)
        .var(FRONT_LOG, "info")
}

/// Whether each request has its own thread in this run of the tests.
fn is_thread_each() -> bool {
    tested_workers().as_deref() == Some("threads")
}

fn invocation(body: impl AsRef<[u8]>) -> Vec<u8> {
    let headers = [("Content-Type", "application/json")];
    request("POST", "/invocations", &headers, body.as_ref())
}

/// Opens a connection and sends a request on it.
fn send(server: &Server, bytes: &[u8]) -> Connection {
    let mut connection = server.connect();
    connection.send(bytes);
    connection
}

/// Makes the model server hold inference requests, or release them.
fn hold(server: &Server, hold: bool) {
    server.control(0, &json!({"hold": hold}));
}

#[track_caller]
fn wait_for_in_flight(server: &Server, count: u64) {
    wait_until(&format!("{count} requests are in flight"), || {
        server.stat(0, "in_flight") == count
    });
}

/// Waits until `count` requests were cancelled because their clients hung up.
#[track_caller]
fn wait_for_hung_up(server: &Server, count: usize) {
    wait_until(&format!("{count} requests ended with 499"), || {
        hung_up(server) >= count
    });
}

fn hung_up(server: &Server) -> usize {
    server.log().matches("\"POST /invocations\" 499").count()
}

#[track_caller]
fn assert_predicts(connection: &mut Connection) {
    let response = connection.response();
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, PREDICTIONS)
    );
}

/// What the threads that serve requests are doing.
mod workers {
    use super::*;

    /// `epoll_wait` and its kin on x86-64 and arm64.
    const EPOLL: &[&str] = if cfg!(target_arch = "x86_64") {
        &["232", "281", "441"]
    } else {
        &["22", "441"]
    };
    /// A thread without a CPU may hold a lock for a moment; a request's wait takes longer.
    const LONGEST_BLOCK: Duration = Duration::from_millis(200);

    /// Threads that wait outside `epoll_wait`, and since when. As long as a thread's count of switches stays the same,
    /// the wait is the same.
    #[derive(Debug, Default)]
    pub struct Blocked(BTreeMap<String, (String, Instant)>);

    impl Blocked {
        /// Looks at all workers.
        ///
        /// # Panics
        /// When a worker has been blocked for longer than [`LONGEST_BLOCK`].
        #[track_caller]
        pub fn look(&mut self, server: &Server) {
            let now = Instant::now();
            let mut seen = BTreeMap::new();
            for (thread, wait) in blocked(server.pid()) {
                let since = match self.0.get(&thread) {
                    Some((before, since)) if *before == wait => *since,
                    _ => now,
                };
                let blocked = now - since;
                assert!(
                    blocked < LONGEST_BLOCK,
                    "{thread} has been blocked for {blocked:?}: {wait}"
                );
                seen.insert(thread, (wait, since));
            }
            self.0 = seen;
        }
    }

    /// The workers that sleep outside `epoll_wait`, each with its system call and its count of context switches.
    fn blocked(pid: u32) -> Vec<(String, String)> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the server runs");
        let blocked = tasks.filter_map(|task| {
            let read = |name| fs::read_to_string(task.as_ref().ok()?.path().join(name)).ok();
            let name = read("comm")?.trim().to_owned();
            if !name.starts_with("worker-") {
                return None;
            }
            let call = read("syscall")?;
            let number = call.split_whitespace().next()?;
            let is_well = number == "running" || EPOLL.contains(&number);
            let status = read("status")?;
            let switches = status.lines().filter(|line| line.contains("_switches:"));
            let switches: Vec<_> = switches.collect();
            (!is_well).then(|| (name, format!("call {} {switches:?}", call.trim())))
        });
        blocked.collect()
    }

    /// The number of workers.
    pub fn count(pid: u32) -> usize {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the server runs");
        let names =
            tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("worker-")).count()
    }
}

#[test]
fn two_thousand_requests_wait_on_a_few_threads() {
    const REQUESTS: usize = 2000;
    /// Enough memory for all these requests in a debug build, whose stacks are several times as large as in a release
    /// build.
    const PEAK: u64 = 512 << 20;
    const SAMPLES: usize = 300;
    if processes::raise_own_file_limit().is_some_and(|files| files < 10_000) {
        return skipped("2,000 requests at once", "too few file descriptors");
    }
    let server = setup()
        .var("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", REQUESTS)
        .start();
    server.assert_serves();
    hold(&server, true);
    let slow = invocation(fake(&json!({"delay_ms": 1000})));
    let over = AtomicBool::new(false);
    let samples = AtomicUsize::new(0);
    thread::scope(|scope| {
        let _over = SetWhenDropped(&over);
        let watch = scope.spawn(|| {
            let mut blocked = workers::Blocked::default();
            while !is_thread_each() && !over.load(Ordering::Relaxed) {
                blocked.look(&server);
                samples.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(3)); // so the watching thread does not keep a CPU busy
            }
        });
        let mut waiting: Vec<_> = (0..REQUESTS).map(|_| send(&server, &slow)).collect();
        wait_for_in_flight(&server, REQUESTS as u64);
        let threads = processes::threads(server.pid());
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        if !is_thread_each() {
            assert!(threads < 36 + 2 * cpus, "{threads} threads");
            assert!(workers::count(server.pid()) > 0);
            wait_until("enough samples were taken", || {
                watch.is_finished() || samples.load(Ordering::Relaxed) >= SAMPLES
            });
        }
        let mut pings: Vec<_> = (0..10)
            .map(|_| send(&server, &request("GET", "/ping", &[], b"")))
            .collect();
        for ping in &mut pings {
            assert_eq!(ping.response().status, 200);
        }
        // The model server still has all requests, so all pings were served while they waited.
        assert_eq!(server.stat(0, "in_flight"), REQUESTS as u64);
        hold(&server, false);
        for connection in &mut waiting {
            assert_predicts(connection);
        }
        over.store(true, Ordering::Relaxed);
        watch.join().expect("no worker was blocked");
    });
    let peak = processes::memory(server.pid(), "VmHWM");
    assert!(peak < PEAK, "{} MB", peak >> 20);
    server.assert_serves();
}

#[test]
fn a_client_that_hangs_up_while_the_model_computes_frees_its_slot() {
    // One request at a time.
    let server = setup().var("SAGEMAKER_TFS_SINGLE_THREADED", "true").start();
    for round in 1..=3 {
        let hanging = send(&server, &invocation(fake(&json!({"hang": true}))));
        wait_for_in_flight(&server, round);
        let mut next = send(&server, &invocation(INSTANCES));
        assert_eq!(server.ping().status, 200);
        assert!(!next.is_readable(), "the only place is taken");
        drop(hanging);
        assert_predicts(&mut next);
        wait_for_hung_up(&server, round as usize);
    }
    server.assert_serves();
    assert_eq!(server.starts().len(), 1, "the model server is not to blame");
}

#[test]
fn a_client_that_hangs_up_in_the_backlog_frees_its_place() {
    const BACKLOG: usize = 1024;
    let server = setup().var("SAGEMAKER_TFS_SINGLE_THREADED", "true").start();
    hold(&server, true);
    let mut first = send(&server, &invocation(INSTANCES));
    wait_for_in_flight(&server, 1);
    let small = invocation(INSTANCES);
    let mut backlog: Vec<_> = (0..BACKLOG).map(|_| send(&server, &small)).collect();
    wait_until("the backlog is full", || is_full(&server));
    for left in 1..=3 {
        drop(backlog.pop());
        wait_for_hung_up(&server, left);
        assert!(!is_full(&server));
        backlog.insert(0, send(&server, &small));
        wait_until("the new request has the place", || is_full(&server));
    }
    hold(&server, false);
    for connection in [&mut first].into_iter().chain(&mut backlog) {
        assert_predicts(connection);
    }
    assert_eq!(
        server.stat(0, "requests"),
        1 + BACKLOG as u64,
        "requests whose clients hung up are not sent to the model"
    );
}

#[cfg(feature = "python")]
#[test]
fn no_call_runs_for_a_client_that_hung_up_while_waiting_for_a_python_worker() {
    let server = setup().obedient_pair().worker_class("sync").start();
    server.assert_handlers_serve(1);
    let order = |name: &str| json!({"name": name, "input": "note(request['name'])"});
    let mut first = server.order(&json!({"input": "note('first'); wait_at('gate')"}));
    server.wait_for_notes(1);
    let leaving: Vec<_> = (0..5).map(|_| server.order(&order("leaving"))).collect();
    let mut staying = server.order(&order("staying"));
    assert_eq!(server.ping().status, 200);
    drop(leaving);
    wait_for_hung_up(&server, 5);
    server.open_gate("gate");
    assert_eq!(first.response().status, 200);
    assert_eq!(staying.response().status, 200);
    assert_eq!(server.notes(), ["first", "staying"]);
}

#[cfg(feature = "python")]
#[test]
fn a_client_that_hangs_up_while_its_call_runs_frees_its_slot() {
    let server = setup()
        .obedient_pair()
        .var("SAGEMAKER_TFS_SINGLE_THREADED", "true")
        .start();
    server.wait_for_log("Python worker 0: loaded");
    let calling = server.order(&json!({"input": "note('runs'); wait_at('gate')"}));
    server.wait_for_notes(1);
    let target = "/tfs/v1/models/half_plus_three:predict";
    let mut next = send(&server, &request("POST", target, &[], INSTANCES));
    assert_eq!(server.ping().status, 200);
    assert!(!next.is_readable(), "the only place is taken");
    drop(calling);
    // The place is free although the call goes on.
    assert_eq!(next.response().status, 200);
    wait_for_hung_up(&server, 1);
    server.open_gate("gate");
    server.obey(&json!({"n": 1}));
    assert_eq!(server.python_workers().len(), 1);
}

/// Calls wait for a busy Python worker. The large ones are half sent, because they do not fit into a socket.
#[cfg(feature = "python")]
#[test]
fn a_client_that_hangs_up_before_its_call_starts_costs_no_call_and_no_channel() {
    let server = setup().obedient_pair().worker_class("gevent").start();
    server.assert_handlers_serve(1);
    let pid = server.python_worker_pid(0);
    let order = |name: &str, bytes: usize| {
        let large = "x".repeat(bytes);
        json!({"name": name, "input": "note(request['name'])", "large": large})
    };
    for round in 1..=3 {
        let gate = format!("gate {round}");
        let first = json!({"gate": gate, "input": "note('first'); wait_at(request['gate'])"});
        let mut first = server.order(&first);
        let notes = server.wait_for_notes(2 * round - 1);
        assert_eq!(notes.last().map(String::as_str), Some("first"));
        let leaving: Vec<_> = [10, 300_000, 5 << 20]
            .map(|bytes| server.order(&order("leaving", bytes)))
            .into();
        let mut staying = server.order(&order("staying", 300_000));
        for _ in 0..10 {
            assert_eq!(server.ping().status, 200);
        }
        drop(leaving);
        // The Python worker is still busy.
        wait_for_hung_up(&server, 3 * round);
        server.open_gate(&gate);
        assert_eq!(first.response().status, 200);
        assert_eq!(staying.response().status, 200);
    }
    assert_eq!(server.notes(), ["first", "staying"].repeat(3));
    assert_eq!(server.python_worker_pid(0), pid);
    assert!(!server.log().contains("given up"));
}

/// The server no longer counts the bodies of these calls, so a paused Python worker that continued would receive all of
/// them at once.
#[cfg(feature = "python")]
#[test]
fn calls_whose_clients_hung_up_take_no_memory_in_the_python_worker() {
    const BODY: usize = 8 << 20;
    const CALLS: usize = 24;
    let server = setup()
        .obedient_handler()
        .worker_class("gthread")
        .var("SAGEMAKER_GUNICORN_THREADS", CALLS + 1)
        .start();
    let large = json!({"large": "x".repeat(BODY)});
    server.obey(&large);
    let pid = server.python_worker_pid(0);
    let before = processes::memory(pid, "VmHWM");
    processes::signal(pid, Signal::STOP);
    for n in 1..=CALLS {
        let leaving = server.order(&large);
        for _ in 0..3 {
            assert_eq!(server.ping().status, 200);
        }
        drop(leaving);
        wait_for_hung_up(&server, n);
    }
    processes::signal(pid, Signal::CONT);
    for _ in 0..=CALLS {
        server.obey(&json!({"n": 1}));
    }
    let grown = processes::memory(pid, "VmHWM") - before;
    assert!(grown < 4 * BODY as u64, "{} MB", grown >> 20);
    assert_eq!(server.python_worker_pid(0), pid);
}

/// When a call is abandoned half sent, the Python worker knows its length but does not get all of it, and must not run
/// the call.
#[cfg(feature = "python")]
#[test]
fn no_call_runs_with_half_a_body() {
    const CLIENTS: usize = 4;
    const REQUESTS: usize = 40;
    let server = setup().obedient_pair().worker_class("gevent").start();
    server.assert_handlers_serve(1);
    let pid = server.python_worker_pid(0);
    let server = &server;
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for n in 0..REQUESTS {
                    let large = "x".repeat(200_000 + 90_000 * (n % 7));
                    let what = json!({"client": client, "n": n, "large": large});
                    let mut connection = server.order(&what);
                    match n % 4 {
                        0 => answered(&mut connection, &what),
                        1 => assert_eq!(server.ping().status, 200),
                        _ => {}
                    }
                }
            });
        }
    });
    server.obey(&json!({"n": 1}));
    assert_eq!(server.python_worker_pid(0), pid);
    let log = server.log();
    for part in ["Traceback", "given up"] {
        assert!(!log.contains(part), "{part}");
    }
}

#[test]
fn clients_that_hang_up_cost_no_other_client_its_response() {
    const CLIENTS: usize = 8;
    const RESPONSES: usize = 60;
    /// With all clients, more than the number of slots.
    const LEAVING: usize = 100;
    let server = setup().var("FAKE_TFS_ANSWER", "echo").start();
    let body = |client: usize, n: usize| {
        let command = json!({"delay_ms": (client * 7 + n) % 20});
        json!({"instances": [client, n], "fake": command}).to_string()
    };
    let server = &server;
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || assert_own_responses(server, |n| body(client, n), RESPONSES));
            scope.spawn(move || {
                for n in 0..LEAVING {
                    let bytes = invocation(body(CLIENTS + client, n));
                    let sent = if n % 4 == 0 {
                        bytes.len() - 9
                    } else {
                        bytes.len()
                    };
                    let mut connection = send(server, &bytes[..sent]);
                    match n % 4 {
                        // Hang up a little later.
                        2 => assert_eq!(server.ping().status, 200),
                        // Hang up within the response.
                        3 => wait_until("a response comes", || connection.is_readable()),
                        _ => {}
                    }
                }
            });
        }
    });
    wait_for_in_flight(server, 0);
    let mut connection = server.connect();
    connection.send(&invocation(INSTANCES));
    assert_eq!(connection.response().body, INSTANCES);
    assert_eq!(server.starts().len(), 1);
}

/// Sends requests one after the other, and asserts that each gets its own body as the response.
#[track_caller]
fn assert_own_responses(server: &Server, body: impl Fn(usize) -> String, count: usize) {
    let mut connection = server.connect();
    for n in 0..count {
        connection.send(&invocation(body(n)));
        let response = connection.response();
        assert_eq!((response.status, response.text()), (200, body(n)));
    }
}

/// Conversions compute for seconds, and must leave workers free for small requests.
#[test]
fn pings_are_answered_while_all_cpus_convert_large_bodies() {
    const PINGS: usize = 20;
    const MB: usize = 1_000_000;
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    // 100 MB each, and at most 400 MB together on a machine with many CPUs.
    let size = (100 * MB).min(400 * MB / cpus);
    let row = format!("{}\n", ["-12.5"; 100].join(","));
    let csv = row.repeat(size / row.len());
    let server = setup()
        .var("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB", 4096)
        .start();
    let headers = [("Content-Type", "text/csv")];
    let bytes = request("POST", "/invocations", &headers, csv.as_bytes());
    drop(csv);
    let mut converting: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..cpus)
            .map(|_| scope.spawn(|| send(&server, &bytes)))
            .collect();
        let connections = clients.into_iter().map(|client| client.join());
        connections
            .map(|c| c.expect("the request is sent"))
            .collect()
    });
    for _ in 0..PINGS {
        assert_eq!(server.ping().status, 200);
    }
    assert!(
        !converting.iter_mut().any(|c| c.is_readable()),
        "pings must be quicker than the conversion of {size} bytes"
    );
    for connection in &mut converting {
        assert_predicts(connection);
    }
}

#[test]
fn a_client_that_reads_slowly_delays_no_other_client() {
    const RESPONSE: usize = 64 << 20;
    let setup = setup().var("FAKE_TFS_FIXED_BODY_BYTES", RESPONSE);
    // With one worker, all requests run as coroutines of the same thread.
    let server = setup.one_worker().start();
    let mut slow: Vec<_> = (0..4)
        .map(|_| send(&server, &invocation(INSTANCES)))
        .collect();
    wait_until("the responses have begun", || {
        slow.iter_mut().all(Connection::is_readable)
    });
    let small = fake(&json!({"body": {"predictions": [1]}}));
    for _ in 0..20 {
        assert_eq!(server.ping().status, 200);
        assert_eq!(server.invoke(&small).text(), r#"{"predictions":[1]}"#);
    }
    for connection in &mut slow {
        let body = connection.response().body;
        assert!(body.len() > RESPONSE - 100, "{} bytes", body.len());
        assert!(body.ends_with(b"0.5\n    ]\n}"));
    }
}

/// The kernel reports only once that a request arrived while a response waits for its reader, and the server does not
/// read it at that moment.
#[test]
fn a_request_sent_before_a_large_response_is_read_is_answered() {
    const RESPONSE: usize = 64 << 20;
    let server = setup().var("FAKE_TFS_FIXED_BODY_BYTES", RESPONSE).start();
    let mut client = send(&server, &invocation(INSTANCES));
    wait_until("the response has begun", || client.is_readable());
    client.send(&request("GET", "/ping", &[], b""));
    // The response does not fit into the socket buffers, so the request waits until the client reads the response.
    let response = client.response();
    assert_eq!(response.status, 200);
    assert!(
        response.body.len() > RESPONSE - 100,
        "{}",
        response.body.len()
    );
    assert_eq!(client.response().status, 200, "the ping");
}

/// Some clients send a blank line after a request.
#[test]
fn a_client_that_hangs_up_after_a_blank_line_frees_its_slot() {
    let server = setup().var("SAGEMAKER_TFS_SINGLE_THREADED", "true").start();
    hold(&server, true);
    let mut hanging = send(&server, &[&invocation(INSTANCES)[..], b"\r\n"].concat());
    wait_for_in_flight(&server, 1);
    hanging.half_close();
    drop(hanging);
    let mut next = send(&server, &invocation(INSTANCES));
    wait_for_hung_up(&server, 1);
    hold(&server, false);
    assert_predicts(&mut next);
}

/// Whether a request is refused before its body, because neither slots nor backlog have room.
fn is_full(server: &Server) -> bool {
    let mut connection = server.connect();
    connection.send(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n");
    connection.half_close();
    match connection.response().status {
        503 => true,
        400 => false, // the body ended too early
        other => panic!("{other}"),
    }
}
