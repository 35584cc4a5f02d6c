//! The server's children are killed from outside repeatedly under load: every request gets its own response.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::load::{Progress, under_load};
use crate::support::{Connection, Server, Setup, processes, request, wait_until};

/// The results of all requests.
#[derive(Debug, Default)]
struct Tally {
    /// By status and, unless that is 200, text.
    responses: BTreeMap<(u16, String), usize>,
    /// Responses with status 200 that belong to another request.
    wrong: usize,
    /// Connections that closed without a response.
    lost: usize,
    longest: Duration,
}

impl Tally {
    fn of(&self, status: u16) -> usize {
        let of_status = self
            .responses
            .iter()
            .filter(|((found, _), _)| *found == status);
        of_status.map(|(_, count)| count).sum()
    }

    fn all(&self) -> usize {
        self.responses.values().sum::<usize>() + self.lost
    }

    /// Asserts that nothing failed except at most `calls` calls that ran in a Python worker when it was killed.
    #[track_caller]
    fn assert_good(&self, calls: usize) {
        assert_eq!((self.lost, self.wrong), (0, 0), "{self}");
        let is_running_call =
            |status: u16, text: &str| status == 500 && text.contains("was restarted while it ran");
        let (mut running, mut failed) = (0, 0);
        for ((status, text), count) in &self.responses {
            match *status {
                200 => {}
                status if is_running_call(status, text) => running += count,
                _ => failed += count,
            }
        }
        assert_eq!(failed, 0, "{self}");
        assert!(running <= calls, "more than one call for each kill: {self}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(
            f,
            "requests {}, responses with 200 {}, wrong responses {}, without a response {}, longest time {:.2} s",
            self.all(),
            self.of(200),
            self.wrong,
            self.lost,
            self.longest.as_secs_f64()
        )?;
        for ((status, text), count) in &self.responses {
            if *status != 200 {
                writeln!(f, "  {count} x {status} {text}")?;
            }
        }
        Ok(())
    }
}

/// Runs clients until `body` returns. The model server echoes the requests; each request is unique and takes up to
/// 100 ms.
fn tally_under_load(server: &Server, clients: usize, body: impl FnOnce(&Progress)) -> Tally {
    let tally = Mutex::new(Tally::default());
    let exchange = |connection: &mut Connection, client: usize, n: usize| {
        let delay = (client * 37 + n * 17) % 100;
        let body = json!({"instances": [client, n], "fake": {"delay_ms": delay}}).to_string();
        let headers = [("Content-Type", "application/json")];
        let began = Instant::now();
        connection.send(&request("POST", "/invocations", &headers, body.as_bytes()));
        let response = connection.try_response();
        let took = began.elapsed();
        let mut tally = tally.lock().unwrap();
        tally.longest = tally.longest.max(took);
        let Ok(Some(response)) = response else {
            tally.lost += 1;
            *connection = server.connect();
            return;
        };
        let mut text = response.text();
        if response.status == 200 {
            tally.wrong += usize::from(text != body);
            text.clear();
        }
        *tally.responses.entry((response.status, text)).or_default() += 1;
    };
    under_load(server, clients, exchange, body);
    tally.into_inner().unwrap()
}

fn echoing(instances: u16, load: Duration) -> Setup {
    Setup::new()
        .instances(instances)
        .var("FAKE_TFS_ANSWER", "echo")
        .var("FAKE_TFS_RECORD_REQUESTS", 0)
        .var("FAKE_TFS_START_DELAY_MS", load.as_millis())
}

const LOAD: Duration = Duration::from_millis(500);

#[test]
fn no_request_fails_when_tensorflow_serving_is_killed_repeatedly() {
    let server = echoing(1, LOAD).start();
    let tally = tally_under_load(&server, 32, |progress| {
        for kill in 0..5 {
            progress.wait_for(200);
            processes::signal(server.model_server_pid(0), Signal::KILL);
            server.wait_for_start(kill + 1);
        }
        progress.wait_for(200);
    });
    tally.assert_good(0);
    assert!(
        server.log().contains("losses so far: 1"),
        "some requests were sent again"
    );
}

/// The model server never lives long enough to respond, so requests are lost many times although none causes a crash.
#[test]
fn no_request_fails_when_tensorflow_serving_is_killed_as_soon_as_it_serves() {
    let server = echoing(1, Duration::ZERO).start();
    let tally = tally_under_load(&server, 32, |progress| {
        progress.wait_for(32);
        for kill in 0..6 {
            wait_until("requests are in flight", || {
                let stat = || server.stat(0, "in_flight");
                crate::support::Connection::try_open(server.rest_port(0)).is_ok() && stat() > 0
            });
            processes::signal(server.model_server_pid(0), Signal::KILL);
            server.wait_for_start(kill + 1);
        }
        progress.wait_for(200);
    });
    tally.assert_good(0);
}

#[test]
fn no_request_fails_when_two_instances_are_killed_in_turn() {
    let server = echoing(2, LOAD).start();
    let tally = tally_under_load(&server, 32, |progress| {
        for kill in 0..4 {
            progress.wait_for(200);
            processes::signal(server.model_server_pid(kill % 2), Signal::KILL);
            server.wait_for_start(usize::from(kill) + 2);
        }
        progress.wait_for(200);
    });
    tally.assert_good(0);
}

/// A call that runs in a Python worker when the worker is killed fails, because nobody knows what the call had already
/// done. With the class `gevent`, this affects at most one call.
#[cfg(feature = "python")]
#[test]
fn only_running_calls_fail_when_python_workers_and_tensorflow_serving_are_killed() {
    let server = echoing(1, LOAD).obedient_pair().workers(2).start();
    server.assert_handlers_serve(2);
    let (mut starts, mut kills) = (1, 0);
    let tally = tally_under_load(&server, 32, |progress| {
        for _ in 0..3 {
            progress.wait_for(100);
            for index in 0..2 {
                let pid = server.kill_worker(index);
                kills += 1;
                server.wait_for_new_worker(index, pid);
            }
            progress.wait_for(100);
            processes::signal(server.model_server_pid(0), Signal::KILL);
            server.wait_for_start(starts);
            starts += 1;
        }
        progress.wait_for(200);
    });
    tally.assert_good(kills);
}
