//! Tests of the judgment: what must fail a run, and what must not.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::expected::{Content, Request, Verdict, judge};
use crate::report::{Outcome, is_flat, most_more_memory, most_more_memory_under_load};
use crate::support::Response;
use crate::tally::{DESCRIBED_FAILURES, Exchange, Tally};
use crate::target::{Footprint, INSTANCES, Kind};

const MARK: &str = "m0007-0000001-0123abcd";
pub const OTHER: &str = "m0003-0000014-0123abcd";

pub fn response(status: u16, body: impl AsRef<[u8]>) -> Response {
    Response {
        status,
        headers: vec![("content-type".into(), "application/json".into())],
        body: body.as_ref().to_vec(),
    }
}

fn asked() -> Request {
    let content = Content::Json(json!({"instances": [MARK, 1]}));
    Request::new(MARK, "JSON lines", Vec::new(), "application/json", content)
}

fn echo(rows: Value) -> Response {
    response(200, json!({"instances": rows}).to_string())
}

fn exchange(request: &Request, begun: Instant) -> Exchange<'_> {
    Exchange {
        client: 7,
        request,
        manner: "plainly",
        begun,
    }
}

/// Judges and counts the answer to a request that began at `begun`.
fn answer_to(tally: &mut Tally, request: &Request, answer: &Response, begun: Instant) {
    let verdict = judge(request, answer);
    tally.answer(&exchange(request, begun), answer, verdict, Instant::now());
}

/// Counts of these answers: right, wrong, mixed up, lost.
fn counts(answers: &[Response]) -> (usize, usize, usize, usize) {
    let mut tally = Tally::default();
    for answer in answers {
        answer_to(&mut tally, &asked(), answer, Instant::now());
    }
    (tally.right, tally.wrong, tally.mixed_up, tally.lost)
}

