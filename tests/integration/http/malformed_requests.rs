//! Ten thousand malformed requests: the server refuses each, passes none on to TensorFlow Serving, keeps serving other
//! clients, and keeps no thread and no descriptor.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::json;

use crate::support::malformed::{Generator, MARK, Malformed, kinds, well_formed};
use crate::support::processes::threads;
use crate::support::server::fake;
use crate::support::{Connection, PREDICTIONS, Server, SetWhenDropped, Setup, request, wait_until};

const REQUESTS: usize = 10_000;
/// The variable `SAGEMAKER_TFS_TEST_SEED` overrides this seed.
const SEED: u64 = 5;
/// Clients that send malformed requests at the same time.
const CLIENTS: usize = 4;
/// Well-behaved clients at the same time.
const OTHERS: usize = 2;
/// Failures after which a kind is skipped: each may take as long as a test waits at most.
const ENOUGH: usize = 3;

#[test]
fn ten_thousand_malformed_requests_affect_no_other_client() {
    let seed =
        std::env::var("SAGEMAKER_TFS_TEST_SEED").map_or(SEED, |s| s.parse().expect("a number"));
    let server = Setup::new().start();
    warm_up(&server);
    let before = (threads(server.pid()), server.open_files());

    let generator = Mutex::new(Generator::new(seed));
    let failures = Failures::default();
    let done = AtomicBool::new(false);
    let sent = AtomicUsize::new(0);
    let answered = thread::scope(|scope| {
        let _done = SetWhenDropped(&done);
        let others: Vec<_> = (0..OTHERS)
            .map(|client| {
                scope.spawn({
                    let (server, done) = (&server, &done);
                    move || well_behaved_client(server, client, done)
                })
            })
            .collect();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    while sent.fetch_add(1, Ordering::Relaxed) < REQUESTS {
                        let malformed = generator.lock().expect("no client panics").make();
                        if !failures.are_enough(malformed.kind)
                            && let Err(problem) = send(&server, &malformed)
                        {
                            failures.add(&malformed, &problem);
                        }
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().expect("clients collect failures");
        }
        done.store(true, Ordering::Relaxed);
        others
            .into_iter()
            .map(|client| client.join().expect("well-behaved clients are served"))
            .sum::<usize>()
    });

    failures.assert_none(seed);
    assert!(answered > 0, "the well-behaved clients got no response");
    let requests = server.requests();
    let strange = requests
        .iter()
        .find(|r| r.body.as_deref().is_none_or(|body| body.contains(MARK)));
    assert_eq!(
        strange, None,
        "TensorFlow Serving gets no malformed request"
    );
    server.assert_serves();
    wait_until("threads and descriptors are as before", || {
        let now = (threads(server.pid()), server.open_files());
        now.0 <= before.0 && now.1 <= before.1
    });
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// Without this, the test above would pass with a server that refuses everything.
#[test]
fn the_requests_that_malformed_requests_are_made_from_are_served() {
    let server = Setup::new().start();
    let mut connection = server.connect();
    for request in well_formed() {
        connection.send(&request.bytes());
        assert_eq!(connection.response().status, 200, "{request:?}");
    }
}

/// Inputs for an HTTP parser, some of them well-formed: the server refuses or serves each.
#[test]
fn inputs_of_the_fuzzing_corpus_cause_no_server_error() {
    let server = Setup::new().start();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut count = 0;
    for folder in ["corpus/http", "findings/http"] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else {
            continue; // the fuzzer has found nothing yet
        };
        for entry in entries {
            let path = entry.expect("folders can be read").path();
            let mut connection = server.connect();
            let _ = connection.try_send(&fs::read(&path).expect("inputs can be read"));
            connection.half_close();
            for status in
                statuses(&mut connection).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
            {
                assert!(
                    is_refusal(status) || (200..300).contains(&status),
                    "{path:?}: {status}"
                );
            }
            count += 1;
        }
    }
    assert!(count > 0, "fuzz/corpus/http has no inputs");
    server.assert_serves();
}

