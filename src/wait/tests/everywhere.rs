//! Behavior that threads and coroutines share.

use std::io::{ErrorKind, Read};

use super::*;

#[test]
fn a_ready_socket_ends_the_wait_at_once() {
    everywhere(|| {
        let (one, mut other) = pair();
        for_socket(&one, Interest::Write, far()).unwrap();
        other.write_all(b"x").unwrap();
        for_socket(&one, Interest::Read, far()).unwrap();
        // The socket is still ready, because nothing was read.
        for_socket(&one, Interest::Read, None).unwrap();
    });
}

#[test]
fn bytes_that_arrive_later_end_the_wait() {
    for place in PLACES {
        let (one, mut other) = pair();
        let (announce, announced) = bounded(1);
        let job = start(place, move || {
            announce.send(()).unwrap();
            for_socket(&one, Interest::Read, far()).unwrap();
            let mut bytes = [0; 8];
            (&one).read(&mut bytes).unwrap()
        });
        announced.recv_timeout(LIMIT).unwrap();
        other.write_all(b"later").unwrap();
        assert_eq!(job.join(), 5, "{place:?}");
    }
}

#[test]
fn waits_for_room_in_a_full_socket() {
    for place in PLACES {
        let (one, mut other) = pair();
        let filled = fill(&one);
        let (announce, announced) = bounded(1);
        let job = start(place, move || {
            let error = for_socket(&one, Interest::Write, soon()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            announce.send(()).unwrap();
            for_socket(&one, Interest::Write, far()).unwrap();
            fill(&one)
        });
        announced.recv_timeout(LIMIT).unwrap();
        other.set_nonblocking(false).unwrap();
        other.read_exact(&mut vec![0; filled]).unwrap();
        assert!(job.join() > 0, "{place:?}");
    }
}

#[test]
fn a_hang_up_ends_waits_for_reading_and_for_writing() {
    for place in PLACES {
        for interest in [Interest::Read, Interest::Write] {
            let (one, other) = pair();
            fill(&one);
            let job = start(place, move || for_socket(&one, interest, far()).is_ok());
            drop(other);
            assert!(job.join(), "{place:?}, {interest:?}");
        }
    }
}

#[test]
fn a_wait_for_a_socket_ends_at_its_deadline() {
    everywhere(|| {
        let (one, _other) = pair();
        let deadline = soon();
        let error = for_socket(&one, Interest::Read, deadline).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(!is_cancelled(&error));
        assert!(Instant::now() >= deadline.unwrap());
        // The same for a deadline that has passed already.
        let error = for_socket(&one, Interest::Read, deadline).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn until_returns_at_its_time() {
    everywhere(|| {
        let then = Instant::now() + SHORT;
        assert_eq!(until(then), Ok(()));
        assert!(Instant::now() >= then);
        assert_eq!(until(then), Ok(()));
        yield_now();
    });
}

#[test]
fn another_thread_can_notify_a_condition() {
    for place in PLACES {
        let counter = Arc::new(Counter::default());
        let shared = Arc::clone(&counter);
        let job = start(place, move || {
            for number in (1..=100).step_by(2) {
                shared.set(number);
                shared.reach(number + 1);
            }
        });
        for number in (1..=100).step_by(2) {
            counter.reach(number);
            counter.set(number + 1);
        }
        job.join();
    }
}

#[test]
fn a_wait_for_a_condition_ends_at_its_deadline() {
    everywhere(|| {
        let (mutex, condition) = (Mutex::new(()), Condition::new());
        for _ in 0..3 {
            let deadline = soon();
            let (guard, result) = condition.wait(mutex.lock(), deadline);
            assert_eq!(result, Err(WaitError::TimedOut));
            assert!(Instant::now() >= deadline.unwrap());
            assert!(mutex.try_lock().is_none(), "the mutex is locked again");
            drop(guard);
        }
        // Notifying without waiters does nothing.
        condition.notify_one();
        condition.notify_all();
    });
}

/// Waits for a notification, after counting itself in.
fn wait_in_line(line: &(Mutex<usize>, Condition), deadline: Option<Instant>) -> bool {
    let mut guard = line.0.lock();
    *guard += 1;
    let (guard, result) = line.1.wait(guard, deadline);
    drop(guard);
    result.is_ok()
}

/// Returns once `count` waiters have counted themselves in.
fn until_in_line(line: &(Mutex<usize>, Condition), count: usize) {
    let limit = Instant::now() + LIMIT;
    while *line.0.lock() < count {
        assert!(Instant::now() < limit, "the waiters do not come");
        thread::yield_now();
    }
}

#[test]
fn notify_one_wakes_the_longest_waiter() {
    let line = Arc::new((Mutex::new(0), Condition::new()));
    let (announce, order) = crossbeam_channel::unbounded();
    let mut jobs = Vec::new();
    for number in 0..9 {
        let (line, announce) = (Arc::clone(&line), announce.clone());
        let shared = Arc::clone(&line);
        jobs.push(start(PLACES[number % 3], move || {
            assert!(wait_in_line(&shared, far()));
            announce.send(number).unwrap();
        }));
        until_in_line(&line, number + 1);
    }
    for number in 0..4 {
        line.1.notify_one();
        assert_eq!(order.recv_timeout(LIMIT), Ok(number));
    }
    line.1.notify_all();
    jobs.into_iter().for_each(Job::join);
    let mut others = Vec::from_iter(order.try_iter());
    others.sort_unstable();
    assert_eq!(others, [4, 5, 6, 7, 8]);
}

#[test]
fn a_notification_at_the_deadline_is_not_lost() {
    for place in PLACES {
        for round in 0..100 {
            let line = Arc::new((Mutex::new(0), Condition::new()));
            let (hasty, patient) = (Arc::clone(&line), Arc::clone(&line));
            let hasty = start(place, move || {
                // The deadline passes at about the time of the notification.
                let deadline = Instant::now() + Duration::from_micros(20 * round);
                wait_in_line(&hasty, Some(deadline))
            });
            until_in_line(&line, 1);
            let patient = start(place, move || wait_in_line(&patient, far()));
            until_in_line(&line, 2);
            line.1.notify_one();
            if hasty.join() {
                line.1.notify_one();
            }
            assert!(patient.join(), "{place:?}, round {round}");
        }
    }
}

#[test]
fn a_stream_reads_and_writes_as_if_it_blocked() {
    let bytes = Arc::new(Vec::from_iter((0..1_000_000u32).map(|n| (n % 251) as u8)));
    for writes in PLACES {
        for reads in PLACES {
            let (one, other) = pair();
            let (shared, expected) = (Arc::clone(&bytes), Arc::clone(&bytes));
            let writer = start(writes, move || {
                let mut stream = Stream::new(&one, far());
                stream.write_all(&shared).unwrap();
                stream.flush().unwrap();
            });
            let reader = start(reads, move || {
                let mut stream = Stream::new(&other, far());
                stream.wait_for_input().unwrap();
                let mut got = Vec::new();
                stream.read_to_end(&mut got).unwrap();
                assert!(got == *expected);
            });
            writer.join();
            reader.join();
        }
    }
}

#[test]
fn a_stream_times_out_at_its_deadline() {
    everywhere(|| {
        let (one, _other) = pair();
        let error = Stream::new(&one, soon()).read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        fill(&one);
        let error = Stream::new(&one, soon()).write(&[0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
#[cfg(debug_assertions)]
fn waiting_with_a_lock_held_panics() {
    everywhere(|| {
        let mutex = Mutex::new(());
        let panic = caught(|| {
            let _guard = mutex.lock();
            until(Instant::now())
        });
        let panic = panic.unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("a lock is held across a wait"), "{text}");
        // The panic dropped the guard, so it no longer counts.
        assert!(mutex.try_lock().is_some());
        assert_eq!(until(Instant::now()), Ok(()));
    });
}

#[test]
#[cfg(debug_assertions)]
fn waiting_for_a_condition_with_a_second_lock_held_panics() {
    everywhere(|| {
        let (other, mutex) = (Mutex::new(()), Mutex::new(()));
        let panic = caught(|| {
            let _other = other.lock();
            Condition::new().wait(mutex.lock(), soon()).1
        });
        assert!(panic.is_err());
    });
}
