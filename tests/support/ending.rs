//! Clients that send requests until the server shuts down, and the responses they get.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::http::{Connection, request};
use crate::support::server::Server;
use crate::support::wait_until;

/// The results of clients that send requests until the server shuts down.
#[derive(Debug, Default)]
pub struct AnswersUntilTheEnd {
    good: AtomicUsize,
    closing: AtomicUsize,
    lost: Mutex<Vec<String>>,
}

impl AnswersUntilTheEnd {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends one request after the other, until a response closes its connection and new connections are refused. Every
    /// response must have status 200 and the body `expected`.
    pub fn client(&self, server: &Server, body: &[u8], expected: &str) {
        let headers = [("Content-Type", "application/json")];
        let bytes = request("POST", "/invocations", &headers, body);
        while let Ok(mut connection) = Connection::try_open(server.port()) {
            // A connection that the server has not accepted yet closes with the listening socket, without a response.
            let mut is_accepted = false;
            loop {
                let sent = connection.try_send(&bytes);
                let response = sent.and_then(|()| connection.try_response());
                match response {
                    Ok(Some(response))
                        if (response.status, response.text().as_str()) == (200, expected) =>
                    {
                        self.good.fetch_add(1, Ordering::Relaxed);
                        is_accepted = true;
                        if response.header("connection") == Some("close") {
                            self.closing.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                    }
                    Ok(None) | Err(_) if !is_accepted => break,
                    other => {
                        self.lost.lock().unwrap().push(format!("{other:?}"));
                        return;
                    }
                }
            }
        }
    }

    /// Waits for `count` responses.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        wait_until("requests have responses", || {
            self.good.load(Ordering::Relaxed) >= count
        });
    }

    /// Asserts that every request got its response, and that clients were still sending when the server shut down.
    #[track_caller]
    pub fn assert_none_lost(&self) {
        let lost = self.lost.lock().unwrap();
        assert!(lost.is_empty(), "{lost:?}");
        assert!(self.closing.load(Ordering::Relaxed) > 0);
    }
}
