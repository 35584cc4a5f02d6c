//! The pool with simulated members, each of which has a number of places. They are called ovens, so that no message
//! about instances or Python workers can come from the pool itself.

mod order;

use std::thread;

use super::*;
use crate::dispatch::quarantine::Losses;

const ANY: ConcurrencyLimit = ConcurrencyLimit::ANY;

/// The numbers of the free places; the last is taken first.
#[derive(Debug)]
struct Places(Vec<usize>);

impl Capacity for Places {
    const WORDS: Words = Words {
        member: "oven",
        none_ready: "no oven has been warm",
        none_free: "all ovens are full",
        quarantine: "ovens burned, which are now filled a little at a time",
    };
    type Place = usize;

    fn has_free(&self) -> bool {
        !self.0.is_empty()
    }

    fn take(&mut self) -> Option<usize> {
        self.0.pop()
    }

    fn give_back(&mut self, place: usize) {
        self.0.push(place);
    }
}

/// A capacity of `count` places.
fn places(count: usize) -> Option<Places> {
    Some(Places((0..count).collect()))
}

/// A pool of members with these healths and many places each.
fn pool(healths: &[Health]) -> Arc<Pool<Places>> {
    let pool = Pool::new(healths.len());
    for (index, &health) in healths.iter().enumerate() {
        set(&pool, index, health);
    }
    pool
}

fn set(pool: &Pool<Places>, index: usize, health: Health) {
    let what = format!("{health:?}");
    pool.set(index, health, what, Instant::now(), places(100));
}

fn ready(pool: &Pool<Places>, index: usize, count: usize) {
    let now = Instant::now();
    pool.set(index, Health::Ready, "ready".into(), now, places(count));
}

fn now() -> Instant {
    Instant::now()
}

fn late() -> Instant {
    now() + Duration::from_secs(60)
}

/// The limit after this many losses.
fn limit(losses: u32) -> ConcurrencyLimit {
    let mut lost = Losses::default();
    (0..losses).for_each(|_| lost.add());
    lost.concurrency_limit()
}

