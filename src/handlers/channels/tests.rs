//! Tests of channels. The tests hold the other ends and act as the worker.

use super::*;
use crate::wait::testing::{CANCELLABLE, start};
use crate::worker_protocol::frame::{self, Response};
use crate::worker_protocol::record::{Account, Runs};
use std::io::Write;
use std::sync::Arc;
use std::thread;

/// The channels to a process, the other ends, and the worker's side of the record.
fn process(channels: usize) -> (WorkerChannels, Vec<UnixStream>, Record) {
    let (ours, theirs) = (0..channels).map(|_| UnixStream::pair().unwrap()).unzip();
    let record = Record::new(channels).unwrap();
    let other_side = Record::from_file(record.file().try_clone().unwrap().into());
    (
        WorkerChannels::new(ours, record).unwrap(),
        theirs,
        other_side,
    )
}

fn call<'a>(number: u64) -> Call<'a> {
    let response = Response {
        status: 200,
        reason: "OK".into(),
        headers: Vec::new(),
    };
    Call::Response { number, response }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(20)
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn answer(to: &UnixStream, number: u64, body: &[u8]) {
    let content_type = "text/plain".into();
    let head = Answer::ForClient {
        number,
        content_type,
        headers: Vec::new(),
    };
    frame::write(to, &head, body).unwrap();
}

/// Sends a call and waits for the answer.
fn call_on(process: &WorkerChannels, channel: usize, deadline: Instant) -> (u64, Outcome) {
    process.call(channel, call, b"", &Buffer::default(), deadline)
}

fn answered(body: &[u8]) -> Outcome {
    Outcome::Answered(Reply::ForClient {
        content_type: "text/plain".into(),
        headers: Vec::new(),
        body: body.to_vec().into(),
    })
}

#[test]
fn late_answer_is_not_taken_for_the_next_one() {
    let (process, theirs, _) = process(1);
    let (first, outcome) = call_on(&process, 0, soon());
    assert_eq!(outcome, Outcome::Abandoned(WaitError::TimedOut));
    // Reads the first call before the next arrives, because `Incoming` refuses two frames at once.
    Incoming::read(&theirs[0]).unwrap().unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(|| process.finish(0));
        // The answer is larger than the socket's buffer, so writing it needs a reader.
        answer(&theirs[0], first, &vec![b'l'; 10 << 20]);
        reader.join().unwrap().unwrap();
    });
    let outcome = thread::scope(|scope| {
        let next = scope.spawn(|| call_on(&process, 0, later()).1);
        Incoming::read(&theirs[0]).unwrap().unwrap();
        answer(&theirs[0], first + 1, b"right");
        next.join().unwrap()
    });
    assert_eq!(outcome, answered(b"right"));
}

/// Finishes the abandoned call on channel 0 while `other_side` acts as the worker. Then checks that the channel can be
/// used for another call.
fn finish(process: &WorkerChannels, theirs: &UnixStream, other_side: impl FnOnce()) {
    thread::scope(|scope| {
        let finish = scope.spawn(|| process.finish(0));
        other_side();
        finish.join().unwrap().unwrap();
    });
    let outcome = thread::scope(|scope| {
        let next = scope.spawn(|| call_on(process, 0, later()).1);
        let incoming = Incoming::read(theirs).unwrap().unwrap();
        answer(theirs, incoming.head::<Call>().unwrap().number(), b"right");
        next.join().unwrap()
    });
    assert_eq!(outcome, answered(b"right"));
}

/// Reads a whole call. Returns its number and body.
fn read_call(theirs: &UnixStream) -> (u64, Vec<u8>) {
    let incoming = Incoming::read(theirs).unwrap().unwrap();
    let mut body = vec![0; incoming.body_length];
    incoming.read_body(theirs, &mut body).unwrap();
    (incoming.head::<Call>().unwrap().number(), body)
}

#[test]
fn cancels_and_finishes_a_large_call_that_expires_half_sent() {
    for size in [300_000, 5 << 20] {
        let (process, theirs, record) = process(1);
        let body = vec![b'c'; size];
        let (number, outcome) = process.call(0, call, &body, &Buffer::default(), soon());
        assert_eq!(outcome, Outcome::Abandoned(WaitError::TimedOut));
        // Cancelled before the worker has the whole body, whose rest will be zeros.
        assert!(record.is_cancelled(0, number).unwrap());
        drop(body);
        assert!(
            process.is_stuck(Duration::ZERO, record::now()),
            "it has not begun"
        );
        finish(&process, &theirs[0], || {
            let (read, body) = read_call(&theirs[0]);
            assert_eq!((read, body.len()), (number, size));
            answer(&theirs[0], number, &vec![b'l'; size]);
        });
        assert!(!record.is_cancelled(0, number + 1).unwrap());
    }
}

