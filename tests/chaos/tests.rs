//! Tests of the judgement: what must fail a run, and what must not.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::attacks::{Attack, AttackMaker, TOO_DEEP, TOO_LARGE_HEAD};
use crate::expected::{Content, Request, Verdict, judge};
use crate::hostile;
use crate::report::{Outcome, is_flat, most_more_memory, most_more_memory_under_load};
use crate::requests::Maker;
use crate::support::Response;
use crate::tally::{DESCRIBED_FAILURES, Exchange, Tally};
use crate::target::{Footprint, INSTANCES, Kind};
use crate::wire::tests::saying;

const MARK: &str = "m0007-0000001-0123abcd";
const OTHER: &str = "m0003-0000014-0123abcd";
const STATUSES: [u16; 12] = [200, 204, 400, 404, 405, 415, 431, 500, 501, 502, 503, 504];
const REFUSED: [u16; 7] = [400, 404, 405, 415, 431, 501, 503];
const ERRORS: [u16; 10] = [400, 404, 405, 415, 431, 500, 501, 502, 503, 504];

fn response(status: u16, body: impl AsRef<[u8]>) -> Response {
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
    let breaks: [(&str, Break); 14] = [
        ("lost", |o| o.tally.lost = 1),
        ("wrong", |o| o.tally.wrong = 1),
        ("no request", |o| o.tally.right = 0),
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

/// Attacks of one kind.
fn attacks(kind: &str, on: Kind, count: usize) -> Vec<Attack> {
    let mut maker = AttackMaker::new(Rng::with_seed(3), 1000, on);
    let all = std::iter::repeat_with(|| maker.attack());
    all.filter(|attack| attack.kind == kind)
        .take(count)
        .collect()
}

fn sent(attack: &Attack) -> Vec<u8> {
    attack
        .pieces
        .iter()
        .flat_map(|(bytes, _)| bytes.clone())
        .collect()
}

fn head_and_body(attack: &Attack) -> (String, String) {
    let text = String::from_utf8(sent(attack)).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

#[track_caller]
fn assert_judged(attack: &Attack, fine: &[u16]) {
    for status in STATUSES {
        let is_fine = attack
            .complaint(&response(status, r#"{"error": "x"}"#))
            .is_none();
        assert_eq!(is_fine, fine.contains(&status), "{} {status}", attack.kind);
    }
}

#[test]
fn what_must_be_refused_gets_4xx_501_or_503() {
    for kind in [
        "smuggled request",
        "deep JSON",
        "large head",
        "POST /models",
    ] {
        attacks(kind, Kind::Plain, 20)
            .iter()
            .for_each(|attack| assert_judged(attack, &REFUSED));
    }
    // A script may fail at what reaches it.
    let deep = attacks("deep JSON", Kind::Handlers, 20);
    let mut at_script = deep
        .iter()
        .filter(|attack| sent(attack).starts_with(b"POST /invocations"));
    assert_judged(at_script.next().expect("one of 20"), &ERRORS);
}

#[test]
fn what_is_costly_gets_its_own_answer_or_an_error() {
    for on in [Kind::Plain, Kind::Handlers] {
        for kind in [
            "CSV of control characters",
            "small chunks",
            "broken chunks",
            "JSON of empty names",
        ] {
            assert_judged(&attacks(kind, on, 1)[0], &ERRORS);
        }
    }
    let attack = &attacks("JSON of empty names", Kind::Plain, 1)[0];
    let (_, body) = head_and_body(attack);
    let answer = |body: &str| response(200, format!(r#"{{"instances": [{body}]}}"#));
    assert_eq!(attack.complaint(&answer(&body)), None);
    assert!(attack.complaint(&answer(&body[..body.len() - 7])).is_some());
}

#[test]
fn anothers_mark_is_wrong_with_any_status_and_so_is_an_answer_nested_deep() {
    for attack in attacks("smuggled request", Kind::Plain, 20) {
        assert_eq!(attack.complaint(&response(400, &attack.mark)), None);
        let complaint = attack.complaint(&response(400, OTHER));
        assert!(complaint.is_some_and(|text| text.contains(OTHER)));
    }
    let (opening, closing) = ("[".repeat(100_000), "]".repeat(100_000));
    let deep = response(200, format!(r#"{{"instances": {opening}{closing}}}"#));
    for kind in ["deep JSON", "CSV of control characters"] {
        assert!(attacks(kind, Kind::Plain, 1)[0].complaint(&deep).is_some());
    }
}

#[test]
fn a_smuggled_request_is_a_whole_prediction() {
    let mut methods = BTreeSet::new();
    for attack in attacks("smuggled request", Kind::Plain, 200) {
        let (head, body) = head_and_body(&attack);
        let (method, rest) = head.split_once(" /tfs/").expect("a path below /tfs/");
        methods.insert(method.to_owned());
        assert!(
            body.contains("POST /v1/models/chaos:predict HTTP/1.1\r\n"),
            "{body}"
        );
        let (_, inner) = body.rsplit_once("\r\n\r\n{").expect("a body in the body");
        assert!(inner.contains(&attack.mark), "{inner}");
        match rest.split_once("\r\nContent-Length: ") {
            Some((_, length)) => assert_eq!(length, body.len().to_string()),
            None => assert!(body.ends_with("\r\n0\r\n\r\n"), "{body}"),
        }
    }
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "CONNECT", "get"] {
        assert!(methods.contains(method), "{methods:?}");
    }
}

#[test]
fn what_is_too_deep_or_too_large_is() {
    for attack in attacks("deep JSON", Kind::Plain, 20) {
        let opened = sent(&attack)
            .into_iter()
            .filter(|byte| b"[{".contains(byte));
        // The object around it is a level as well.
        assert!(opened.count() > TOO_DEEP);
    }
    for attack in attacks("large head", Kind::Plain, 20) {
        assert!(sent(&attack).len() >= TOO_LARGE_HEAD);
    }
}

#[test]
fn to_close_is_fine_and_to_stay_silent_or_to_say_more_is_not() {
    let refused = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let more = format!("{refused}HTTP/1.1 200 OK\r\n");
    for (said, ends, expected, complaint) in [
        ("", true, "closed", None),
        ("", false, "silence", Some("timed out")),
        (refused, true, "400", None),
        (&more, true, "no answer", Some("more than the answer")),
    ] {
        let (port, server) = saying(said.as_bytes(), ends);
        let attack = &attacks("smuggled request", Kind::Plain, 1)[0];
        let limit = if ends {
            Duration::from_secs(30)
        } else {
            Duration::from_millis(200)
        };
        let (outcome, found) = hostile::outcome(attack, port, limit);
        server.join().expect("the server ends");
        assert_eq!(outcome, expected);
        match complaint {
            None => assert_eq!(found, None),
            Some(text) => assert!(found.is_some_and(|found| found.contains(text)), "{text}"),
        }
    }
}

#[test]
fn a_seed_makes_the_same_requests_again_and_no_two_are_alike() {
    for kind in [Kind::Handlers, Kind::Plain, Kind::MultiModel] {
        let [first, again] = [5, 5].map(|seed| {
            let mut maker = Maker::new(Rng::with_seed(seed), 1, kind);
            let requests = std::iter::repeat_with(|| maker.request()).take(300);
            requests
                .map(|r| (r.mark.clone(), [r.head(), r.body].concat()))
                .collect::<Vec<_>>()
        });
        assert!(first == again);
        let marks: BTreeSet<_> = first.iter().map(|(mark, _)| mark).collect();
        assert_eq!(marks.len(), first.len());
        if kind != Kind::MultiModel {
            let holds = |(mark, sent): &(String, Vec<u8>)| {
                memchr::memmem::find(sent, mark.as_bytes()).is_some()
            };
            assert!(first.iter().all(holds));
        }
        let [first, again] = [5, 5].map(|seed| {
            let mut maker = AttackMaker::new(Rng::with_seed(seed), 1000, kind);
            (0..50).map(|_| sent(&maker.attack())).collect::<Vec<_>>()
        });
        assert!(first == again);
    }
}
