//! The memory limit for requests holds whatever clients send: all memory that grows with a request is reserved before
//! it is allocated.

use std::fmt::Write as _;
use std::thread;

use crate::support::memory::{LIMIT, PEAK, peak, start as start_with};
use crate::support::{
    Connection, INSTANCES, Response, Server, Setup, processes, request, wait_until,
};

/// A body of half the limit.
const BODY: usize = LIMIT / 2;
fn start() -> Server {
    start_with(Setup::new())
}

fn filled(start: &str, piece: &str, end: &str) -> Vec<u8> {
    let count = (BODY - start.len() - end.len()) / piece.len();
    [start, &piece.repeat(count), end].concat().into_bytes()
}

/// The worst bodies of each format: the ones that grow most in conversion, and the ones that cost most to inspect.
#[test]
fn no_body_takes_more_memory_than_the_limit_plus_a_quarter() {
    let json = "application/json";
    let csv = "text/csv";
    for (name, content_type, body) in [
        (
            "members of one object",
            json,
            filled("{\"\":0", ",\"\":0", "}"),
        ),
        (
            "members of a request",
            json,
            filled("{\"instances\":[1]", ",\"\":0", "}"),
        ),
        ("a list of objects", json, filled("[{}", ",{}", "]")),
        ("many values", json, filled("", "1 ", "")),
        (
            "joined requests",
            json,
            filled("", "{\"instances\":[1]} ", ""),
        ),
        (
            "requests of many members",
            json,
            filled("{\"instances\":[1]} {\"instances\":[1]", ",\"\":0", "}"),
        ),
        ("one value", json, filled("\"", "x", "\"")),
        ("no JSON", json, filled("", "{", "")),
        ("plain numbers", csv, filled("", "1.25,2.5\n", "")),
        ("short rows", csv, filled("", "1\n", "")),
        ("one long row", csv, filled("1", ",1", "")),
        ("control characters", csv, filled("", "\u{1}", "")),
        ("short strings", csv, filled("", "a,", "a")),
        ("quotes in quotes", csv, filled("\"", "\"\"", "\"")),
        ("one quoted field", csv, filled("\"", "x", "\"")),
        ("a quote that stays open", csv, filled("", "x", "\"\n\"")),
        ("an image", "image/png", filled("", "x", "")),
    ] {
        let server = start();
        let peak = peak(&server, || {
            let response = server.post("/invocations", &[("Content-Type", content_type)], &body);
            // No other request uses memory, so 503 with "try again" would be wrong.
            let expected = [200, 400, 413, 507];
            assert!(
                expected.contains(&response.status),
                "{name}: {}",
                response.text()
            );
        });
        assert!(peak <= PEAK, "{name}: {} MB", peak >> 20);
        server.assert_serves();
    }
}

/// Invalid UTF-8 ends the conversion, and the server searches for the row that contains it.
#[test]
fn searching_for_the_invalid_row_takes_no_more_memory_than_that() {
    let server = start();
    let body = [filled("", "\u{1}", ""), b"\xff".to_vec()].concat();
    let peak = peak(&server, || {
        let response = server.post("/invocations", &[("Content-Type", "text/csv")], &body);
        assert_eq!(response.status, 400, "{}", response.text());
    });
    assert!(peak <= PEAK, "{} MB", peak >> 20);
}

#[test]
fn requests_passed_through_to_the_model_server_are_counted() {
    let server = start();
    let body = filled("{\"instances\":[1", ",1", "]}");
    let peak = peak(&server, || {
        let response = server.post("/tfs/v1/models/half_plus_three:predict", &[], &body);
        assert_eq!(response.status, 200, "{}", response.text());
    });
    assert!(peak <= PEAK, "{} MB", peak >> 20);
}

/// Each head alone is within all limits; together they exceed the memory.
#[test]
fn many_open_heads_share_the_memory_for_bodies() {
    let server = start();
    let head = format!("GET /ping HTTP/1.1\r\nHost: x\r\nA: {}", "x".repeat(31_000));
    let peak = peak(&server, || {
        let mut all: Vec<_> = (0..2500)
            .map(|_| {
                let mut connection = server.connect();
                let _ = connection.try_send(head.as_bytes());
                connection
            })
            .collect();
        wait_until("some are refused", || {
            all.iter_mut().any(Connection::is_readable)
        });
        let refused = all
            .iter_mut()
            .position(|connection| connection.is_readable());
        let response = all[refused.expect("one was readable just now")].response();
        assert_eq!(response.status, 503, "{}", response.text());
        // Heads of usual size need none of this memory.
        assert_eq!(server.ping().status, 200);
    });
    assert!(peak <= PEAK, "{} MB", peak >> 20);
    server.assert_serves();
}

/// A read of a chunked body may return many small chunks or part of a large one.
#[test]
fn slow_chunked_bodies_share_the_memory_for_bodies() {
    let server = start();
    let mut text =
        "POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    for _ in 0..5000 {
        write!(text, "1\r\nx\r\n").unwrap();
    }
    text += "10";
    let peak = peak(&server, || {
        let all: Vec<_> = (0..2000)
            .map(|_| {
                let mut connection = server.connect();
                let _ = connection.try_send(text.as_bytes());
                connection
            })
            .collect();
        assert_eq!(server.ping().status, 200);
        drop(all);
    });
    assert!(peak <= PEAK, "{} MB", peak >> 20);
    wait_until("the memory is free", || {
        server.invoke(INSTANCES).status == 200
    });
}