#[test]
fn finishing_fails_when_the_process_has_ended() {
    let (process, theirs, _) = process(1);
    let body = vec![0; 1 << 20];
    let (_, outcome) = process.call(0, call, &body, &Buffer::default(), soon());
    assert_eq!(outcome, Outcome::Abandoned(WaitError::TimedOut));
    drop(theirs);
    assert!(process.finish(0).is_err());
}

#[test]
fn client_that_hangs_up_ends_its_call_at_any_point() {
    const LARGE: usize = 5 << 20;
    for place in CANCELLABLE {
        for (body, answer_part) in [(LARGE, 0), (0, 0), (0, 5), (0, 100_000)] {
            let (process, theirs, record) = process(1);
            let process = Arc::new(process);
            let theirs = &theirs[0];
            let caller = Arc::clone(&process);
            let job = start(place, move || {
                let body = vec![b'c'; body];
                caller.call(0, call, &body, &Buffer::default(), later())
            });
            // Waits until the call arrives.
            recv(theirs, &mut [0], RecvFlags::PEEK).unwrap();
            let (content_type, mut late) = ("text/plain".into(), Vec::new());
            let head = Answer::ForClient {
                number: 1,
                content_type,
                headers: Vec::new(),
            };
            frame::write(&mut late, &head, &vec![b'l'; LARGE]).unwrap();
            if answer_part > 0 {
                read_call(theirs);
                (&*theirs).write_all(&late[..answer_part]).unwrap();
            }
            (job.cancel)();
            let (number, outcome) = job.join();
            assert_eq!(outcome, Outcome::Abandoned(WaitError::Cancelled));
            assert!(record.is_cancelled(0, number).unwrap());
            finish(&process, theirs, || {
                if answer_part == 0 {
                    let (read, sent) = read_call(theirs);
                    assert_eq!((read, sent.len()), (number, body));
                }
                (&*theirs).write_all(&late[answer_part..]).unwrap();
            });
        }
    }
}

#[test]
fn channel_survives_an_answer_that_is_incomplete_at_the_deadline() {
    let (process, theirs, _) = process(1);
    let (content_type, mut late) = ("text/plain".into(), Vec::new());
    let head = Answer::ForClient {
        number: 1,
        content_type,
        headers: Vec::new(),
    };
    frame::write(&mut late, &head, &vec![b'l'; 1 << 20]).unwrap();
    let (_, outcome) = thread::scope(|scope| {
        let call = scope.spawn(|| call_on(&process, 0, soon()));
        read_call(&theirs[0]);
        (&theirs[0]).write_all(&late[..50_000]).unwrap();
        call.join().unwrap()
    });
    assert_eq!(outcome, Outcome::Abandoned(WaitError::TimedOut));
    finish(&process, &theirs[0], || {
        (&theirs[0]).write_all(&late[50_000..]).unwrap();
    });
}

#[test]
fn channel_survives_a_call_that_cannot_be_sent() {
    let (process, theirs, _) = process(1);
    let too_long = |number| Call::Response {
        number,
        response: Response {
            status: 200,
            reason: "x".repeat(20 << 20).into(),
            headers: Vec::new(),
        },
    };
    let (_, outcome) = process.call(0, too_long, b"", &Buffer::default(), later());
    assert!(matches!(outcome, Outcome::Broken(_)), "{outcome:?}");
    finish(&process, &theirs[0], || {});
}

#[test]
fn fate_says_which_lost_calls_had_begun() {
    let (process, theirs, record) = process(2);
    let lost = thread::scope(|scope| {
        let calls = [0, 1].map(|channel| {
            let process = &process;
            scope.spawn(move || call_on(process, channel, later()))
        });
        let incoming = Incoming::read(&theirs[1]).unwrap().unwrap();
        let Call::Response { number, .. } = incoming.head().unwrap() else {
            panic!()
        };
        record.begin(1, number).unwrap();
        // Both calls have arrived before the process ends.
        Incoming::read(&theirs[0]).unwrap().unwrap();
        assert!(process.has_overdue_calls(Duration::ZERO, record::now()));
        assert!(!process.has_overdue_calls(Duration::ZERO, record::now()));
        process.close();
        calls.map(|call| call.join().unwrap())
    });
    assert_eq!((&lost[0].1, &lost[1].1), (&Outcome::Lost, &Outcome::Lost));
    assert_eq!(process.fate(0, lost[0].0), Fate::NotBegun);
    assert_eq!(process.fate(1, lost[1].0), Fate::Overdue);
}

#[test]
fn call_counts_as_waiting_or_running_until_its_late_answer_arrives() {
    let (process, theirs, record) = process(1);
    let (number, _) = call_on(&process, 0, soon());
    assert!(
        process.is_stuck(Duration::ZERO, record::now()),
        "it has not begun"
    );
    assert!(!process.is_stuck(Duration::from_secs(60), record::now()));
    assert!(!process.has_overdue_calls(Duration::ZERO, record::now()));
    record.begin(0, number).unwrap();
    assert!(!process.is_stuck(Duration::from_secs(60), record::now()));
    answer(&theirs[0], number, b"late");
    process.finish(0).unwrap();
    assert!(!process.has_overdue_calls(Duration::ZERO, record::now()));
    assert!(!process.is_stuck(Duration::ZERO, record::now()));
}

