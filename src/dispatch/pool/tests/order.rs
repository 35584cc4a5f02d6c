//! The order in which waiting requests get places, and what happens to a place whose request no longer needs it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::wait::testing::{CANCELLABLE, PLACES, SHORT, TestWorker, start};
use crate::wait::until;

/// A pool with one place, and the lease of that place.
fn full() -> (Arc<Pool<Places>>, Lease<Places>) {
    let pool = Pool::new(1);
    ready(&pool, 0, 1);
    let lease = pool.acquire(ANY, None, now()).unwrap();
    (pool, lease)
}

/// Makes a coroutine wait for a place. Its result is `number` and the lease or error.
fn wait_in(
    worker: &mut TestWorker<(usize, Result<Lease<Places>, Unavailable>)>,
    pool: &Arc<Pool<Places>>,
    number: usize,
    limit: ConcurrencyLimit,
    deadline: Instant,
) -> crate::wait::TaskId {
    let pool = Arc::clone(pool);
    let task = worker.spawn(move || (number, pool.acquire(limit, None, deadline)));
    task.expect("the coroutine waits")
}

#[test]
fn a_newcomer_does_not_take_the_place_of_a_waiting_request() {
    let (pool, lease) = full();
    let mut worker = TestWorker::new();
    wait_in(&mut worker, &pool, 0, ANY, late());
    drop(lease);
    let newcomer = pool.acquire(ANY, None, now());
    assert_eq!(
        why_timed_out(newcomer),
        "all ovens are full (oven 0: busy with 1 request)"
    );
    let (_, first) = worker.results(1).remove(0);
    drop(first.unwrap());
    assert!(pool.acquire(ANY, None, now()).is_ok(), "no request waits");
}

#[test]
fn waiting_requests_get_places_in_order_of_arrival() {
    let (pool, lease) = full();
    let mut worker = TestWorker::new();
    let order: Arc<Mutex<Vec<usize>>> = Arc::default();
    for number in 0..20 {
        let (pool, order) = (Arc::clone(&pool), Arc::clone(&order));
        let task = worker.spawn(move || {
            let lease = pool.acquire(ANY, None, late()).unwrap();
            order.lock().push(number);
            // Asks again at once, as a busy client does.
            drop(lease);
            drop(pool.acquire(ANY, None, late()).unwrap());
            order.lock().push(number + 20);
        });
        assert!(task.is_some());
    }
    drop(lease);
    worker.results(20);
    assert_eq!(*order.lock(), Vec::from_iter(0..40));
}

#[test]
fn a_place_granted_after_the_deadline_is_passed_on() {
    let mut patience = SHORT;
    // A slow machine may let the deadline pass before the place is free.
    let (pool, mut worker, deadline) = loop {
        let (pool, lease) = full();
        let mut worker = TestWorker::new();
        let deadline = now() + patience;
        let its_pool = Arc::clone(&pool);
        let task = worker.spawn(move || (0, its_pool.acquire(ANY, None, deadline)));
        drop(lease);
        if task.is_some() && now() < deadline {
            break (pool, worker, deadline);
        }
        patience *= 2;
    };
    wait_in(&mut worker, &pool, 1, ANY, late());
    wait_until(|| now() > deadline);
    let mut results = worker.results(2);
    assert_eq!(results[0].0, 0);
    let (_, late) = results.remove(0);
    assert_eq!(
        why_timed_out(late),
        "all ovens are full (oven 0: busy with 1 request)"
    );
    assert!(results.remove(0).1.is_ok());
    assert_eq!(pool.waiting(), 0);
    assert_eq!(pool.look_at_idle(0, |places| places.0.len()), Some(1));
}

