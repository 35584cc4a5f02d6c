//! Request smuggling: no client can make TensorFlow Serving see more requests than were sent, so all clients get
//! their own responses.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::http::{Connection, Response};
use crate::support::{INSTANCES, Server, Setup, request};

const PREDICT: &str = "/tfs/v1/models/half_plus_three:predict";
const STATUS: &str = "/tfs/v1/models/half_plus_three";
/// A text in bodies that TensorFlow Serving must never take for requests.
const SMUGGLED: &str = "smuggled";

/// A server in front of a TensorFlow Serving with libevent 2.1.8 that echoes the bodies of requests.
fn server() -> Server {
    Setup::new()
        .var("FAKE_TFS_ANSWER", "echo")
        .var("FAKE_TFS_POST_BODIES_ONLY", 1)
        .var("FAKE_TFS_RECORD_REQUESTS", 0)
        .start()
}

/// Complete requests to TensorFlow Serving, to be sent as a body.
fn smuggled_requests() -> Vec<u8> {
    let body = format!("{{\"instances\": [\"{SMUGGLED}\"]}}");
    let target = "/v1/models/half_plus_three:predict";
    request("POST", target, &[], body.as_bytes()).repeat(2)
}

/// A request with a body, which is sent in chunks or with its length announced.
fn with_body(method: &str, target: &str, body: &[u8], chunked: bool) -> Vec<u8> {
    let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
    let length = body.len();
    match chunked {
        true => [
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n").as_bytes(),
            body,
            b"\r\n0\r\n\r\n",
        ]
        .concat(),
        false => [
            format!("{head}Content-Length: {length}\r\n\r\n").as_bytes(),
            body,
        ]
        .concat(),
    }
}

#[test]
fn only_get_head_and_post_are_accepted_below_tfs() {
    let server = server();
    for method in [
        "DELETE", "OPTIONS", "PUT", "PATCH", "TRACE", "CONNECT", "get", "Post", "BREW",
    ] {
        for body in [b"".as_slice(), &smuggled_requests()] {
            let response = server.exchange(&request(method, PREDICT, &[], body));
            assert_eq!(response.status, 405, "{method}: {}", response.text());
            assert_eq!(
                response.header("allow"),
                Some("GET, HEAD, POST"),
                "{method}"
            );
        }
    }
    assert_eq!(server.get(STATUS).status, 200);
    assert_eq!(server.post(PREDICT, &[], INSTANCES).status, 200);
    assert_eq!(server.stat(0, "requests"), 1);
}

#[test]
fn a_get_or_head_with_a_body_is_refused() {
    let server = server();
    for method in ["GET", "HEAD"] {
        for chunked in [false, true] {
            let mut connection = server.connect();
            connection.send(&with_body(method, STATUS, &smuggled_requests(), chunked));
            let response = match method {
                "HEAD" => connection.head(),
                _ => connection.response(),
            };
            assert_eq!(response.status, 400, "{method}");
            // The body is skipped, and the connection stays usable.
            connection.send(&request("POST", PREDICT, &[], INSTANCES));
            let own = connection.response();
            assert_eq!((own.status, own.body.as_slice()), (200, INSTANCES));
        }
        // An announced length of 0 counts as no body.
        let mut connection = server.connect();
        connection.send(&with_body(method, STATUS, b"", false));
        let response = match method {
            "HEAD" => connection.head(),
            _ => connection.response(),
        };
        assert_eq!(response.status, 200, "{method}");
    }
    assert_eq!(server.stat(0, "requests"), 4, "only the requests with POST");
}

#[test]
fn head_gets_the_response_of_get_without_the_body() {
    let server = server();
    let get = server.get(STATUS);
    let mut connection = server.connect();
    for target in [STATUS, "/tfs/v1/models/absent"] {
        connection.send(&request("HEAD", target, &[], b""));
        let head = connection.head();
        let get = match target {
            STATUS => get.clone(),
            _ => server.get(target),
        };
        assert_eq!(head.status, get.status, "{target}");
        assert_eq!(
            head.header("content-length"),
            Some(get.body.len().to_string().as_str()),
            "{target}"
        );
        assert_eq!(head.header("content-type"), get.header("content-type"));
    }
    connection.send(&request("GET", STATUS, &[], b""));
    assert_eq!(connection.response().body, get.body, "no body was left");
}

/// Counts of the mixed requests.
#[derive(Default)]
struct Tally {
    valid: AtomicUsize,
    posts: AtomicUsize,
}

