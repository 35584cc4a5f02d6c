//! TensorFlow Serving crashes, hangs or closes connections: no request is lost, and the server restarts it.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::load::under_load;
use crate::support::server::fake;
use crate::support::setup::fake_model_server;
use crate::support::{Connection, INSTANCES, PREDICTIONS, Setup, processes, request, wait_until};

#[test]
fn a_model_server_killed_while_idle_is_restarted() {
    // The delay keeps the instance down long enough for `/ping` to report it.
    let server = Setup::new().var("FAKE_TFS_START_DELAY_MS", 500).start();
    let first = server.model_server_pid(0);
    processes::signal(first, Signal::KILL);
    let reason = server.wait_until_unhealthy();
    assert!(reason.contains("instance 0"), "{reason}");
    server.wait_until_healthy();
    let second = server.wait_for_start(1).pid;
    assert_ne!(first, second);
    assert!(processes::runs(second) && !processes::runs(first));
    assert!(processes::look(first).is_none(), "no zombie is left");
    assert!(server.log().contains("was terminated by signal 9"));
    server.assert_serves();
}

/// Sends a request, whose response must be 200.
fn exchange(connection: &mut Connection, _client: usize, _number: usize) {
    connection.send(&request("POST", "/invocations", &[], INSTANCES));
    let response = connection.response();
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, PREDICTIONS)
    );
}

#[test]
fn a_model_server_killed_under_load_loses_no_request() {
    let server = Setup::new().var("FAKE_TFS_RECORD_REQUESTS", 0).start();
    under_load(&server, 20, exchange, |progress| {
        for kill in 0..3 {
            progress.wait_for(100);
            processes::signal(server.model_server_pid(0), Signal::KILL);
            server.wait_for_start(kill + 1);
        }
        progress.wait_for(100);
    });
}

#[test]
fn a_request_that_crashes_the_model_server_once_succeeds_after_the_restart() {
    for how in [json!(1), json!(0), json!("abort")] {
        let server = Setup::new().start();
        let response = server.invoke_fake(&json!({"exit": how, "fail_first": 1, "key": "k"}));
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, PREDICTIONS),
            "{how}"
        );
        assert_eq!(server.starts().len(), 2, "{how}");
    }
}

#[test]
fn only_the_request_that_always_crashes_the_model_server_fails() {
    let server = Setup::new().start();
    thread::scope(|scope| {
        let poison = scope.spawn(|| server.invoke_fake(&json!({"exit": 3})));
        under_load(&server, 8, exchange, |_| {
            let response = poison.join().unwrap();
            assert_eq!(response.status, 502, "{}", response.text());
            assert!(
                response.error().contains("TensorFlow Serving"),
                "{}",
                response.error()
            );
        });
    });
    let deaths = server.starts().len() - 1;
    assert!(
        (2..=10).contains(&deaths),
        "the request was sent {deaths} times"
    );
    server.wait_until_healthy();
    server.assert_serves();
}

/// The other requests are slower than the crashing request, so they are lost whenever they run together with it.
#[test]
fn slow_requests_survive_a_request_that_always_crashes_the_model_server() {
    let server = Setup::new().start();
    let slow = request(
        "POST",
        "/invocations",
        &[],
        fake(&json!({"delay_ms": 700})).as_bytes(),
    );
    let mut others: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for connection in &mut others {
        connection.send(&slow);
    }
    wait_until("the others are in flight", || {
        server.stat(0, "in_flight") == 8
    });
    let response = server.invoke_fake(&json!({"exit": 3}));
    assert_eq!(response.status, 502, "{}", response.text());
    for connection in &mut others {
        let response = connection.response();
        assert_eq!(response.status, 200, "{}", response.text());
    }
}

#[test]
fn a_client_does_not_notice_that_connections_to_the_model_server_were_lost() {
    let server = Setup::new().start();
    for close in ["before_answer", "mid_answer"] {
        for times in [1, 3] {
            let before = server.requests().len();
            let key = format!("{close}-{times}");
            let command = json!({"close": close, "fail_first": times, "key": key});
            let response = server.invoke_fake(&command);
            assert_eq!(
                (response.status, response.text().as_str()),
                (200, PREDICTIONS),
                "{key}"
            );
            assert_eq!(server.requests().len(), before + times + 1, "{key}");
        }
    }
    assert_eq!(server.starts().len(), 1, "the process was not restarted");
}

#[test]
fn a_request_whose_connections_are_always_lost_gets_502() {
    let server = Setup::new().start();
    for close in ["before_answer", "mid_answer"] {
        let before = server.requests().len();
        let response = server.invoke_fake(&json!({"close": close}));
        assert_eq!(response.status, 502, "{close}");
        assert!(
            response.error().contains("TensorFlow Serving"),
            "{}",
            response.error()
        );
        let attempts = server.requests().len() - before;
        assert!((2..=10).contains(&attempts), "{close}: {attempts} attempts");
        server.assert_serves();
    }
}

