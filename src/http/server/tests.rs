//! Tests of the server over loopback sockets, with a fake service whose requests say what to do.

mod end;
mod lanes;
mod limits;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::AtomicUsize;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::*;
use crate::budget::Buffer;
use crate::http::head::Head;
use crate::http::response::Response;
use crate::http::service::{Lane, Planned, Request};
use crate::wait::{Condition, Mutex, WaitError};

/// A test that takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// A request with `/hold` in its path waits until the test releases it, its client hangs up or its deadline passes. A
/// request with `/stay` waits until the test releases it.
struct FakeService {
    planned: AtomicUsize,
    is_released: Mutex<bool>,
    released: Condition,
    /// Reports each request that begins.
    begin: Sender<String>,
    /// Reports each held request, and how its wait ended.
    end: Sender<(String, Result<(), WaitError>)>,
}

impl Service for Arc<FakeService> {
    type Plan = String;

    fn plan(&self, head: &Head) -> Planned<String> {
        self.planned.fetch_add(1, Ordering::SeqCst);
        let path = head.target().to_owned();
        let lane = match path.split('/').nth(1) {
            Some("now") => Lane::Immediate,
            Some("thread") => Lane::Thread,
            _ => Lane::Request,
        };
        let max_body = (lane != Lane::Immediate).then_some(1 << 20);
        Planned {
            plan: path,
            lane,
            max_body,
        }
    }

    fn respond(&self, path: String, request: &mut Request) -> Response {
        // Fails when the test is over, which is fine.
        let _ = self.begin.send(path.clone());
        let deadline = Some(request.deadline);
        match path.split('/').next_back() {
            Some("panic") => panic!("on purpose"),
            Some("where") => text(thread::current().name().unwrap_or_default()),
            Some("echo") => Response::json(200, std::mem::take(&mut request.body)),
            _ if path.contains("/hold") => {
                self.hold(path, |guard| self.released.wait(guard, deadline))
            }
            _ if path.contains("/stay") => {
                self.hold(path, |guard| self.released.wait_always(guard, None))
            }
            _ => text(&path),
        }
    }

    fn without_thread(&self, _: &String, error: &StartError) -> Option<Response> {
        panic!("{error}")
    }
}

type Released<'a> = wait::MutexGuard<'a, bool>;

impl FakeService {
    fn hold<'a>(
        &'a self,
        path: String,
        wait: impl Fn(Released<'a>) -> (Released<'a>, Result<(), WaitError>),
    ) -> Response {
        let (mut guard, mut result) = (self.is_released.lock(), Ok(()));
        while !*guard && result.is_ok() {
            (guard, result) = wait(guard);
        }
        drop(guard);
        let _ = self.end.send((path.clone(), result));
        match result {
            Ok(()) => text(&path),
            Err(WaitError::Cancelled) => RequestError::hung_up().into(),
            Err(WaitError::TimedOut) => RequestError::new(504, "held too long").into(),
        }
    }
}

fn text(text: &str) -> Response {
    Response::json(200, text.as_bytes().to_vec())
}

/// A server for one test.
struct TestServer {
    server: Server<Arc<FakeService>>,
    service: Arc<FakeService>,
    address: SocketAddr,
    begun: Receiver<String>,
    ended: Receiver<(String, Result<(), WaitError>)>,
}

impl TestServer {
    fn start(workers: Workers, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            listen: (Ipv4Addr::LOCALHOST.into(), 0),
            workers,
            slots: 2,
            backlog: 8,
            deadline: LIMIT,
            memory: 64 << 20,
            max_connections: 64,
        };
        change(&mut settings);
        let ((begin, begun), (end, ended)) = (unbounded(), unbounded());
        let service = Arc::new(FakeService {
            planned: AtomicUsize::new(0),
            is_released: Mutex::new(false),
            released: Condition::new(),
            begin,
            end,
        });
        let (announce, announced) = bounded(1);
        let shared = Arc::clone(&service);
        Server::start(&settings, shared, |server| announce.send(server).unwrap()).unwrap();
        let server = announced.recv().unwrap();
        Self {
            address: server.local_address().unwrap(),
            server,
            service,
            begun,
            ended,
        }
    }

    /// Releases all held requests, now and later.
    fn release(&self) {
        *self.service.is_released.lock() = true;
        self.service.released.notify_all();
    }

    fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address).unwrap())
    }

    /// A client whose request is running.
    fn hold(&self, path: &str) -> Client {
        let client = self.get(path);
        self.expect_begin(path);
        client
    }

    /// A client that has sent its request.
    fn get(&self, path: &str) -> Client {
        let mut client = self.connect();
        client.get(path);
        client
    }

    /// A client whose request waits in the backlog. Needs a server with one event loop, which queues a request right
    /// after planning it.
    fn queue(&self, path: &str) -> Client {
        let planned = self.planned();
        let client = self.get(path);
        eventually(|| self.planned() == planned + 1);
        client
    }

    fn expect_begin(&self, path: &str) {
        assert_eq!(self.begun.recv_timeout(LIMIT).unwrap(), path);
    }

    fn planned(&self) -> usize {
        self.service.planned.load(Ordering::SeqCst)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.server.stop_accepting();
        self.release();
    }
}

/// Polls until `is_so` returns true.
fn eventually(is_so: impl Fn() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < limit, "the expected state is not reached");
        thread::yield_now();
    }
}

/// A response as the client receives it.
#[derive(Debug, PartialEq, Eq)]
struct Received {
    status: u16,
    head: String,
    body: String,
}

impl Received {
    fn expect(&self, status: u16, body: &str) -> &Self {
        assert_eq!(
            (self.status, self.body.as_str()),
            (status, body),
            "{self:?}"
        );
        self
    }

    fn expect_part(&self, status: u16, part: &str) -> &Self {
        assert!(
            self.status == status && self.body.contains(part),
            "{self:?}"
        );
        self
    }
}

/// A client's connection.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    fn get(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    }

    fn receive(&mut self) -> Received {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(
                self.0.read_line(&mut head).unwrap() > 0,
                "ended early: {head:?}"
            );
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        Received {
            status,
            head,
            body: String::from_utf8(body).unwrap(),
        }
    }

    fn ask(&mut self, path: &str) -> Received {
        self.get(path);
        self.receive()
    }

    /// Expects the server to end the connection without sending anything.
    fn expect_end(&mut self) {
        match self.0.read(&mut [0; 64]) {
            Ok(0) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Runs a test in both modes, with requests as coroutines and on threads, each with `loops` event loops.
fn with_both(loops: usize, test: impl Fn(Workers)) {
    test(Workers::Coroutines(loops));
    test(Workers::Threads(loops));
}