const CLIENTS: usize = 20;
const REQUESTS: usize = 1_000;

#[test]
fn twenty_thousand_mixed_requests_get_their_own_responses() {
    let server = server();
    let tally = Tally::default();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, tally) = (&server, &tally);
            scope.spawn(move || {
                let mut connection = server.connect();
                for n in 0..REQUESTS {
                    one_of_them(server, &mut connection, client, n, tally);
                }
            });
        }
    });
    assert_eq!(
        server.stat(0, "requests"),
        tally.posts.load(Ordering::Relaxed) as u64,
        "the requests that TensorFlow Serving saw"
    );
    assert!(tally.valid.load(Ordering::Relaxed) > CLIENTS * REQUESTS / 4);
    let log = server.log();
    for word in ["unresponsive", "lost", "being killed"] {
        assert!(!log.contains(word), "{log}");
    }
    assert_eq!(server.starts().len(), 1);
    assert_eq!(server.ping().status, 200);
}

/// Sends one request, chosen by the two numbers, and checks its response.
fn one_of_them(
    server: &Server,
    connection: &mut Connection,
    client: usize,
    n: usize,
    tally: &Tally,
) {
    const METHODS: [&str; 12] = [
        "GET", "HEAD", "DELETE", "OPTIONS", "PUT", "CONNECT", "get", "head", "delete", "TRACE",
        "PATCH", "GET",
    ];
    const ODD_TARGETS: [&str; 12] = [
        "/tfs//v1/models/half_plus_three:predict",
        "/tfs/../v1/models/half_plus_three:predict",
        "/tfs/v1/models/./half_plus_three",
        "/tfs/v1/%2e%2E/half_plus_three",
        "/tfs/%",
        "/tfs/v1/models/half_plus_three%0d%0a%0d%0aPOST%20/",
        "/tfs/v1/models/half_plus_three?%0d%0aContent-Length:%2050",
        "/tfs/v1/models/{\"half\"}<plus>|three^`\\",
        "http://other/tfs/v1/models/half_plus_three/versions/9",
        "http://other",
        "/tfs/v1/models/half_plus_three:predict:",
        "/tfs/%zz",
    ];
    let mark = format!("{{\"instances\": [\"{client}-{n}\"]}}").into_bytes();
    let smuggled = smuggled_requests();
    let exchange = |connection: &mut Connection, bytes: &[u8], is_head: bool| -> Response {
        connection.send(bytes);
        let response = match is_head {
            true => connection.head(),
            false => connection.response(),
        };
        if response.header("connection") == Some("close") {
            *connection = server.connect();
        }
        let text = response.text();
        assert!(!text.contains(SMUGGLED), "{client}-{n}: {text}");
        response
    };
    let what = (client * 7 + n) % 10;
    match what {
        0..=3 => {
            let target = ["/invocations", PREDICT][what % 2];
            let bytes = request("POST", target, &[], &mark);
            let response = exchange(connection, &bytes, false);
            assert_eq!(
                (response.status, response.text()),
                (200, String::from_utf8_lossy(&mark).into_owned()),
                "{client}-{n}"
            );
            tally.valid.fetch_add(1, Ordering::Relaxed);
            tally.posts.fetch_add(1, Ordering::Relaxed);
        }
        4 => {
            let is_head = n.is_multiple_of(3);
            let method = if is_head { "HEAD" } else { "GET" };
            let response = exchange(connection, &request(method, STATUS, &[], b""), is_head);
            assert_eq!(response.status, 200, "{client}-{n}");
            assert!(is_head || response.text().contains("AVAILABLE"));
            tally.valid.fetch_add(1, Ordering::Relaxed);
        }
        5..=8 => {
            let method = METHODS[(client + n) % METHODS.len()];
            let target = [STATUS, PREDICT, "/tfs/"][n % 3];
            let bytes = with_body(method, target, &smuggled, n.is_multiple_of(2));
            let response = exchange(connection, &bytes, method == "HEAD");
            let expected = if ["GET", "HEAD"].contains(&method) {
                400
            } else {
                405
            };
            assert_eq!(
                response.status,
                expected,
                "{method} {target}: {}",
                response.text()
            );
        }
        _ => {
            let target = ODD_TARGETS[(client + n) % ODD_TARGETS.len()];
            let response = exchange(connection, &request("GET", target, &[], b""), false);
            assert!(
                [400, 404].contains(&response.status),
                "{target}: {}",
                response.text()
            );
        }
    }
}