/// Requests without a body keep the memory that they need, although others ask for all of it.
#[test]
fn requests_without_a_body_are_served_when_the_memory_for_bodies_is_full() {
    let server = start();
    let head = format!("POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {LIMIT}\r\n\r\n");
    let mut greedy = server.connect();
    greedy.send(head.as_bytes());
    for _ in 0..LIMIT / 0x10000 - 1 {
        greedy.send(&[b' '; 0x10000]);
    }
    wait_until("there is no memory for a body", || {
        server.invoke(INSTANCES).status == 503
    });
    assert_eq!(server.ping().status, 200);
    let response = server.exchange(&request("GET", "/tfs/v1/models/half_plus_three", &[], b""));
    assert_eq!(response.status, 200, "{}", response.text());
    drop(greedy);
    wait_until("memory is free again", || {
        server.invoke(INSTANCES).status == 200
    });
}

/// The model server's response may be as large as the request, or larger.
#[test]
fn responses_of_the_model_server_are_counted() {
    let server = start_with(Setup::new().var("FAKE_TFS_ANSWER", "echo"));
    let body = filled("{\"instances\":[1", ",1", "]}");
    let peak = peak(&server, || {
        let response = server.invoke(&body);
        // Request and response together take all the memory.
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.body.len(), body.len());
        let large = [&body[..], &vec![b' '; LIMIT / 8 * 3][..]].concat();
        let response = server.invoke(&large);
        assert_never(&response);
    });
    assert!(peak <= PEAK, "{} MB", peak >> 20);
    server.assert_serves();
}

/// The request is the only one, and still the memory is not enough: trying again would not help.
fn assert_never(response: &Response) {
    assert_eq!(response.status, 507, "{}", response.text());
    assert_eq!(response.header("retry-after"), None);
    let text = response.text();
    assert!(text.contains("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB"), "{text}");
}

/// If the converted body does not fit, the body counts as too large.
#[test]
fn a_body_whose_conversion_can_never_fit_gets_413_without_retry_after() {
    let server = start();
    let body = filled("", "\u{1}", "");
    let headers = [("Content-Type", "text/csv")];
    let response = server.post("/invocations", &headers, &body);
    assert_eq!(response.status, 413, "{}", response.text());
    assert_eq!(response.header("retry-after"), None);
    server.assert_serves();
}

/// A request that cannot fit together with its head and its buffer for chunks gets 413. With 503, the client would try
/// again forever.
#[test]
fn head_and_chunk_buffer_count_against_the_request_itself() {
    let server = start();
    let assert_never = |head: &str, body: &[u8]| {
        let mut connection = server.connect();
        // The server refuses the request before all of it is sent.
        let _ = connection.try_send(head.as_bytes());
        let _ = connection.try_send(body);
        let response = connection.response();
        assert_eq!(response.status, 413, "{}", response.text());
        assert_eq!(response.header("retry-after"), None);
    };
    for size in [LIMIT - 30_000, LIMIT, LIMIT + 1, LIMIT + 100_000] {
        let head = format!(
            "POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n"
        );
        assert_never(&head, &vec![b' '; size]);
    }
    let size = LIMIT - 30_000;
    let head = format!(
        "POST /invocations HTTP/1.1\r\nHost: x\r\nA: {}\r\nContent-Length: {size}\r\n\r\n",
        "a".repeat(31_000)
    );
    assert_never(&head, &[]);
    // A head of usual size takes no memory from the body.
    let large = [
        b"{\"instances\": [1.0, 2.0, 5.0]}",
        &vec![b' '; LIMIT - 30][..],
    ]
    .concat();
    let response = server.post(
        "/invocations",
        &[("A", "a".repeat(3_500).as_str())],
        &large[..LIMIT],
    );
    assert_eq!(response.status, 200, "{}", response.text());
    server.assert_serves();
}

/// The body, the input handler's result, the model server's response and the output handler's result, one after the
/// other.
#[cfg(feature = "python")]
#[test]
fn requests_through_handlers_are_counted() {
    let script = "\
def input_handler(data, context):
    return data.read()

def output_handler(response, context):
    return response.content, 'application/json'
";
    let setup = Setup::new().handler(script);
    let server = start_with(setup.var("FAKE_TFS_ANSWER", "echo"));
    let large = filled("{\"instances\":[1", ",1", "]}");
    let fitting = [&large[..large.len() / 2], b"1]}"].concat();
    for (body, fits) in [(fitting, true), (large, false)] {
        let peak = peak(&server, || {
            let response = server.invoke(&body);
            match fits {
                true => assert_eq!(response.status, 200, "{}", response.text()),
                false => assert_never(&response),
            }
        });
        assert!(peak <= PEAK, "{} MB", peak >> 20);
        server.assert_serves();
    }
}

/// Every thread returns the memory that it frees. Otherwise the sum of all requests would count, not the requests at
/// one time.
#[test]
fn consecutive_large_requests_leave_no_memory_behind() {
    let server = start_with(Setup::new().var("FAKE_TFS_ANSWER", "echo"));
    let rest = processes::memory(server.pid(), "VmRSS");
    // Of many sizes, so no freed block fits the next body.
    for size in (1..24).map(|step| BODY / 24 * step) {
        let start = "{\"instances\":[\"";
        let body = [start, &"x".repeat(size), "\"]}"].concat();
        let responses: Vec<_> = (0..2).map(|_| server.invoke(&body).status).collect();
        assert_eq!(responses, [200, 200]);
    }
    // Each arena of the allocator, one per CPU, may keep some memory at its top.
    let arenas = thread::available_parallelism()
        .map_or(1, usize::from)
        .clamp(2, 8);
    wait_until("the memory is returned to the system", || {
        processes::memory(server.pid(), "VmRSS") < rest + (arenas * (8 << 20)) as u64
    });
}
