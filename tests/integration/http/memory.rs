//! The limit for the memory of requests holds, whatever clients send: all that grows with what they send is reserved
//! before it is allocated.

use std::fmt::Write as _;
use std::fs;
use std::thread;

use crate::support::{
    Connection, INSTANCES, Response, Server, Setup, processes, request, wait_until,
};

/// `SAGEMAKER_TFS_MAX_BODY_MEMORY_MB`.
const LIMIT_MB: usize = 64;
const LIMIT: usize = LIMIT_MB << 20;
/// A body that alone is half of the limit.
const BODY: usize = LIMIT / 2;
/// Above what the server needs at rest, it may take the limit and a quarter more: what accepted requests grow to, and
/// what the allocator adds.
const PEAK: usize = LIMIT + LIMIT / 4;

fn start() -> Server {
    start_with(Setup::new())
}

fn start_with(setup: Setup) -> Server {
    processes::raise_own_file_limit();
    let server = setup
        .var("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB", LIMIT_MB)
        .var("FAKE_TFS_RECORD_REQUESTS", 0)
        .start();
    // What is allocated once is not counted.
    for _ in 0..100 {
        server.assert_serves();
    }
    server
}

/// A line of `/proc/<pid>/status`, bytes.
fn status(server: &Server, name: &str) -> usize {
    let text = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    kilobytes.expect("a line").parse::<usize>().expect("kB") << 10
}

/// The most memory that the server had resident while `run` ran, above what it had before.
fn peak(server: &Server, run: impl FnOnce()) -> usize {
    let rest = status(server, "VmRSS:");
    fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").expect("it is our child");
    run();
    status(server, "VmHWM:").saturating_sub(rest)
}

fn filled(start: &str, piece: &str, end: &str) -> Vec<u8> {
    let count = (BODY - start.len() - end.len()) / piece.len();
    [start, &piece.repeat(count), end].concat().into_bytes()
}

/// The worst body of each format: those that grow most when they are converted, and those that cost most to look at.
#[test]
fn no_body_takes_more_than_the_limit_and_a_quarter() {
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
            let answer = server.post("/invocations", &[("Content-Type", content_type)], &body);
            // Nobody else uses memory, so it is no time to "try again".
            let expected = [200, 400, 413, 507];
            assert!(
                expected.contains(&answer.status),
                "{name}: {}",
                answer.text()
            );
        });
        assert!(peak <= PEAK, "{name}: {} MB", peak >> 20);
        server.assert_serves();
    }
}

/// Bytes that are no UTF-8 end the conversion, and the row that has them is looked for.
#[test]
fn finding_the_row_of_a_mistake_costs_no_more() {
    let server = start();
    let body = [filled("", "\u{1}", ""), b"\xff".to_vec()].concat();
    let peak = peak(&server, || {
        let answer = server.post("/invocations", &[("Content-Type", "text/csv")], &body);
        assert_eq!(answer.status, 400, "{}", answer.text());
    });
    assert!(peak <= PEAK, "{} MB", peak >> 20);
}

#[test]
fn what_passes_to_the_model_server_is_counted_as_well() {
    let server = start();
    let body = filled("{\"instances\":[1", ",1", "]}");
    let peak = peak(&server, || {
        let answer = server.post("/tfs/v1/models/half_plus_three:predict", &[], &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
    });
    assert!(peak <= PEAK, "{} MB", peak >> 20);
}

/// Each is alone within all limits; together they are more than there is memory for.
#[test]
fn many_open_heads_share_the_memory_of_bodies() {
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
        wait_until("some are turned away", || {
            all.iter_mut().any(Connection::is_readable)
        });
        let refused = all
            .iter_mut()
            .position(|connection| connection.is_readable());
        let answer = all[refused.expect("it was just seen")].response();
        assert_eq!(answer.status, 503, "{}", answer.text());
        // Heads of common size need none of it.
        assert_eq!(server.ping().status, 200);
    });
    assert!(peak <= PEAK, "{} MB", peak >> 20);
    server.assert_serves();
}

/// A read of a chunked body may bring many small chunks or one part of a large one.
#[test]
fn chunked_bodies_that_come_slowly_share_it_too() {
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
    wait_until("their memory is free", || {
        server.invoke(INSTANCES).status == 200
    });
}

