//! Ends of waits because nobody needs the result any more.

use std::io::{ErrorKind, Read};

use super::*;

/// Starts a job for each kind of place that can be cancelled. It gets what it is to call when it may be cancelled.
fn cancelled_in_between<T: Send + 'static>(job: fn(&dyn Fn()) -> T, check: fn(T)) {
    for place in CANCELLABLE {
        let (announce, announced) = bounded(1);
        let job = start(place, move || job(&|| announce.send(()).unwrap()));
        announced.recv_timeout(LIMIT).unwrap();
        (job.cancel)();
        check(job.join());
    }
}

#[test]
fn a_wait_for_a_socket_is_cancelled() {
    cancelled_in_between(
        |begins| {
            let (one, _other) = pair();
            begins();
            for_socket(&one, Interest::Read, far())
        },
        |result| {
            let error = result.unwrap_err();
            assert!(is_cancelled(&error));
            assert_eq!(error.kind(), ErrorKind::Other);
        },
    );
}

#[test]
fn a_wait_for_a_condition_is_cancelled() {
    cancelled_in_between(
        |begins| {
            let (mutex, condition) = (Mutex::new(()), Condition::new());
            begins();
            condition.wait(mutex.lock(), None).1
        },
        |result| assert_eq!(result, Err(WaitError::Cancelled)),
    );
}

#[test]
fn a_wait_for_a_time_is_cancelled() {
    cancelled_in_between(
        |begins| {
            begins();
            until(far().unwrap())
        },
        |result| assert_eq!(result, Err(WaitError::Cancelled)),
    );
}

#[test]
fn all_waits_end_from_then_on() {
    cancelled_in_between(
        |begins| {
            let (mut one, mut other) = pair();
            begins();
            while until(Instant::now() + SHORT).is_ok() {}
            // Also those for what has happened already. Whoever tries without waiting gets it.
            other.write_all(b"x").unwrap();
            assert!(is_cancelled(
                &for_socket(&one, Interest::Read, far()).unwrap_err()
            ));
            assert_eq!(one.read(&mut [0; 8]).unwrap(), 1);
            let (mutex, condition) = (Mutex::new(()), Condition::new());
            let (_guard, result) = condition.wait(mutex.lock(), far());
            result
        },
        |result| assert_eq!(result, Err(WaitError::Cancelled)),
    );
}

#[test]
fn a_wait_in_spite_of_it_goes_on_and_the_next_one_ends() {
    for place in CANCELLABLE {
        let counter = Arc::new(Counter::default());
        let theirs = Arc::clone(&counter);
        let (announce, announced) = bounded(1);
        let (_one, other) = pair();
        let job = start(place, move || {
            announce.send(()).unwrap();
            let mut guard = theirs.number.lock();
            while *guard == 0 {
                let result;
                (guard, result) = theirs.changed.wait_always(guard, far());
                assert_eq!(result, Ok(()));
            }
            drop(guard);
            (
                until(far().unwrap()),
                Stream::new(&other, far()).read(&mut [0; 8]),
            )
        });
        announced.recv_timeout(LIMIT).unwrap();
        (job.cancel)();
        counter.set(1);
        let (waited, read) = job.join();
        assert_eq!(waited, Err(WaitError::Cancelled), "{place:?}");
        assert!(is_cancelled(&read.unwrap_err()), "{place:?}");
    }
}

#[test]
fn a_wait_in_spite_of_it_still_has_a_deadline() {
    cancelled_in_between(
        |begins| {
            let (mutex, condition) = (Mutex::new(()), Condition::new());
            begins();
            condition.wait_always(mutex.lock(), soon()).1
        },
        |result| assert_eq!(result, Err(WaitError::TimedOut)),
    );
}

#[test]
fn a_job_that_was_cancelled_before_its_first_wait_does_not_wait() {
    let place = CancellablePlace::new().unwrap();
    let (one, _other) = pair();
    place.run(
        |canceller| {
            canceller.cancel();
            canceller.cancel();
        },
        || {
            assert_eq!(until(far().unwrap()), Err(WaitError::Cancelled));
            assert!(is_cancelled(
                &for_socket(&one, Interest::Read, None).unwrap_err()
            ));
        },
    );
}

#[test]
fn the_next_job_on_a_thread_is_not_cancelled_with_the_last_one() {
    let place = CancellablePlace::new().unwrap();
    let (one, _other) = pair();
    let mut cancellers = Vec::new();
    // The first is cancelled while it runs, the second one panics then, the third one is cancelled when it has ended.
    place.run(|canceller| canceller.cancel(), || ());
    let panicked = caught(|| place.run(|canceller| canceller.cancel(), || panic!("on purpose")));
    assert!(panicked.is_err());
    place.run(|canceller| cancellers.push(canceller), || ());
    cancellers[0].cancel();
    place.run(
        |_| cancellers[0].cancel(),
        || {
            assert_eq!(until(soon().unwrap()), Ok(()));
            let error = for_socket(&one, Interest::Read, soon()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        },
    );
}

#[test]
fn a_coroutine_that_has_ended_cannot_be_cancelled_nor_the_one_in_its_place() {
    let mut worker = TestWorker::new();
    let first = worker.spawn(|| until(Instant::now())).unwrap();
    assert_eq!(worker.results(1), [Ok(())]);
    worker.cancel(first);
    let second = worker.spawn(|| until(soon().unwrap())).unwrap();
    assert_ne!(first, second);
    worker.cancel(first);
    assert_eq!(worker.results(1), [Ok(())]);
    // What was never given out is no coroutine of this worker.
    let mut other: TestWorker<Result<(), WaitError>> = TestWorker::new();
    other.cancel(second);
}

#[test]
fn a_notification_before_the_cancellation_counts() {
    let mut worker = TestWorker::new();
    let line = Arc::new((Mutex::new(()), Condition::new()));
    let theirs = Arc::clone(&line);
    let task = worker
        .spawn(move || theirs.1.wait(theirs.0.lock(), far()).1)
        .unwrap();
    line.1.notify_one();
    worker.cancel(task);
    assert_eq!(worker.results(1), [Ok(())]);
}

#[test]
fn what_other_errors_say_is_no_cancellation() {
    assert!(!is_cancelled(&ErrorKind::Other.into()));
    assert!(!is_cancelled(&std::io::Error::other("cancelled")));
    assert!(!is_cancelled(&std::io::Error::from_raw_os_error(32)));
}
