//! Waits that end because their job is cancelled.

use std::io::{ErrorKind, Read};

use super::*;

/// Runs a job in each place where it can be cancelled, cancels it once it calls its argument, and checks the result.
fn cancel_during<T: Send + 'static>(job: fn(&dyn Fn()) -> T, check: fn(T)) {
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
    cancel_during(
        |ready| {
            let (one, _other) = pair();
            ready();
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
    cancel_during(
        |ready| {
            let (mutex, condition) = (Mutex::new(()), Condition::new());
            ready();
            condition.wait(mutex.lock(), None).1
        },
        |result| assert_eq!(result, Err(WaitError::Cancelled)),
    );
}

#[test]
fn a_wait_for_a_time_is_cancelled() {
    cancel_during(
        |ready| {
            ready();
            until(far().unwrap())
        },
        |result| assert_eq!(result, Err(WaitError::Cancelled)),
    );
}

#[test]
fn every_later_wait_is_cancelled_too() {
    cancel_during(
        |ready| {
            let (mut one, mut other) = pair();
            ready();
            while until(Instant::now() + SHORT).is_ok() {}
            // A wait ends even if its event has happened. A read that needs no wait still succeeds.
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
fn wait_always_ignores_a_cancellation_that_ends_the_next_wait() {
    for place in CANCELLABLE {
        let counter = Arc::new(Counter::default());
        let shared = Arc::clone(&counter);
        let (announce, announced) = bounded(1);
        let (_one, other) = pair();
        let job = start(place, move || {
            announce.send(()).unwrap();
            let mut guard = shared.number.lock();
            while *guard == 0 {
                let result;
                (guard, result) = shared.changed.wait_always(guard, far());
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
fn wait_always_still_ends_at_its_deadline() {
    cancel_during(
        |ready| {
            let (mutex, condition) = (Mutex::new(()), Condition::new());
            ready();
            condition.wait_always(mutex.lock(), soon()).1
        },
        |result| assert_eq!(result, Err(WaitError::TimedOut)),
    );
}

#[test]
fn a_job_cancelled_before_its_first_wait_does_not_wait() {
    let parker = CancellableParker::new().unwrap();
    let (one, _other) = pair();
    parker.run(
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
fn a_cancellation_does_not_reach_the_next_job_on_the_thread() {
    let parker = CancellableParker::new().unwrap();
    let (one, _other) = pair();
    let mut cancellers = Vec::new();
    // The first job is cancelled while it runs, the second is cancelled and panics, the third is cancelled after its
    // end.
    parker.run(|canceller| canceller.cancel(), || ());
    let panicked = caught(|| parker.run(|canceller| canceller.cancel(), || panic!("on purpose")));
    assert!(panicked.is_err());
    parker.run(|canceller| cancellers.push(canceller), || ());
    cancellers[0].cancel();
    parker.run(
        |_| cancellers[0].cancel(),
        || {
            assert_eq!(until(soon().unwrap()), Ok(()));
            let error = for_socket(&one, Interest::Read, soon()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        },
    );
}

#[test]
fn cancelling_a_finished_coroutine_does_not_reach_its_successor() {
    let mut worker = TestWorker::new();
    let first = worker.spawn(|| until(Instant::now())).unwrap();
    assert_eq!(worker.results(1), [Ok(())]);
    worker.cancel(first);
    let second = worker.spawn(|| until(soon().unwrap())).unwrap();
    assert_ne!(first, second);
    worker.cancel(first);
    assert_eq!(worker.results(1), [Ok(())]);
    // An id of another worker's coroutine is ignored.
    let mut other: TestWorker<Result<(), WaitError>> = TestWorker::new();
    other.cancel(second);
}

#[test]
fn a_notification_before_a_cancellation_wins() {
    let mut worker = TestWorker::new();
    let line = Arc::new((Mutex::new(()), Condition::new()));
    let shared = Arc::clone(&line);
    let task = worker
        .spawn(move || shared.1.wait(shared.0.lock(), far()).1)
        .unwrap();
    line.1.notify_one();
    worker.cancel(task);
    assert_eq!(worker.results(1), [Ok(())]);
}

#[test]
fn other_errors_are_not_cancellations() {
    assert!(!is_cancelled(&ErrorKind::Other.into()));
    assert!(!is_cancelled(&std::io::Error::other("cancelled")));
    assert!(!is_cancelled(&std::io::Error::from_raw_os_error(32)));
}