#[test]
fn a_place_granted_to_a_cancelled_request_is_passed_on() {
    let (pool, lease) = full();
    let mut worker = TestWorker::new();
    let cancelled = worker.spawn({
        let pool = Arc::clone(&pool);
        move || {
            let result = pool.acquire(ANY, None, late());
            // If the notification came before the cancellation, the next wait is cancelled.
            let result = result.and_then(|lease| match until(late()) {
                Ok(()) => Ok(lease),
                Err(_) => Err(Unavailable::Cancelled),
            });
            (0, result)
        }
    });
    wait_in(&mut worker, &pool, 1, ANY, late());
    drop(lease);
    worker.cancel(cancelled.unwrap());
    let mut results = worker.results(2);
    let (number, result) = results.remove(0);
    assert_eq!((number, result.err()), (0, Some(Unavailable::Cancelled)));
    assert!(results.remove(0).1.is_ok());
    assert_eq!(pool.look_at_idle(0, |places| places.0.len()), Some(1));
}

#[test]
fn a_request_granted_a_place_at_an_ended_process_keeps_its_turn() {
    let (pool, lease) = full();
    let mut worker = TestWorker::new();
    for number in 0..3 {
        wait_in(&mut worker, &pool, number, ANY, late());
    }
    drop(lease);
    pool.process_ended(0);
    ready(&pool, 0, 1);
    assert!(
        pool.acquire(ANY, None, now()).is_err(),
        "three requests come first"
    );
    for expected in 0..3 {
        let (number, lease) = worker.results(1).remove(0);
        assert_eq!(number, expected);
        assert_eq!(lease.unwrap().wait_until_gone(now()), Ok(false));
    }
}

#[test]
fn a_freed_place_wakes_one_of_many_requests() {
    let (pool, lease) = full();
    let mut worker = TestWorker::new();
    for number in 0..100 {
        wait_in(&mut worker, &pool, number, ANY, late());
    }
    let mut state = pool.state.lock();
    let member = &mut state.members[0];
    member.load.remove(ANY);
    member.capacity.as_mut().unwrap().give_back(lease.place);
    assert_eq!(state.grant_free_places().len(), 1);
    assert_eq!(state.grant_free_places().len(), 0, "the place is taken");
    drop(state);
    pool.close();
    for (_, result) in worker.results(100) {
        assert_eq!(why_timed_out(result), "the model was unloaded");
    }
    std::mem::forget(lease);
}

#[test]
fn a_quarantined_request_keeps_its_turn_among_other_requests() {
    let (pool, lease) = full();
    let mut worker = TestWorker::new();
    wait_in(&mut worker, &pool, 0, ANY, late());
    wait_in(&mut worker, &pool, 1, limit(3), late());
    wait_in(&mut worker, &pool, 2, ANY, late());
    drop(lease);
    for expected in 0..3 {
        let (number, lease) = worker.results(1).remove(0);
        assert_eq!(number, expected);
        assert!(pool.acquire(ANY, None, now()).is_err());
        drop(lease.unwrap());
    }
    assert!(pool.acquire(ANY, None, now()).is_ok());
}

#[test]
fn requests_behind_a_quarantined_one_get_other_places_in_their_order() {
    let pool = Pool::new(2);
    ready(&pool, 0, 2);
    ready(&pool, 1, 2);
    let mut leases = Vec::from_iter((0..4).map(|_| pool.acquire(ANY, None, now()).unwrap()));
    let mut worker = TestWorker::new();
    wait_in(&mut worker, &pool, 0, limit(3), late());
    wait_in(&mut worker, &pool, 1, ANY, late());
    wait_in(&mut worker, &pool, 2, ANY, late());
    // The first member has the fewest requests, so it is kept free for the quarantined request.
    drop(leases.remove(2));
    drop(leases.remove(2));
    let mut results = worker.results(1);
    let (number, second) = results.remove(0);
    let second = second.unwrap();
    assert_eq!((number, second.index()), (1, 1));
    assert!(pool.acquire(ANY, None, now()).is_err());
    drop(leases.remove(0));
    let (number, alone) = worker.results(1).remove(0);
    assert_eq!((number, alone.unwrap().index()), (0, 0));
    let (number, last) = worker.results(1).remove(0);
    assert_eq!(number, 2);
    drop((last, second, leases));
    for index in 0..2 {
        let free = pool.look_at_idle(index, |places| places.0.len());
        assert_eq!(free, Some(2));
    }
}

