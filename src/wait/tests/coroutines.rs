//! Behavior that only coroutines have.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read};
use std::rc::Rc;

use rustix::event::epoll::EventFlags;

use super::*;

#[test]
fn coroutines_of_one_worker_notify_each_other() {
    let mut worker = TestWorker::new();
    let counter = Arc::new(Counter::default());
    for side in 0..2 {
        let counter = Arc::clone(&counter);
        worker.spawn(move || {
            for number in (side..100).step_by(2) {
                counter.reach(number);
                counter.set(number + 1);
            }
        });
    }
    worker.results(2);
    assert_eq!(*counter.number.lock(), 100);
}

#[test]
fn dropping_a_worker_leaks_its_waiting_coroutines() {
    struct WaitsWhenDropped(Arc<Counter>);
    impl Drop for WaitsWhenDropped {
        fn drop(&mut self) {
            self.0.set(1);
            let _ = until(soon().unwrap());
        }
    }
    let counter = Arc::new(Counter::default());
    let mut worker = TestWorker::new();
    let waits = WaitsWhenDropped(Arc::clone(&counter));
    worker.spawn(move || {
        let _waits = waits;
        let _ = until(far().unwrap());
    });
    drop(worker);
    assert_eq!(*counter.number.lock(), 0);
}

#[test]
fn a_yielding_coroutine_runs_after_the_others() {
    let mut worker = TestWorker::new();
    let order = Rc::new(RefCell::new(Vec::new()));
    for number in 0..3 {
        let order = Rc::clone(&order);
        worker.spawn(move || {
            for _ in 0..3 {
                order.borrow_mut().push(number);
                yield_now();
            }
        });
    }
    worker.results(3);
    assert_eq!(*order.borrow(), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn endless_yielding_does_not_keep_events_from_others() {
    let mut worker = TestWorker::new();
    let (one, mut other) = pair();
    let is_over = Rc::new(Cell::new(false));
    let shared = Rc::clone(&is_over);
    worker.spawn(move || {
        let limit = Instant::now() + LIMIT;
        while !shared.get() {
            assert!(Instant::now() < limit, "the other coroutine never runs");
            yield_now();
        }
    });
    worker.spawn(move || {
        for_socket(&one, Interest::Read, far()).unwrap();
        let _ = until(soon().unwrap());
        is_over.set(true);
    });
    worker.turn();
    other.write_all(b"x").unwrap();
    worker.results(2);
}

#[test]
fn a_coroutine_that_reads_without_waiting_yields() {
    let mut worker = TestWorker::new();
    let is_over = Rc::new(Cell::new(false));
    let shared = Rc::clone(&is_over);
    worker.spawn(move || {
        // Reading /dev/zero never blocks.
        let zeros = std::fs::File::open("/dev/zero").unwrap();
        let mut stream = Stream::new(&zeros, far());
        let (limit, mut bytes) = (Instant::now() + LIMIT, vec![0; 64 << 10]);
        while !shared.get() {
            assert!(Instant::now() < limit, "the other coroutine never runs");
            stream.read_exact(&mut bytes).unwrap();
        }
    });
    worker.spawn(move || is_over.set(until(Instant::now()).is_ok()));
    worker.results(2);
}

#[test]
fn a_panic_ends_only_its_coroutine() {
    let mut worker = TestWorker::new();
    let counter = Arc::new(Counter::default());
    worker.spawn(|| panic!("at once"));
    for _ in 0..2 {
        let counter = Arc::clone(&counter);
        worker.spawn(move || {
            counter.reach(1);
            panic!("after a wait");
        });
    }
    let shared = Arc::clone(&counter);
    worker.spawn(move || shared.reach(1));
    counter.set(1);
    while worker.done.len() < 4 {
        worker.turn();
    }
    let texts = worker.done.iter().map(|result| match result {
        Ok(()) => "fine",
        Err(panic) => panic.downcast_ref::<&str>().unwrap(),
    });
    let texts = Vec::from_iter(texts);
    assert_eq!(texts, ["at once", "after a wait", "after a wait", "fine"]);
    // Their stacks and slots are reused.
    worker.done.clear();
    worker.spawn(|| assert_eq!(until(soon().unwrap()), Ok(())));
    worker.results(1);
}

#[test]
fn a_late_notification_does_not_wake_the_next_coroutine_in_the_slot() {
    let mut worker = TestWorker::new();
    let line = Arc::new((Mutex::new(()), Condition::new()));
    let shared = Arc::clone(&line);
    let first = worker.spawn(move || {
        let _ = shared.1.wait(shared.0.lock(), far());
        true
    });
    // The coroutine is notified and cancelled: the cancellation ends it before the worker sees the notification.
    line.1.notify_one();
    worker.cancel(first.unwrap());
    assert_eq!(worker.done.len(), 1);
    assert_next_wait_is_full(&mut worker);
}

#[test]
fn a_late_notification_of_a_cancelled_wait_does_not_end_the_next_one() {
    let mut worker = TestWorker::new();
    let given = Rc::new(RefCell::new(None));
    let (shared, is_cancelled) = (Rc::clone(&given), Rc::new(Cell::new(false)));
    let cancelled = Rc::clone(&is_cancelled);
    let first = worker.spawn(move || {
        cancelled.set(until(far().unwrap()).is_err());
        // `Condition::wait` makes its waker in the same way.
        *shared.borrow_mut() = Some(Waker::new());
        let result = wait(WaitFor::Wakeup, far(), Cancelling::Ends).unwrap();
        result == Err(WaitError::Cancelled)
    });
    worker.cancel(first.unwrap());
    assert!(is_cancelled.get());
    given.take().unwrap().wake();
    assert_next_wait_is_full(&mut worker);
}

/// Checks that the previous coroutine returned true, and that the next one waits until its time.
fn assert_next_wait_is_full(worker: &mut TestWorker<bool>) {
    worker.spawn(|| {
        let then = Instant::now() + SHORT;
        until(then).is_ok() && Instant::now() >= then
    });
    assert_eq!(worker.results(2), [true, true]);
}

#[test]
fn a_late_socket_event_does_not_end_another_wait() {
    let mut worker = TestWorker::new();
    let (one, mut other) = pair();
    worker.spawn(move || {
        // This wait times out, but its registration with epoll remains.
        let late = for_socket(&one, Interest::Read, soon()).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        other.write_all(b"x").unwrap();
        let then = Instant::now() + SHORT;
        assert_eq!(until(then), Ok(()));
        assert!(Instant::now() >= then);
        // The new sockets get the same descriptors.
        drop((one, other));
        let (one, mut other) = pair();
        let late = for_socket(&one, Interest::Read, soon()).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        other.write_all(b"y").unwrap();
        for_socket(&one, Interest::Read, far()).unwrap();
    });
    worker.results(1);
}

#[test]
fn sockets_can_be_waited_for_repeatedly_in_both_directions() {
    let mut worker = TestWorker::new();
    for _ in 0..10 {
        let (one, other) = pair();
        for mut end in [one, other] {
            worker.spawn(move || {
                for _ in 0..20 {
                    for_socket(&end, Interest::Write, far()).unwrap();
                    end.write_all(b"x").unwrap();
                    for_socket(&end, Interest::Read, far()).unwrap();
                    end.read_exact(&mut [0]).unwrap();
                }
                // Keeps the socket open: closing it would end the other side's last wait.
                end
            });
        }
    }
    worker.results(20);
}

#[test]
fn thousands_of_coroutines_wait_at_once() {
    const MANY: usize = 3000;
    let mut worker = TestWorker::new();
    let counter = Arc::new(Counter::default());
    for number in 0..MANY {
        let counter = Arc::clone(&counter);
        worker.spawn(move || {
            counter.reach(1);
            // Later coroutines finish first.
            let _ = until(Instant::now() + Duration::from_micros((MANY - number) as u64));
            counter.reach(2);
            number
        });
    }
    assert!(worker.done.is_empty());
    counter.set(1);
    worker.turn();
    counter.set(2);
    let mut numbers = worker.results(MANY);
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..MANY));
}