/// The connection closes just after a response that promised to keep it, so the next request may find it closed.
#[test]
fn a_client_does_not_notice_that_idle_connections_to_the_model_server_were_closed() {
    let server = Setup::new().start();
    let closing = fake(&json!({"close": "after_answer"}));
    let mut connection = server.connect();
    for n in 0..100 {
        connection.send(&request("POST", "/invocations", &[], closing.as_bytes()));
        let response = connection.response();
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, PREDICTIONS),
            "{n}"
        );
    }
}

#[test]
fn a_request_that_hangs_gets_504_at_its_deadline_and_delays_no_other() {
    let server = Setup::new().deadline(2).start();
    let mut hanging = server.connect();
    let began = Instant::now();
    hanging.send(&request(
        "POST",
        "/invocations",
        &[],
        fake(&json!({"hang": true})).as_bytes(),
    ));
    wait_until("the request hangs", || server.stat(0, "in_flight") == 1);
    server.assert_serves();
    assert!(!hanging.is_readable(), "the other requests did not wait");
    let response = hanging.response();
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "not before the deadline"
    );
    assert_eq!(response.status, 504);
    assert!(response.error().contains("2 s"), "{}", response.error());
    assert!(
        response.error().contains("TensorFlow Serving"),
        "{}",
        response.error()
    );
    server.assert_serves();
    assert_eq!(
        server.starts().len(),
        1,
        "one slow request is no reason for a restart"
    );
}

#[test]
fn a_response_that_comes_after_the_deadline_counts_as_hanging() {
    // The delay is longer than the deadline.
    let server = Setup::new().deadline(1).start();
    let response = server.invoke_fake(&json!({"delay_ms": 3000}));
    assert_eq!(response.status, 504, "{}", response.text());
    server.assert_serves();
}

#[test]
fn a_frozen_model_server_is_reported_killed_and_restarted() {
    let server = Setup::new().deadline(2).start();
    let first = server.model_server_pid(0);
    processes::signal(first, Signal::STOP);
    let reason = server.wait_until_unhealthy();
    assert!(reason.contains("instance 0: unresponsive"), "{reason}");
    let response = server.invoke(INSTANCES);
    assert!([200, 504].contains(&response.status), "{}", response.text());
    server.wait_until_healthy();
    assert_ne!(server.model_server_pid(0), first);
    assert!(!processes::runs(first), "the frozen process is gone");
    server.assert_serves();
}

#[test]
fn ping_reports_a_status_request_that_hangs() {
    let server = Setup::new().start();
    server.control(0, &json!({"state": "hang_status"}));
    let reason = server.wait_until_unhealthy();
    assert!(reason.contains("no response to GET"), "{reason}");
    // Invocations go on: the model server may only be busy.
    assert_eq!(server.invoke(INSTANCES).status, 200);
    server.control(0, &json!({"state": "AVAILABLE"}));
    server.wait_until_healthy();
    assert_eq!(server.starts().len(), 1);
}

#[test]
fn two_instances_share_the_requests() {
    let server = Setup::new().instances(2).start();
    for index in 0..2 {
        wait_until("both instances serve", || {
            let what = format!("instance {index}: model half_plus_three is AVAILABLE");
            server.log().contains(&what)
        });
    }
    let hanging = request(
        "POST",
        "/invocations",
        &[],
        fake(&json!({"hang": true})).as_bytes(),
    );
    let mut connections: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.send(&hanging);
    }
    let in_flight = || [0, 1].map(|index| server.stat(index, "in_flight"));
    wait_until("all requests are in flight", || {
        in_flight().iter().sum::<u64>() == 8
    });
    assert_eq!(
        in_flight(),
        [4, 4],
        "each request goes to the instance with the fewest requests"
    );
}

#[test]
fn one_of_two_instances_serves_while_the_other_is_down() {
    let server = Setup::new()
        .instances(2)
        .var("FAKE_TFS_RECORD_REQUESTS", 0)
        .var("FAKE_TFS_START_DELAY_MS", 700)
        .start();
    for index in 0..2u16 {
        server.wait_for_log(&format!(
            "instance {index}: model half_plus_three is AVAILABLE"
        ));
    }
    under_load(&server, 16, exchange, |progress| {
        progress.wait_for(100);
        for (round, index) in [0, 1].into_iter().enumerate() {
            processes::signal(server.model_server_pid(index), Signal::KILL);
            server.wait_for_log(&format!("instance {index}: down"));
            progress.wait_for(100);
            assert_eq!(server.ping().status, 200, "one instance is enough");
            server.wait_for_start(2 + round);
            wait_until("both serve again", || {
                let line = format!("instance {index}: model half_plus_three is AVAILABLE");
                server.log().matches(&line).count() == 2
            });
        }
    });
}

