//! Long computations, on the computing threads.

use super::*;

/// Starts the computing threads of this test process.
fn start_threads() {
    start_computing(2).unwrap();
}

fn thread_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

#[test]
fn coroutines_compute_on_computing_threads_and_threads_compute_themselves() {
    start_threads();
    assert!(
        start(Place::Coroutine, || compute(thread_name))
            .join()
            .starts_with("compute-")
    );
    for place in [Place::Thread, Place::CancellableThread] {
        let job = start(place, || {
            let id = thread::current().id();
            compute(move || thread::current().id() == id)
        });
        assert!(job.join());
    }
}

#[test]
fn a_panic_of_the_work_reaches_its_caller() {
    start_threads();
    everywhere(|| {
        let panic = caught(|| compute(|| -> usize { panic!("on purpose") })).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
        assert_eq!(compute(|| 7), 7);
    });
}

#[test]
fn the_worker_runs_other_coroutines_during_a_computation() {
    start_threads();
    let mut worker = TestWorker::new();
    let (release, released) = bounded(0);
    worker.spawn(move || compute(move || released.recv_timeout(LIMIT).is_ok()));
    // This coroutine can release the first one only if the worker itself does not compute.
    worker.spawn(move || {
        until(soon().unwrap()).unwrap();
        compute(move || release.send_timeout((), LIMIT).is_ok())
    });
    assert_eq!(worker.results(2), [true, true]);
}

#[test]
fn many_computations_return_their_own_results() {
    start_threads();
    let mut worker = TestWorker::new();
    for number in 0..200 {
        worker.spawn(move || {
            let result = compute(move || (0..number).sum::<u64>());
            assert_eq!(result, number * number.saturating_sub(1) / 2);
        });
    }
    worker.results(200);
}

#[test]
fn a_cancelled_job_still_waits_for_its_computation() {
    start_threads();
    let (begin, begun) = bounded(1);
    let (release, released) = bounded::<()>(0);
    let job = start(Place::Coroutine, move || {
        let result = compute(move || {
            begin.send(()).unwrap();
            released.recv_timeout(LIMIT).is_ok()
        });
        (result, until(far().unwrap()))
    });
    begun.recv_timeout(LIMIT).unwrap();
    (job.cancel)();
    release.send_timeout((), LIMIT).unwrap();
    assert_eq!(job.join(), (true, Err(WaitError::Cancelled)));
}

#[test]
fn only_large_work_runs_on_computing_threads() {
    start_threads();
    let names = || {
        (
            compute_large(1000, thread_name),
            compute_large(1 << 20, thread_name),
        )
    };
    let (small, large) = start(Place::Coroutine, names).join();
    assert!(!small.starts_with("compute-"), "{small}");
    assert!(large.starts_with("compute-"), "{large}");
}