#[test]
fn stacks_and_slots_are_reused() {
    let mut worker = TestWorker::new();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        worker.spawn(|| {
            let here = Cell::new(0u8);
            let _ = until(Instant::now());
            std::ptr::from_ref(&here).addr()
        });
        seen.extend(worker.results(1));
    }
    assert_eq!(seen.len(), 1);
}

#[test]
fn events_of_the_workers_own_files_are_reported() {
    let mut worker: TestWorker<()> = TestWorker::new();
    let (one, mut other) = pair();
    let remote = Arc::clone(&worker.remote);
    remote.register(&one, 7, EventFlags::IN).unwrap();
    let again = remote.register(&one, 8, EventFlags::IN).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    worker.turn_within(Duration::ZERO);
    assert!(worker.events.is_empty());
    other.write_all(b"x").unwrap();
    worker.turn();
    let event = worker.events.pop().unwrap();
    assert_eq!((event.token, event.flags), (7, EventFlags::IN));
    remote.unregister(&one).unwrap();
    remote.register(&one, 9, EventFlags::OUT).unwrap();
    worker.turn();
    let event = worker.events.pop().unwrap();
    assert_eq!((event.token, event.flags), (9, EventFlags::OUT));
    remote.unregister(&one).unwrap();
    worker.turn_within(Duration::ZERO);
    assert!(worker.events.is_empty());
}

#[test]
fn a_nudge_ends_the_workers_wait() {
    let mut worker: TestWorker<()> = TestWorker::new();
    for _ in 0..100 {
        let remote = Arc::clone(&worker.remote);
        let nudger = thread::spawn(move || remote.nudge());
        let began = Instant::now();
        worker.turn();
        assert!(began.elapsed() < LIMIT);
        nudger.join().unwrap();
        // The worker may notice one nudge by the flag and by the eventfd, so it may wake twice.
        worker.turn_within(Duration::ZERO);
    }
}

#[test]
fn worker_number_is_that_of_the_threads_reactor() {
    assert_eq!(thread::spawn(worker_number).join().unwrap(), 0);
    let number = thread::spawn(|| {
        let remote = Arc::new(Remote::new().unwrap());
        let _reactor: Reactor<()> = Reactor::new(&remote, 5);
        worker_number()
    });
    assert_eq!(number.join().unwrap(), 5);
}