#[test]
fn requests_get_504_with_the_reason_and_restarts_back_off_while_all_instances_are_down() {
    let server = Setup::new()
        .deadline(2)
        .instances(2)
        .var("FAKE_TFS_START_EXIT", 255)
        .var("FAKE_TFS_START_EXIT_AFTER", 2)
        .start();
    for index in 0..2u16 {
        server.wait_for_log(&format!(
            "instance {index}: model half_plus_three is AVAILABLE"
        ));
    }
    for index in 0..2 {
        processes::signal(server.model_server_pid(index), Signal::KILL);
    }
    server.wait_until_unhealthy();
    let response = server.invoke(INSTANCES);
    assert_eq!(response.status, 504, "{}", response.text());
    for text in [
        "2 s",
        "instance 0: ",
        "instance 1: ",
        "exited with code 255",
    ] {
        assert!(
            response.error().contains(text),
            "{text:?} in {}",
            response.error()
        );
    }
    assert!(
        response.body.len() < 2048,
        "SageMaker shows only 2,048 characters"
    );
    let reason = server.ping();
    assert_eq!(reason.status, 502);
    assert!(
        reason.error().contains("exited with code 255"),
        "{}",
        reason.error()
    );

    // The first two starts, and then several for each instance, but fewer than without pauses.
    wait_until("starts are repeated", || server.starts().len() >= 2 + 2 * 3);
    let starts = server.log().matches(": started ").count();
    assert!(
        starts < 40,
        "{starts} starts: too many for pauses between them"
    );
    assert!(
        server.try_end().is_none(),
        "the server does not end when a model server that once served stays down"
    );
}

/// SageMaker shows clients 2,048 characters.
#[test]
fn error_messages_stay_short_however_much_the_model_server_prints() {
    let setup = Setup::new();
    let script = format!(
        "if [ ! -e \"$FAKE_TFS_RECORD/start-0.json\" ]; then exec '{}' \"$@\"; fi\n\
         for n in 1 2 3 4 5 6 7 8 9 10 11 12; do printf 'line %s %03000d\\n' $n 0; done\nexit 3",
        fake_model_server().display()
    );
    let setup = setup.script("bin/model_server", &script);
    let program = setup.path("bin/model_server");
    let server = setup
        .flag("model-server", program.display())
        .deadline(1)
        .start();
    processes::signal(server.model_server_pid(0), Signal::KILL);
    server.wait_for_log("line 12 000");
    let response = server.invoke(INSTANCES);
    assert_eq!(response.status, 504, "{}", response.text());
    assert!(response.error().contains("exited with code 3"));
    assert!(response.body.len() <= 2048, "{} bytes", response.body.len());
    let ping = server.ping();
    assert_eq!(ping.status, 502);
    assert!(ping.body.len() <= 2048, "{} bytes", ping.body.len());
}

#[test]
fn a_model_server_serves_again_after_several_failed_restarts() {
    // The test holds the port for a while after the model server exits, so restarts fail.
    let server = Setup::new().start();
    let port = server.rest_port(0);
    server.control(0, &json!({"command": {"exit": 0}}));
    let mut connection = server.connect();
    connection.send(&request("POST", "/invocations", &[], INSTANCES));
    let mut taken = None;
    wait_until("the port is free", || {
        taken = std::net::TcpListener::bind(("127.0.0.1", port)).ok();
        taken.is_some() || server.starts().len() > 1
    });
    if taken.is_some() {
        let reason = server.wait_until_unhealthy();
        assert!(reason.contains("instance 0"), "{reason}");
        server.wait_for_log(&format!(
            "port {port} for TensorFlow Serving cannot be used"
        ));
    }
    drop(taken);
    assert_eq!(connection.response().status, 200, "the request waited");
    server.wait_until_healthy();
}

/// For how many seconds no instance has served, according to `/ping`.
fn seconds_without_service(text: &str) -> u64 {
    let start = "TensorFlow Serving has not been available for ";
    let rest = text.strip_prefix(start).unwrap_or_else(|| panic!("{text}"));
    let (seconds, _) = rest.split_once(" s (").unwrap_or_else(|| panic!("{text}"));
    seconds.parse().expect("a number")
}

/// Each failed restart changes the phase, but must not reset the count.
#[test]
fn ping_says_how_long_no_instance_has_served() {
    for instances in [1, 2] {
        let server = Setup::new()
            .instances(instances)
            .var("FAKE_TFS_START_EXIT", 255)
            .var("FAKE_TFS_START_EXIT_AFTER", instances)
            .start();
        for index in 0..instances {
            server.wait_for_log(&format!(
                "instance {index}: model half_plus_three is AVAILABLE"
            ));
        }
        let began = Instant::now();
        for index in 0..instances {
            assert_eq!(server.ping().status, 200, "one instance is enough");
            processes::signal(server.model_server_pid(index), Signal::KILL);
            server.wait_for_log(&format!("instance {index}: down"));
        }
        let mut seen = Vec::new();
        wait_until("ping counts to 2 s", || {
            let response = server.ping();
            assert_eq!(response.status, 502);
            for index in 0..instances {
                let named = format!("instance {index}: ");
                assert!(response.error().contains(&named), "{}", response.error());
            }
            seen.push(seconds_without_service(&response.error()));
            seen.last() == Some(&2)
        });
        assert!(seen.is_sorted(), "{seen:?}");
        assert!(began.elapsed() >= Duration::from_secs(2));
        let failed = server.log().matches("exited with code 255").count();
        assert!(
            failed > usize::from(instances),
            "restarts failed in between"
        );
    }
}