/// The places that are leased, to check that none is leased twice.
#[derive(Debug, Default)]
struct Taken(Mutex<HashSet<(usize, u64, usize)>>);

impl Taken {
    fn hold(&self, lease: &Lease<Places>, during: impl FnOnce()) {
        let key = (lease.index, lease.generation, lease.place);
        assert!(self.0.lock().insert(key), "{key:?} twice");
        during();
        assert!(self.0.lock().remove(&key));
    }
}

/// One of many requests. Most of them are patient and must get a place. Returns whether this one did; `None` if it was
/// not patient.
fn visit(pool: &Arc<Pool<Places>>, taken: &Taken, number: usize) -> Option<bool> {
    let is_patient = !number.is_multiple_of(3);
    let deadline = match is_patient {
        true => late(),
        false => now() + Duration::from_micros((number % 7) as u64 * 50),
    };
    let losses = if number.is_multiple_of(11) { 3 } else { 0 };
    let result = pool.acquire(limit(losses), None, deadline);
    if let Ok(lease) = &result {
        taken.hold(lease, || {
            if number.is_multiple_of(2) {
                let _ = until(now() + Duration::from_micros(20));
            }
        });
    }
    is_patient.then_some(result.is_ok())
}

#[test]
fn among_many_requests_no_place_is_lost_or_leased_twice() {
    const VISITS: usize = 60;
    let pool = Pool::new(2);
    ready(&pool, 0, 2);
    ready(&pool, 1, 1);
    let (taken, is_over) = (Arc::new(Taken::default()), Arc::new(AtomicBool::new(false)));
    let jobs = Vec::from_iter((0..24).map(|job| {
        let (pool, taken) = (Arc::clone(&pool), Arc::clone(&taken));
        start(PLACES[job % PLACES.len()], move || {
            for visit_number in 0..VISITS {
                let served = visit(&pool, &taken, job * VISITS + visit_number);
                assert_ne!(served, Some(false), "a patient request got no place");
            }
        })
    }));
    let restarts = start(PLACES[0], {
        let (pool, is_over) = (Arc::clone(&pool), Arc::clone(&is_over));
        move || {
            while !is_over.load(Ordering::SeqCst) {
                for (index, count) in [(0, 2), (1, 1)] {
                    pool.process_ended(index);
                    let _ = until(now() + Duration::from_micros(100));
                    ready(&pool, index, count);
                    let _ = until(now() + Duration::from_micros(300));
                }
            }
        }
    });
    jobs.into_iter().for_each(|job| job.join());
    is_over.store(true, Ordering::SeqCst);
    restarts.join();
    assert_eq!(pool.waiting(), 0);
    for (index, count) in [(0, 2), (1, 1)] {
        let free = pool.look_at_idle(index, |places| places.0.len());
        assert_eq!(free, Some(count));
    }
}

#[test]
fn among_many_requests_that_hang_up_the_others_get_all_places() {
    let (pool, lease) = full();
    let served = Arc::new(AtomicUsize::new(0));
    let mut lease = Some(lease);
    for round in 0..200 {
        let job = |number: usize| {
            let (pool, served) = (Arc::clone(&pool), Arc::clone(&served));
            start(CANCELLABLE[(round + number) % 2], move || {
                let result = pool.acquire(ANY, None, late());
                served.fetch_add(usize::from(result.is_ok()), Ordering::SeqCst);
                result.map(drop)
            })
        };
        let hangs_up = job(0);
        wait_until(|| pool.waiting() == 1);
        let stays = job(1);
        wait_until(|| pool.waiting() == 2);
        thread::scope(|scope| {
            let freed = lease.take();
            scope.spawn(move || drop(freed));
            (hangs_up.cancel)();
        });
        let cancelled = hangs_up.join();
        assert!(matches!(cancelled, Ok(()) | Err(Unavailable::Cancelled)));
        assert_eq!(stays.join(), Ok(()));
        lease = Some(pool.acquire(ANY, None, now()).unwrap());
    }
    assert!(served.load(Ordering::SeqCst) >= 200);
}