/// Fills the server's pools, so it has as many threads and connections as it will need.
fn warm_up(server: &Server) {
    let slow = fake(&json!({"delay_ms": 200}));
    let mut connections: Vec<_> = (0..2 * (CLIENTS + OTHERS))
        .map(|_| server.connect())
        .collect();
    for connection in &mut connections {
        connection.send(&request("POST", "/invocations", &[], slow.as_bytes()));
    }
    for connection in &mut connections {
        assert_eq!(connection.response().status, 200);
    }
    let held = server.open_files();
    let clients = connections.len();
    drop(connections);
    wait_until("the connections are closed", || {
        server.open_files() + clients <= held
    });
}

/// Sends requests until `done`; each response must be right. Returns the number of responses.
fn well_behaved_client(server: &Server, client: usize, done: &AtomicBool) -> usize {
    /// Requests on one connection.
    const KEPT: usize = 20;
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        let mut connection = server.connect();
        for _ in 0..KEPT {
            let body = json!({"instances": [client, count]}).to_string();
            connection.send(&request("POST", "/invocations", &[], body.as_bytes()));
            let response = connection.response();
            assert_eq!(
                (response.status, response.text().as_str()),
                (200, PREDICTIONS)
            );
            count += 1;
        }
    }
    count
}

/// Sends the request and reads until the connection closes.
fn send(server: &Server, malformed: &Malformed) -> Result<(), String> {
    let mut connection =
        Connection::try_open(server.port()).map_err(|e| format!("cannot connect: {e}"))?;
    let whole = malformed.whole();
    let mut at = 0;
    for end in malformed.cuts.iter().copied().chain([whole.len()]) {
        // The server may have closed the connection already.
        let _ = connection.try_send(&whole[at..end]);
        at = end;
    }
    if malformed.half_close {
        connection.half_close();
    }
    let statuses = statuses(&mut connection)?;
    // The request before is well-formed, but a connection that is reset may lose even its response.
    let good = usize::from(!malformed.before.is_empty());
    let (first, rest) = statuses.split_at(good.min(statuses.len()));
    let refused = match rest {
        [] => true,
        [status] => is_refusal(*status),
        _ => false,
    };
    if refused && first.iter().all(|&status| status == 200) {
        Ok(())
    } else {
        Err(format!("answered with {statuses:?}"))
    }
}

/// The statuses of all responses until the connection closes.
fn statuses(connection: &mut Connection) -> Result<Vec<u16>, String> {
    let mut statuses = Vec::new();
    loop {
        match connection.try_response() {
            Ok(Some(response)) => statuses.push(response.status),
            Ok(None) => return Ok(statuses),
            // Within a response, because the server had not read everything.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(statuses),
            Err(e) => {
                return Err(format!(
                    "after {statuses:?} neither a response nor a closed connection: {e}"
                ));
            }
        }
    }
}

/// Whether the status blames the request or refuses it for now, and reports no failure of the server.
fn is_refusal(status: u16) -> bool {
    (400..=505).contains(&status) && ![500, 502, 504].contains(&status)
}

/// What went wrong, by kind.
#[derive(Default)]
struct Failures(Mutex<BTreeMap<&'static str, Vec<String>>>);

impl Failures {
    fn are_enough(&self, kind: &str) -> bool {
        let failures = self.0.lock().expect("no client panics");
        failures.get(kind).is_some_and(|all| all.len() >= ENOUGH)
    }

    fn add(&self, malformed: &Malformed, problem: &str) {
        let shown = |bytes: &[u8]| {
            let start = bytes[..bytes.len().min(300)].escape_ascii();
            format!("{start} ({} bytes)", bytes.len())
        };
        let text = format!(
            "{problem}\n    sent: {}\n    half closed: {}; before it: {}; after it: {} bytes",
            shown(&malformed.bytes),
            malformed.half_close,
            malformed.before.len(),
            malformed.after.len()
        );
        let mut failures = self.0.lock().expect("no client panics");
        failures.entry(malformed.kind).or_default().push(text);
    }

    fn assert_none(self, seed: u64) {
        let failures = self.0.into_inner().expect("no client panics");
        let mut text = String::new();
        for (kind, all) in &failures {
            for failure in all {
                let _ = writeln!(text, "{kind}: {failure}");
            }
        }
        let good = kinds().filter(|kind| !failures.contains_key(kind)).count();
        assert!(
            failures.is_empty(),
            "seed {seed}, {good} kinds without a failure\n{text}"
        );
    }
}