fn why_timed_out<T: Debug>(result: Result<T, Unavailable>) -> String {
    match result {
        Err(Unavailable::TimedOut(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// The member at which a request would get a place now.
fn next(pool: &Arc<Pool<Places>>) -> usize {
    pool.acquire(ANY, None, now()).unwrap().index()
}

fn wait_until(is_true: impl Fn() -> bool) {
    let until = late();
    while !is_true() {
        assert!(now() < until);
        thread::yield_now();
    }
}

#[test]
fn leases_at_the_member_with_the_fewest_requests() {
    let pool = pool(&[Health::Ready, Health::Ready]);
    let first = pool.acquire(ANY, None, now()).unwrap();
    let second = pool.acquire(ANY, None, now()).unwrap();
    assert_eq!((first.index(), second.index()), (0, 1));
    let third = pool.acquire(ANY, None, now()).unwrap();
    assert_eq!(third.index(), 0);
    drop(second);
    assert_eq!(next(&pool), 1);
}

#[test]
fn prefers_a_ready_member_to_an_unresponsive_one() {
    let pool = pool(&[Health::Unresponsive, Health::Ready, Health::Coming]);
    let _first = pool.acquire(ANY, None, now()).unwrap();
    assert_eq!(next(&pool), 1);
    set(&pool, 1, Health::Coming);
    assert_eq!(next(&pool), 0);
    assert!(pool.check().is_err());
}

#[test]
fn a_timeout_says_what_the_members_are_doing() {
    let pool = pool(&[Health::Coming]);
    pool.set(0, Health::Coming, "down (killed)".into(), now(), None);
    let text = why_timed_out(pool.acquire(ANY, None, now()));
    assert_eq!(
        text,
        "no oven has been warm for 0 s (oven 0: down (killed) for 0 s)"
    );
    assert_eq!(pool.check().unwrap_err(), text);
    assert_eq!(why_timed_out(pool.wait_until_serving(now())), text);
}

#[test]
fn waits_for_full_members_but_not_for_failing_ones() {
    let pool = Pool::new(1);
    ready(&pool, 0, 1);
    let lease = pool.acquire(ANY, None, now()).unwrap();
    assert_eq!(
        why_timed_out(pool.acquire(ANY, None, now())),
        "all ovens are full (oven 0: busy with 1 request)"
    );
    thread::scope(|scope| {
        let waiting = scope.spawn(|| pool.acquire(ANY, None, late()).map(drop));
        wait_until(|| pool.waiting() == 1);
        drop(lease);
        assert_eq!(waiting.join().unwrap(), Ok(()));
    });
    set(&pool, 0, Health::Failing);
    match pool.acquire(ANY, None, late()) {
        Err(Unavailable::Failing(why)) => assert!(why.contains("oven 0: Failing"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(pool.check().is_err());
}

#[test]
fn a_waiting_request_gets_a_place_when_a_member_becomes_ready() {
    let pool = pool(&[Health::Coming]);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| pool.acquire(ANY, None, late()).map(|lease| lease.index()));
        let serving = scope.spawn(|| pool.wait_until_serving(late()));
        wait_until(|| pool.waiting() == 1);
        set(&pool, 0, Health::Ready);
        assert_eq!(waiting.join().unwrap(), Ok(0));
        assert_eq!(serving.join().unwrap(), Ok(()));
    });
}

#[test]
fn closing_the_pool_ends_all_waits() {
    let pool = pool(&[Health::Coming]);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| why_timed_out(pool.acquire(ANY, None, late())));
        wait_until(|| pool.waiting() == 1);
        pool.close();
        assert_eq!(waiting.join().unwrap(), "the model was unloaded");
    });
    assert!(pool.wait_until_serving(late()).is_err());
}

#[test]
fn the_time_without_a_ready_member_includes_all_restarts() {
    let pool = pool(&[Health::Ready, Health::Ready]);
    let ago = |seconds| now() - Duration::from_secs(seconds);
    let set = |index, health, what: &str, since| pool.set(index, health, what.into(), since, None);
    set(0, Health::Coming, "down (killed)", ago(90));
    assert_eq!(pool.check(), Ok(()), "one is enough");
    set(1, Health::Unresponsive, "unresponsive (no answer)", ago(60));
    set(0, Health::Coming, "starting", ago(30));
    set(0, Health::Coming, "down (exited with code 1)", ago(5));
    assert_eq!(
        pool.check().unwrap_err(),
        "no oven has been warm for 60 s (oven 0: down (exited with code 1) for 5 s; oven 1: unresponsive (no answer) \
         for 60 s)"
    );
    set(1, Health::Ready, "ready", ago(0));
    assert_eq!(pool.check(), Ok(()));
}

#[test]
fn a_quarantined_request_waits_until_other_requests_have_left() {
    let pool = pool(&[Health::Ready]);
    let other = pool.acquire(ANY, None, now()).unwrap();
    let text = why_timed_out(pool.acquire(limit(3), None, now()));
    assert!(text.contains("a little at a time"), "{text}");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| pool.acquire(limit(3), None, late()).map(drop));
        wait_until(|| pool.waiting() == 1);
        let joins = pool.acquire(ANY, None, now());
        assert!(joins.is_err(), "the place is kept");
        drop(other);
        assert_eq!(waiting.join().unwrap(), Ok(()));
    });
    assert!(pool.acquire(ANY, None, now()).is_ok());
}

#[test]
fn a_request_behind_a_quarantined_one_goes_on_when_that_gives_up() {
    let pool = pool(&[Health::Ready]);
    let begin = now();
    let (soon, late) = (Duration::from_millis(500), Duration::from_secs(20));
    let _slow = pool.acquire(ANY, None, begin).unwrap();
    thread::scope(|scope| {
        let quarantined = scope.spawn(|| pool.acquire(limit(3), None, begin + soon).map(drop));
        wait_until(|| pool.waiting() >= 1);
        let other = scope.spawn(|| {
            let lease = pool.acquire(ANY, None, begin + late);
            lease.map(|_| begin.elapsed())
        });
        wait_until(|| pool.waiting() >= 2);
        assert!(quarantined.join().unwrap().is_err());
        let took = other.join().unwrap().unwrap();
        assert!(took < late, "the request was not woken: {took:?}");
    });
}

#[test]
fn a_quarantined_request_is_alone_until_it_leaves_quarantine() {
    let pool = pool(&[Health::Ready, Health::Ready]);
    let _other = pool.acquire(ANY, None, now()).unwrap();
    let mut alone = pool.acquire(limit(3), None, now()).unwrap();
    assert_eq!(alone.index(), 1);
    assert_eq!(next(&pool), 0, "no request joins it");
    assert!(pool.acquire(limit(3), None, now()).is_err());
    let _third = pool.acquire(ANY, None, now()).unwrap();
    thread::scope(|scope| {
        set(&pool, 0, Health::Coming);
        let waiting = scope.spawn(|| pool.acquire(ANY, None, late()).map(|lease| lease.index()));
        wait_until(|| pool.waiting() == 1);
        alone.leave_quarantine();
        assert_eq!(waiting.join().unwrap(), Ok(1));
    });
    drop(alone);
    assert!(pool.acquire(limit(3), None, now()).is_ok());
}