/// Accepted requests have the memory that they need to be answered, though new ones ask for all there is.
#[test]
fn a_full_memory_keeps_nobody_without_a_body_out() {
    let server = start();
    let head = format!("POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {LIMIT}\r\n\r\n");
    let mut greedy = server.connect();
    greedy.send(head.as_bytes());
    for _ in 0..LIMIT / 0x10000 - 1 {
        greedy.send(&[b' '; 0x10000]);
    }
    wait_until("there is no room for a body", || {
        server.invoke(INSTANCES).status == 503
    });
    assert_eq!(server.ping().status, 200);
    let answer = server.exchange(&request("GET", "/tfs/v1/models/half_plus_three", &[], b""));
    assert_eq!(answer.status, 200, "{}", answer.text());
    drop(greedy);
    wait_until("there is room again", || {
        server.invoke(INSTANCES).status == 200
    });
}

/// The model server's answer may be as large as the request, or larger.
#[test]
fn answers_are_counted_too() {
    let server = start_with(Setup::new().var("FAKE_TFS_ANSWER", "echo"));
    let body = filled("{\"instances\":[1", ",1", "]}");
    let peak = peak(&server, || {
        let answer = server.invoke(&body);
        // Request and answer together are all there is.
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.body.len(), body.len());
        let large = [&body[..], &vec![b' '; LIMIT / 8 * 3][..]].concat();
        let answer = server.invoke(&large);
        assert_never(&answer);
    });
    assert!(peak <= PEAK, "{} MB", peak >> 20);
    server.assert_serves();
}

/// It is alone, and still there is not enough: trying again would not help.
fn assert_never(answer: &Response) {
    assert_eq!(answer.status, 507, "{}", answer.text());
    assert_eq!(answer.header("retry-after"), None);
    let text = answer.text();
    assert!(text.contains("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB"), "{text}");
}

/// What a body is converted to may be what does not fit: then it is the body that is too large.
#[test]
fn a_conversion_that_never_fits_is_refused_for_ever() {
    let server = start();
    let body = filled("", "\u{1}", "");
    let headers = [("Content-Type", "text/csv")];
    let answer = server.post("/invocations", &headers, &body);
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert_eq!(answer.header("retry-after"), None);
    server.assert_serves();
}

/// What a request needs beside its body counts against it, so that it is not told to try again for ever: the buffer for
/// chunks, and the head.
#[test]
fn what_a_request_needs_beside_its_body_is_its_own() {
    let server = start();
    let assert_never = |head: &str, body: &[u8]| {
        let mut connection = server.connect();
        // It is refused before it is sent as a whole.
        let _ = connection.try_send(head.as_bytes());
        let _ = connection.try_send(body);
        let answer = connection.response();
        assert_eq!(answer.status, 413, "{}", answer.text());
        assert_eq!(answer.header("retry-after"), None);
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
    // A head of usual size takes nothing from the body.
    let large = [
        b"{\"instances\": [1.0, 2.0, 5.0]}",
        &vec![b' '; LIMIT - 30][..],
    ]
    .concat();
    let answer = server.post(
        "/invocations",
        &[("A", "a".repeat(3_500).as_str())],
        &large[..LIMIT],
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    server.assert_serves();
}

/// Bodies, what handlers make of them, the model server's answer and the handlers': one after the other.
#[cfg(feature = "python")]
#[test]
fn the_way_through_handlers_is_counted_as_well() {
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
            let answer = server.invoke(&body);
            match fits {
                true => assert_eq!(answer.status, 200, "{}", answer.text()),
                false => assert_never(&answer),
            }
        });
        assert!(peak <= PEAK, "{} MB", peak >> 20);
        server.assert_serves();
    }
}

/// What is freed is not kept, in whatever thread it was: else the sum of many requests would count, not those at once.
#[test]
fn large_requests_one_after_the_other_leave_nothing_behind() {
    let server = start_with(Setup::new().var("FAKE_TFS_ANSWER", "echo"));
    let rest = status(&server, "VmRSS:");
    // Of all sizes, so that no freed piece fits the next.
    for size in (1..24).map(|step| BODY / 24 * step) {
        let start = "{\"instances\":[\"";
        let body = [start, &"x".repeat(size), "\"]}"].concat();
        let answers: Vec<_> = (0..2).map(|_| server.invoke(&body).status).collect();
        assert_eq!(answers, [200, 200]);
    }
    // What the allocator's arenas, one for each CPU, may keep at their tops.
    let arenas = thread::available_parallelism()
        .map_or(1, usize::from)
        .clamp(2, 8);
    wait_until("it is given back", || {
        status(&server, "VmRSS:") < rest + arenas * (8 << 20)
    });
}