#[test]
fn first_message_is_loaded_or_a_reason() {
    let (good, theirs, _) = process(2);
    let first_message = Answer::Loaded {
        channels: 9,
        shape: Shape::Pair,
        has_gevent: true,
        converts: true,
    };
    frame::write(&theirs[0], &first_message, b"").unwrap();
    assert_eq!(good.wait_until_loaded(), Ok(()));
    let loaded = Loaded {
        channels: 2,
        shape: Shape::Pair,
        has_gevent: true,
        converts: true,
    };
    assert_eq!(good.loaded.get(), Some(&loaded));

    let (bad, theirs, _) = process(1);
    frame::write(&theirs[0], &Answer::Failed, b"Traceback").unwrap();
    assert_eq!(bad.wait_until_loaded(), Err("Traceback".into()));

    let (gone, theirs, _) = process(1);
    drop(theirs);
    assert_eq!(gone.wait_until_loaded(), Err(String::new()));
}

#[test]
fn closes_the_channel_on_the_answer_to_another_call() {
    let (process, theirs, record) = process(2);
    for (channel, fate) in [(0, Fate::NotBegun), (1, Fate::Running)] {
        let (number, outcome) = thread::scope(|scope| {
            let call = scope.spawn(|| call_on(&process, channel, later()));
            let incoming = Incoming::read(&theirs[channel]).unwrap().unwrap();
            let number = incoming.head::<Call>().unwrap().number();
            if fate == Fate::Running {
                record.begin(channel, number).unwrap();
            }
            answer(&theirs[channel], number + 7, b"another's");
            call.join().unwrap()
        });
        assert!(matches!(outcome, Outcome::Garbled(_)), "{outcome:?}");
        assert_eq!(process.fate(channel, number), fate);
        assert!(Incoming::read(&theirs[channel]).unwrap().is_none());
    }
    assert!(process.has_garbled() && !process.has_answered());
}

#[test]
fn greenlets_that_take_turns_are_neither_overdue_nor_stuck() {
    const LIMIT: Duration = Duration::from_secs(30);
    let (process, theirs, record) = process(3);
    let mut account = Account::new(Arc::new(record), 3);
    for (channel, other_end) in theirs.iter().enumerate().take(2) {
        let (number, _) = call_on(&process, channel, soon());
        Incoming::read(other_end).unwrap().unwrap();
        account.begin(channel, number).unwrap();
    }
    let start = record::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let is_hung = |seconds| {
        let now = at(seconds);
        process.is_stuck(LIMIT, now) || process.has_overdue_calls(LIMIT, now)
    };
    account.switched(Runs::Call(0), start).unwrap();
    assert!(!is_hung(25));
    account.switched(Runs::Call(1), at(25)).unwrap();
    assert!(!is_hung(50));
    // A third call is sent and has to wait for the others.
    call_on(&process, 2, soon());
    account.switched(Runs::Hub, at(50)).unwrap();
    assert!(!is_hung(50));
    assert!(
        process.is_stuck(LIMIT, at(81)),
        "the third could have begun"
    );
    assert!(
        process.has_overdue_calls(LIMIT, at(81)),
        "the others have waited for too long"
    );
}

#[test]
fn only_the_greenlet_that_keeps_the_thread_is_overdue() {
    let (process, theirs, record) = process(2);
    let mut account = Account::new(Arc::new(record), 2);
    let mut numbers = [0; 2];
    for channel in [0, 1] {
        (numbers[channel], _) = call_on(&process, channel, soon());
        Incoming::read(&theirs[channel]).unwrap().unwrap();
        account.begin(channel, numbers[channel]).unwrap();
    }
    let start = record::now();
    account.switched(Runs::Call(1), start).unwrap();
    let limit = Duration::from_secs(30);
    assert!(!process.has_overdue_calls(limit, start + limit / 2));
    assert!(process.has_overdue_calls(limit, start + limit * 2));
    assert_eq!(process.fate(0, numbers[0]), Fate::Running);
    assert_eq!(process.fate(1, numbers[1]), Fate::Overdue);
}

#[test]
fn worker_is_stuck_when_a_greenlet_of_the_script_keeps_the_thread() {
    let (process, _theirs, record) = process(1);
    let mut account = Account::new(Arc::new(record), 1);
    call_on(&process, 0, soon());
    let start = record::now();
    account.switched(Runs::Other, start).unwrap();
    let limit = Duration::from_secs(30);
    assert!(!process.is_stuck(limit, start + limit / 2));
    assert!(process.is_stuck(limit, start + limit * 2));
}