#[test]
fn a_lease_shows_that_its_member_is_gone() {
    let pool = pool(&[Health::Ready]);
    let lease = pool.acquire(ANY, None, now()).unwrap();
    assert_eq!(lease.wait_until_gone(now()), Ok(false));
    set(&pool, 0, Health::Unresponsive);
    assert_eq!(lease.wait_until_gone(now()), Ok(false));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| lease.wait_until_gone(late()));
        set(&pool, 0, Health::Coming);
        set(&pool, 0, Health::Ready);
        assert_eq!(waiting.join().unwrap(), Ok(true));
    });
    let next = pool.acquire(ANY, None, now()).unwrap();
    assert_eq!(next.wait_until_gone(now()), Ok(false));
}

#[test]
fn a_place_at_an_ended_process_is_not_given_back_to_the_next_process() {
    let pool = Pool::new(1);
    ready(&pool, 0, 1);
    let lease = pool.acquire(ANY, None, now()).unwrap();
    pool.process_ended(0);
    assert!(pool.acquire(ANY, None, now()).is_err());
    assert!(pool.check().is_err());
    ready(&pool, 0, 1);
    drop(lease);
    let _lease = pool.acquire(ANY, None, now()).unwrap();
    assert!(pool.acquire(ANY, None, now()).is_err());
}

#[test]
fn a_member_keeps_its_places_while_it_takes_requests() {
    let pool = Pool::new(1);
    ready(&pool, 0, 2);
    let first = pool.acquire(ANY, None, now()).unwrap();
    set(&pool, 0, Health::Unresponsive);
    ready(&pool, 0, 2);
    let second = pool.acquire(ANY, None, now()).unwrap();
    assert_ne!(first.place(), second.place());
    assert!(pool.acquire(ANY, None, now()).is_err());
}

#[test]
fn a_discarded_place_is_never_leased_again() {
    let pool = Pool::new(1);
    ready(&pool, 0, 2);
    let free = || pool.look_at_idle(0, |places| places.0.len());
    let lease = pool.acquire(ANY, None, now()).unwrap();
    assert_eq!(free(), None, "the member is not idle");
    lease.discard();
    assert_eq!(free(), Some(1));
    drop(pool.acquire(ANY, None, now()).unwrap());
    assert_eq!(free(), Some(1));
    pool.process_ended(0);
    assert_eq!(free(), None);
}

#[test]
fn a_choice_counts_for_the_spread_but_blocks_no_request() {
    let pool = pool(&[Health::Ready, Health::Ready]);
    let first = pool.choose();
    let second = pool.choose();
    assert_eq!((first.index(), second.index()), (0, 1));
    drop(second);
    assert_eq!(next(&pool), 1);
    let alone = pool.acquire(limit(3), Some(0), now()).unwrap();
    assert_eq!(alone.index(), 0);
    drop((alone, first));
    assert_eq!(next(&pool), 0);
}

#[test]
fn leases_at_the_preferred_member_unless_it_is_full_or_not_ready() {
    let pool = Pool::new(2);
    ready(&pool, 0, 2);
    ready(&pool, 1, 1);
    let prefers_1 = || pool.acquire(ANY, Some(1), now()).unwrap();
    let busier = pool.acquire(ANY, Some(1), now()).unwrap();
    assert_eq!(prefers_1().index(), 0, "member 1 is full");
    drop(busier);
    let _other = pool.acquire(ANY, None, now()).unwrap();
    assert_eq!(prefers_1().index(), 1);
    set(&pool, 1, Health::Unresponsive);
    assert_eq!(prefers_1().index(), 0, "member 1 does not answer");
    pool.process_ended(1);
    assert_eq!(prefers_1().index(), 0, "member 1 is gone");
}

#[test]
fn a_choice_may_outlive_its_process() {
    let pool = pool(&[Health::Ready]);
    let choice = pool.choose();
    pool.process_ended(0);
    let early = pool.choose();
    assert_eq!(early.index(), 0, "the member will come back");
    set(&pool, 0, Health::Ready);
    drop((choice, early));
    assert_eq!(pool.choose().index(), 0);
    assert_eq!(next(&pool), 0);
}
