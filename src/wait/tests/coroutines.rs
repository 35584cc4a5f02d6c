//! What only coroutines can do.

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
fn coroutines_that_wait_are_leaked_at_the_end_of_their_worker() {
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
fn who_gives_way_comes_after_the_others() {
    let mut worker = TestWorker::new();
    let order = Rc::new(RefCell::new(Vec::new()));
    for number in 0..3 {
        let order = Rc::clone(&order);
        worker.spawn(move || {
            for _ in 0..3 {
                order.borrow_mut().push(number);
                give_way();
            }
        });
    }
    worker.results(3);
    assert_eq!(*order.borrow(), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn who_gives_way_without_end_does_not_keep_events_from_others() {
    let mut worker = TestWorker::new();
    let (one, mut other) = pair();
    let is_over = Rc::new(Cell::new(false));
    let theirs = Rc::clone(&is_over);
    worker.spawn(move || {
        let limit = Instant::now() + LIMIT;
        while !theirs.get() {
            assert!(Instant::now() < limit, "it hangs");
            give_way();
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
fn who_reads_without_ever_waiting_gives_way() {
    let mut worker = TestWorker::new();
    let is_over = Rc::new(Cell::new(false));
    let theirs = Rc::clone(&is_over);
    worker.spawn(move || {
        // There is always something to read.
        let zeros = std::fs::File::open("/dev/zero").unwrap();
        let mut stream = Stream::new(&zeros, far());
        let (limit, mut bytes) = (Instant::now() + LIMIT, vec![0; 64 << 10]);
        while !theirs.get() {
            assert!(Instant::now() < limit, "it hangs");
            stream.read_exact(&mut bytes).unwrap();
        }
    });
    worker.spawn(move || is_over.set(until(Instant::now()).is_ok()));
    worker.results(2);
}

#[test]
fn a_panic_is_the_coroutines_own() {
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
    let theirs = Arc::clone(&counter);
    worker.spawn(move || theirs.reach(1));
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
    // Their stacks and slots serve on.
    worker.done.clear();
    worker.spawn(|| assert_eq!(until(soon().unwrap()), Ok(())));
    worker.results(1);
}

#[test]
fn a_late_notification_does_not_end_a_wait_of_the_next_coroutine_in_the_slot() {
    let mut worker = TestWorker::new();
    let line = Arc::new((Mutex::new(()), Condition::new()));
    let theirs = Arc::clone(&line);
    let first = worker.spawn(move || {
        let _ = theirs.1.wait(theirs.0.lock(), far());
        true
    });
    // Notified and cancelled: it ends by the one before the other is seen.
    line.1.notify_one();
    worker.cancel(first.unwrap());
    assert_eq!(worker.done.len(), 1);
    assert_later(&mut worker);
}

#[test]
fn a_late_notification_does_not_end_a_wait_after_one_that_was_cancelled_before_it_began() {
    let mut worker = TestWorker::new();
    let given = Rc::new(RefCell::new(None));
    let (theirs, is_cancelled) = (Rc::clone(&given), Rc::new(Cell::new(false)));
    let cancelled = Rc::clone(&is_cancelled);
    let first = worker.spawn(move || {
        cancelled.set(until(far().unwrap()).is_err());
        // As a condition does.
        *theirs.borrow_mut() = Some(Waker::new());
        let result = wait(What::Wakeup, far(), Cancelling::Ends).unwrap();
        result == Err(WaitError::Cancelled)
    });
    worker.cancel(first.unwrap());
    assert!(is_cancelled.get());
    given.take().unwrap().wake();
    assert_later(&mut worker);
}

/// The coroutine before has ended with true, and the next one waits as long as it should.
fn assert_later(worker: &mut TestWorker<bool>) {
    worker.spawn(|| {
        let then = Instant::now() + SHORT;
        until(then).is_ok() && Instant::now() >= then
    });
    assert_eq!(worker.results(2), [true, true]);
}

#[test]
fn a_late_event_of_a_socket_ends_no_other_wait() {
    let mut worker = TestWorker::new();
    let (one, mut other) = pair();
    worker.spawn(move || {
        // Given up, so that the system may still report it.
        let late = for_socket(&one, Interest::Read, soon()).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        other.write_all(b"x").unwrap();
        let then = Instant::now() + SHORT;
        assert_eq!(until(then), Ok(()));
        assert!(Instant::now() >= then);
        // The descriptors' numbers are used again.
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
fn a_socket_is_waited_for_again_and_again_in_both_directions() {
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
                // Or the other one's last wait would be ended by this end's.
                end
            });
        }
    }
    worker.results(20);
}

#[test]
fn thousands_wait_at_once() {
    const MANY: usize = 3000;
    let mut worker = TestWorker::new();
    let counter = Arc::new(Counter::default());
    for number in 0..MANY {
        let counter = Arc::clone(&counter);
        worker.spawn(move || {
            counter.reach(1);
            // The later ones end first.
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
fn stacks_and_slots_are_used_again() {
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
fn the_workers_own_files_are_reported() {
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
        // A nudge may be seen in two ways, and each ends a wait.
        worker.turn_within(Duration::ZERO);
    }
}

#[test]
fn threads_know_which_worker_they_are() {
    assert_eq!(thread::spawn(worker_number).join().unwrap(), 0);
    let number = thread::spawn(|| {
        let remote = Arc::new(Remote::new().unwrap());
        let _reactor: Reactor<()> = Reactor::new(&remote, 5);
        worker_number()
    });
    assert_eq!(number.join().unwrap(), 5);
}