#[test]
fn right_and_wrong_answers() {
    assert_eq!(
        counts(&[echo(json!([MARK, 1])), echo(json!([MARK, 1.0]))]),
        (2, 0, 0, 0)
    );
    let wrong = [
        echo(json!([MARK, 1, 1])),
        echo(json!([MARK, 2])),
        response(200, "no JSON"),
    ];
    assert_eq!(counts(&wrong), (0, 3, 0, 0));
    assert_eq!(counts(&[echo(json!([OTHER]))]), (0, 1, 1, 0), "mixed up");
    // An image with the other's mark.
    let image = "bTAwMDMtMDAwMDAxNC0wMTIzYWJjZA==";
    assert_eq!(
        counts(&[echo(json!([{"b64": image}]))]),
        (0, 1, 1, 0),
        "mixed up"
    );
    let others = [400, 500, 502, 503, 504].map(|status| response(status, r#"{"error": "x"}"#));
    assert_eq!(counts(&others), (0, 0, 0, 5), "lost");
}

#[test]
fn a_right_answer_that_comes_too_late_is_lost() {
    for (seconds, expected) in [(70, (1, 0)), (80, (0, 1))] {
        let (mut tally, request, begun) = (Tally::default(), asked(), Instant::now());
        let now = begun + Duration::from_secs(seconds);
        let answer = echo(json!([MARK, 1]));
        tally.answer(&exchange(&request, begun), &answer, Verdict::Right, now);
        assert_eq!((tally.right, tally.lost), expected);
    }
}

#[test]
fn the_header_of_an_answer_counts() {
    let mut request = asked();
    request.answer_header = Some(("content-type", "application/jsonlines"));
    let answer = echo(json!([MARK, 1]));
    assert_eq!(
        judge(&request, &answer),
        Verdict::WrongContent(BTreeSet::new())
    );
}

#[test]
fn no_answer_is_a_lost_request() {
    let (mut tally, request) = (Tally::default(), asked());
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    tally.begin(7, now);
    assert_eq!(tally.oldest_under_way(later), now);
    tally.no_answer(&exchange(&request, now), "closed", later);
    assert_eq!(tally.oldest_under_way(later), later);
    assert_eq!((tally.requests, tally.lost), (1, 1));
}

#[test]
fn a_killed_worker_excuses_one_answer_of_its_time() {
    let ended =
        r#"{"error": "The Python worker was restarted while it ran input_handler: signal 9"}"#;
    let (ended, request, mut tally) = (response(500, ended), asked(), Tally::default());
    let now = Instant::now();
    let begun = now + Duration::from_nanos(1);
    tally.excuse_one_call(now);
    answer_to(&mut tally, &request, &ended, begun);
    assert_eq!(
        (tally.ended_with_worker, tally.lost),
        (0, 1),
        "it was killed before"
    );
    tally.excuse_one_call(begun);
    for _ in 0..2 {
        answer_to(&mut tally, &request, &ended, begun);
    }
    assert_eq!(
        (tally.ended_with_worker, tally.lost),
        (1, 2),
        "one call ends with it"
    );
    tally.excuse_one_call(begun);
    tally.withdraw_excuse(begun);
    answer_to(&mut tally, &request, &ended, begun);
    assert_eq!(
        (tally.ended_with_worker, tally.lost),
        (1, 3),
        "it was gone already"
    );
}

#[test]
fn a_documented_error_is_neither_lost_nor_another_models_answer() {
    let mut request = asked();
    request.documented = &[404, 500];
    let not_loaded = r#"{"error": "not loaded"}"#;
    assert_eq!(
        judge(&request, &response(404, not_loaded)),
        Verdict::Documented
    );
    assert_eq!(
        judge(&request, &response(502, not_loaded)),
        Verdict::WrongStatus
    );
    for wrong in [
        response(404, "no JSON"),
        response(500, format!(r#"{{"error": "{OTHER}"}}"#)),
    ] {
        assert!(
            matches!(judge(&request, &wrong), Verdict::WrongContent(_)),
            "{wrong:?}"
        );
    }
}

#[test]
fn a_ping_without_service_is_timed_and_judged() {
    let mut tally = Tally::default();
    let now = Instant::now();
    let later = |seconds| now + Duration::from_secs(seconds);
    tally.ping(Some(200), None, now);
    tally.ping(Some(502), None, later(1));
    tally.ping(Some(200), None, later(2));
    tally.ping(Some(200), None, later(9));
    assert_eq!(tally.ping_outage, Duration::from_secs(2));
    assert_eq!((tally.wrong, tally.lost), (0, 0));
    tally.ping(Some(502), Some("it must be ready".into()), later(10));
    tally.ping(None, Some("closed".into()), later(11));
    assert_eq!((tally.wrong, tally.lost), (1, 1));
}

#[test]
fn complaints_of_hostile_clients_are_counted_and_do_not_hide_those_of_others() {
    let mut tally = Tally::default();
    for _ in 0..DESCRIBED_FAILURES {
        tally.attack("deep JSON", "200", Some("200".into()));
    }
    tally.attack("deep JSON", "400", None);
    tally.ping(None, Some("something else".into()), Instant::now());
    assert_eq!(
        (tally.let_through, tally.attacks["deep JSON"]),
        (DESCRIBED_FAILURES, 21)
    );
    assert!(
        tally
            .failures
            .last()
            .is_some_and(|text| text.contains("something else"))
    );
}

const BEFORE: Footprint = Footprint {
    memory: 100_000_000,
    descriptors: 50,
    threads: 90,
    peak: 0,
};

#[test]
fn growth_beyond_the_limits_is_not_flat() {
    let with = |memory, descriptors, threads| Footprint {
        memory: BEFORE.memory + memory,
        descriptors,
        threads,
        peak: 0,
    };
    assert!(is_flat(&BEFORE, &BEFORE));
    assert!(is_flat(&BEFORE, &with(most_more_memory(), 50, 90)));
    assert!(!is_flat(&BEFORE, &with(most_more_memory() + 1, 50, 90)));
    assert!(!is_flat(&BEFORE, &with(0, 150, 90)));
    assert!(!is_flat(&BEFORE, &with(0, 50, 190)));
}

/// A run in which all was well.
fn outcome() -> Outcome {
    let mut tally = Tally::default();
    tally.right = 1;
    for counts in [&mut tally.faults, &mut tally.attacks, &mut tally.pings] {
        counts.insert("some".into(), 1);
    }
    let after = Footprint {
        peak: BEFORE.memory + most_more_memory_under_load(),
        ..BEFORE
    };
    Outcome {
        kind: Kind::Plain,
        tally,
        before: BEFORE,
        after: Some(after),
        is_complete: true,
        starts: (INSTANCES + 3, 0),
        killed: (3, 0),
        workers_wanted: 0,
        run_twice: Vec::new(),
        exit_code: Some(0),
        left: Vec::new(),
    }
}

#[test]
fn whatever_is_not_as_it_must_be_is_a_problem() {
    assert_eq!(outcome().problems(), [""; 0]);
    type Break = fn(&mut Outcome);
    let breaks: [(&str, Break); 17] = [
        ("lost", |o| o.tally.lost = 1),
        ("wrong", |o| o.tally.wrong = 1),
        ("no request", |o| o.tally.right = 0),
        ("nothing was broken", |o| o.tally.faults.clear()),
        ("nobody attacked", |o| o.tally.attacks.clear()),
        ("/ping was not asked", |o| o.tally.pings.clear()),
        ("let_through", |o| o.tally.let_through = 1),
        ("output_handler ran twice", |o| {
            o.run_twice = vec![MARK.into()]
        }),
        ("not everything came back", |o| o.is_complete = false),
        ("started (6, 0)", |o| o.starts.0 += 1),
        ("started (5, 1)", |o| o.starts.1 += 1),
        ("exit code Some(1)", |o| o.exit_code = Some(1)),
        ("exit code None", |o| o.exit_code = None),
        ("processes left", |o| {
            o.left = crate::support::processes::look(1).into_iter().collect()
        }),
        ("not measured", |o| o.after = None),
        ("not flat", |o| o.before.threads -= 17),
        ("under load", |o| o.before.memory -= 1),
    ];
    for (what, change) in breaks {
        let mut outcome = outcome();
        change(&mut outcome);
        let problems = outcome.problems();
        assert_eq!(problems.len(), 1, "{what}: {problems:?}");
        let what = what.replace("let_through", "attacks came to");
        assert!(problems[0].contains(&what), "{what}: {problems:?}");
    }
}
