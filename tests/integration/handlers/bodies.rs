//! Large bodies pass through handlers unchanged, and with few copies in memory.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Connection, Response, Server, Setup, processes, request, wait_until};

const PASS_THROUGH: &str = "def input_handler(data, context):\n\
                            \x20   return data.read()\n\
                            def output_handler(response, context):\n\
                            \x20   return response.content, 'application/octet-stream'\n";

const LARGE: usize = 100 << 20;

/// Pseudo-random bytes, so that a lost, doubled or moved piece shows.
fn body(bytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()
    };
    let mut body: Vec<_> = std::iter::repeat_with(&mut next)
        .take(bytes.div_ceil(4))
        .flatten()
        .collect();
    body.truncate(bytes);
    body
}

fn pass(server: &Server, body: &[u8]) -> Response {
    let headers = [("Content-Type", "application/octet-stream")];
    server.post("/invocations", &headers, body)
}

#[test]
fn a_100_mb_body_passes_both_handlers_with_few_copies_in_memory() {
    // Copies of the body that a process may hold at once. The server holds the request, which another Python worker may
    // need, and two of these: the result of input_handler, the response to it, the result of output_handler. The Python
    // worker holds one.
    const SERVER: f64 = 3.5;
    const WORKER: f64 = 1.5;
    let server = Setup::new()
        .handler(PASS_THROUGH)
        .var("FAKE_TFS_RECORD_REQUESTS", 0)
        .start();
    let pids = [server.pid(), server.python_worker_pid(0)];
    assert_eq!(pass(&server, b"small").body, b"small");
    let before = pids.map(|pid| processes::memory(pid, "VmHWM"));
    let sent = body(LARGE);
    for _ in 0..2 {
        let response = pass(&server, &sent);
        assert_eq!(response.status, 200, "{}", &response.text()[..1000]);
        assert!(
            response.body == sent,
            "{} bytes came back",
            response.body.len()
        );
    }
    let grown = |i: usize| (processes::memory(pids[i], "VmHWM") - before[i]) as f64 / LARGE as f64;
    let (of_server, of_worker) = (grown(0), grown(1));
    assert!(
        of_server <= SERVER && of_worker <= WORKER,
        "the server may hold {SERVER} copies of the body and the Python worker {WORKER}; they held {of_server:.2} and \
         {of_worker:.2}"
    );
    // Finished requests take no memory.
    for (pid, before) in pids.into_iter().zip(before) {
        wait_until("the memory is given back", || {
            processes::memory(pid, "VmRSS") < before + (LARGE / 2) as u64
        });
    }
}

#[test]
fn bodies_around_the_write_size_come_back_unchanged() {
    let server = Setup::new().handler(PASS_THROUGH).start();
    let all = body(300_000);
    let mut connection = server.connect();
    for power in [10, 13, 14, 16, 18] {
        for bytes in (1usize << power) - 14..(1 << power) + 3 {
            connection.send(&request("POST", "/invocations", &[], &all[..bytes]));
            let response = connection.response();
            assert!(
                response.status == 200 && response.body == all[..bytes],
                "{bytes} bytes"
            );
        }
    }
}

/// Pieces of large bodies alternate with small requests.
#[test]
fn large_bodies_of_concurrent_requests_do_not_mix() {
    let server = Setup::new().handler(PASS_THROUGH).workers(2).start();
    let bodies: Vec<_> = (0..16u8)
        .map(|n| [vec![n; 3 << 20], body(64)].concat())
        .collect();
    std::thread::scope(|scope| {
        for body in &bodies {
            let server = &server;
            scope.spawn(move || {
                for _ in 0..3 {
                    assert!(pass(server, body).body == *body);
                    assert_eq!(pass(server, &body[..10]).body, &body[..10]);
                }
            });
        }
    });
}

/// The Python worker exits while it reads or writes a large body.
#[test]
fn a_worker_that_dies_during_a_large_body_fails_only_that_request() {
    let server = Setup::new().obedient_pair().start();
    for function in ["input", "output"] {
        let pid = server.python_worker_pid(0);
        // The worker exits at the latest while it writes its reply, which nobody reads yet.
        let end = "threading.Timer(0.2, os._exit, [9]).start()";
        let poison = json!({function: end, "large": "x".repeat(50 << 20)});
        let response = server.order(&poison).response();
        assert!([200, 500].contains(&response.status), "{}", response.status);
        server.wait_for_new_worker(0, pid);
        server.assert_handlers_serve(1);
    }
}

/// Only complete requests are sent to the worker, so bodies that arrive slowly keep no other request waiting.
#[test]
fn a_slow_client_does_not_occupy_a_worker() {
    let server = Setup::new().obedient_pair().worker_class("sync").start();
    let head = "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    let mut slow: Vec<_> = (0..8).map(|_| server.connect()).collect();
    slow.iter_mut()
        .for_each(|connection: &mut Connection| connection.send(head.as_bytes()));
    let began = Instant::now();
    for n in 0..20 {
        server.obey(&json!({"n": n}));
    }
    // Far below the deadline, which the unfinished bodies would have used up.
    assert!(began.elapsed() < Duration::from_secs(25));
}
