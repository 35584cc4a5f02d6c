//! The server does not run for a while: SIGSTOP, a frozen container, an overloaded machine. Requests that clients sent
//! during that time count as sent in time.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Connection, INSTANCES, PREDICTIONS, Setup, processes, request};

/// Longer than any time limit of a connection on which nothing arrives.
const PAUSE: Duration = Duration::from_secs(77);

#[test]
fn requests_sent_while_the_server_was_stopped_are_answered() {
    let server = Setup::new().deadline(60).start();
    let bytes = request("POST", "/invocations", &[], INSTANCES);
    let connect = |sent: &[u8]| -> Vec<Connection> {
        let connections = (0..40).map(|_| {
            let mut connection = server.connect();
            // So the server has accepted the connection before the pause.
            connection.send(&request("GET", "/ping", &[], b""));
            assert_eq!(connection.response().status, 200);
            connection.send(sent);
            connection
        });
        connections.collect()
    };
    let head = &bytes[..30];
    let body = &bytes[..bytes.len() - 5];
    let mut idle = connect(b"");
    // Half of these get the rest while the server is stopped, the others once it runs again.
    let (mut heads, mut bodies) = (connect(head), connect(body));
    server.assert_serves();

    server.signal(Signal::STOP);
    for connection in &mut idle {
        connection.send(&bytes);
    }
    for (connections, sent) in [(&mut heads, head), (&mut bodies, body)] {
        for connection in &mut connections[..20] {
            connection.send(&bytes[sent.len()..]);
        }
    }
    // The test is about the length of this pause.
    thread::sleep(PAUSE);
    server.signal(Signal::CONT);
    for connection in idle
        .iter_mut()
        .chain(&mut heads[..20])
        .chain(&mut bodies[..20])
    {
        let response = connection.response();
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, PREDICTIONS)
        );
    }
    for (connections, sent) in [(&mut heads, head), (&mut bodies, body)] {
        for connection in &mut connections[20..] {
            connection.send(&bytes[sent.len()..]);
            let response = connection.response();
            assert_eq!(
                (response.status, response.text().as_str()),
                (200, PREDICTIONS)
            );
        }
    }
    assert!(processes::runs(server.pid()));
    server.assert_serves();
}
