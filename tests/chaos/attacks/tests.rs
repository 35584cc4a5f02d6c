//! What attacks are, and which answers to them fail a run.

use std::collections::BTreeSet;

use super::*;
use crate::hostile;
use crate::tests::{OTHER, response};
use crate::wire::tests::saying;

const STATUSES: [u16; 12] = [200, 204, 400, 404, 405, 415, 431, 500, 501, 502, 503, 504];
const REFUSED: [u16; 7] = [400, 404, 405, 415, 431, 501, 503];
const ERRORS: [u16; 10] = [400, 404, 405, 415, 431, 500, 501, 502, 503, 504];

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
