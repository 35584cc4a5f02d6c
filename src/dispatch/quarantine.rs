//! Finds the in-flight request that crashes a process. Pure data structures: no clock, no threads.
//!
//! A lost request is sent again, as often as its deadline allows. But the same request may crash the process each time,
//! and all other requests at that process are lost with it. So a request that was lost several times is *quarantined*:
//! it is sent together with only a few others, and finally alone. Only a request that was lost while it was alone is
//! given up as *poison*; a request that only shared a process with it loses nothing but time. Pools of TFS instances
//! and of Python workers follow the same rules.

use std::collections::BTreeMap;

/// Losses among any number of other requests. Most requests that are lost by chance are answered before this number.
const LOSSES_BEFORE_QUARANTINE: u32 = 2;
/// Further losses in a small group. One suffices: all groups without a poisonous request are answered.
const LOSSES_IN_SMALL_GROUP: u32 = 1;
/// The size of a small group. Small, because each group with the poisonous request ends a process, and large enough that
/// hundreds of requests do not have to pass one by one.
const SMALL_GROUP: usize = 8;
/// Further losses alone, after which the request itself must be the cause. Two, because one may be chance.
const LOSSES_ALONE: u32 = 2;

/// How often a request was lost because a process ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses(u32);

/// The most requests that may be at a process together with the request that has this limit, including that request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConcurrencyLimit(usize);

impl Losses {
    /// Counts one more loss.
    pub fn add(&mut self) {
        self.0 += 1;
    }

    /// The number of losses.
    pub fn count(self) -> u32 {
        self.0
    }

    /// The limit for sending the request again.
    pub fn concurrency_limit(self) -> ConcurrencyLimit {
        const GROUPED: u32 = LOSSES_BEFORE_QUARANTINE + LOSSES_IN_SMALL_GROUP;
        match self.0 {
            ..LOSSES_BEFORE_QUARANTINE => ConcurrencyLimit::ANY,
            LOSSES_BEFORE_QUARANTINE..GROUPED => ConcurrencyLimit(SMALL_GROUP),
            GROUPED.. => ConcurrencyLimit(1),
        }
    }

    /// Whether the request must be what crashes the process, as far as we can see from outside.
    pub fn is_poison(self) -> bool {
        self.0 >= LOSSES_BEFORE_QUARANTINE + LOSSES_IN_SMALL_GROUP + LOSSES_ALONE
    }
}

impl ConcurrencyLimit {
    /// No limit: the request is not quarantined.
    pub const ANY: Self = Self(usize::MAX);

    /// Whether there is a limit.
    pub fn is_quarantined(self) -> bool {
        self != Self::ANY
    }
}

/// The requests at one process.
#[derive(Debug, Default)]
pub struct Load {
    /// The number of requests.
    pub requests: usize,
    /// The number of requests that will be sent here soon. They count when requests are spread over the processes, but
    /// no request waits because of them.
    pub expected: usize,
    /// The limits of the quarantined requests among them.
    quarantined: Vec<ConcurrencyLimit>,
}

impl Load {
    /// Counts a request that was sent here.
    pub fn add(&mut self, limit: ConcurrencyLimit) {
        self.requests += 1;
        if limit.is_quarantined() {
            self.quarantined.push(limit);
        }
    }

    /// Forgets a request that has left.
    pub fn remove(&mut self, limit: ConcurrencyLimit) {
        self.requests -= 1;
        if let Some(place) = self.quarantined.iter().position(|&other| other == limit) {
            self.quarantined.swap_remove(place);
        }
    }

    fn has_room(&self, limit: ConcurrencyLimit) -> bool {
        let limit = self.quarantined.iter().fold(limit, |a, &b| a.min(b));
        self.requests < limit.0
    }
}

/// The requests that wait to be sent, in order of arrival. A quarantined request waits until all earlier requests have
/// left the queue; then one process is kept free for it. Later requests may pass a quarantined one, but not each other.
#[derive(Debug, Default)]
pub struct Queue {
    last: Ticket,
    waiting: BTreeMap<Ticket, ConcurrencyLimit>,
}

/// The number of a request in the queue, in order of arrival.
pub type Ticket = u64;

impl Queue {
    /// Adds a request that begins to wait.
    pub fn enter(&mut self, limit: ConcurrencyLimit) -> Ticket {
        self.last += 1;
        self.waiting.insert(self.last, limit);
        self.last
    }

    /// Adds a request again that had left, at its old place.
    pub fn reenter(&mut self, ticket: Ticket, limit: ConcurrencyLimit) {
        self.waiting.insert(ticket, limit);
    }

    /// Removes a request that no longer waits.
    pub fn leave(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }

    /// The first waiting request, or the first one after `ticket`.
    pub fn next(&self, ticket: Option<Ticket>) -> Option<(Ticket, ConcurrencyLimit)> {
        let from = ticket.map_or(0, |ticket| ticket + 1);
        let next = self.waiting.range(from..).next();
        next.map(|(&ticket, &limit)| (ticket, limit))
    }

    /// The number of waiting requests.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The process that a request may be sent to now, if any: the one in `loads` with the fewest requests. `is_usable`
    /// says whether a process has a free place. A request without a ticket comes after all waiting requests.
    pub fn choose<'a>(
        &self,
        ticket: Option<Ticket>,
        limit: ConcurrencyLimit,
        loads: impl Iterator<Item = (usize, &'a Load)> + Clone,
        is_usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut earlier = self.waiting.range(..ticket.unwrap_or(Ticket::MAX));
        let mut kept_free = None;
        if let Some((_, first)) = earlier.next() {
            let mut all = std::iter::once(first).chain(earlier.map(|(_, limit)| limit));
            if limit.is_quarantined() || !all.all(|limit| limit.is_quarantined()) {
                return None;
            }
            let requests = |(_, load): &(usize, &Load)| load.requests;
            kept_free = loads.clone().min_by_key(requests).map(|(index, _)| index);
        }
        let loads = loads.filter(|&(index, load)| {
            kept_free != Some(index) && load.has_room(limit) && is_usable(index)
        });
        let least = loads.min_by_key(|(_, load)| load.requests + load.expected);
        least.map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const ALONE: ConcurrencyLimit = ConcurrencyLimit(1);

    fn lost(losses: u32) -> Losses {
        Losses(losses)
    }

    fn choose(
        queue: &Queue,
        ticket: Option<Ticket>,
        limit: ConcurrencyLimit,
        loads: &[Load],
    ) -> Option<usize> {
        queue.choose(ticket, limit, loads.iter().enumerate(), |_| true)
    }

    fn load(limits: &[ConcurrencyLimit]) -> Load {
        let mut load = Load::default();
        limits.iter().for_each(|&limit| load.add(limit));
        load
    }

    #[test]
    fn limits_shrink_and_a_request_is_poison_only_after_losses_alone() {
        let limit = |losses| lost(losses).concurrency_limit();
        assert_eq!([limit(0), limit(1)], [ConcurrencyLimit::ANY; 2]);
        assert_eq!(limit(2), ConcurrencyLimit(SMALL_GROUP));
        assert_eq!([limit(3), limit(4)], [ALONE; 2]);
        assert!(!lost(4).is_poison());
        assert!(lost(5).is_poison());
    }

    #[test]
    fn chooses_the_usable_process_with_the_fewest_requests() {
        let queue = Queue::default();
        let loads = [load(&[ConcurrencyLimit::ANY]), load(&[]), load(&[])];
        assert_eq!(choose(&queue, None, ConcurrencyLimit::ANY, &loads), Some(1));
        let usable = |index| index == 0;
        let found = queue.choose(
            None,
            ConcurrencyLimit::ANY,
            loads.iter().enumerate(),
            usable,
        );
        assert_eq!(found, Some(0));
        assert_eq!(choose(&queue, None, ConcurrencyLimit::ANY, &[]), None);
    }

    #[test]
    fn a_request_that_must_be_alone_shares_no_process() {
        let queue = Queue::default();
        let mut loads = [load(&[ALONE])];
        assert_eq!(choose(&queue, None, ConcurrencyLimit::ANY, &loads), None);
        loads[0].remove(ALONE);
        assert!(loads[0].quarantined.is_empty());
        assert_eq!(choose(&queue, None, ALONE, &loads), Some(0));
        loads[0].add(ConcurrencyLimit::ANY);
        assert_eq!(choose(&queue, None, ALONE, &loads), None);
    }

    #[test]
    fn the_smallest_limit_in_a_group_holds_for_all_requests_in_it() {
        let queue = Queue::default();
        let mut loads = [load(&[ConcurrencyLimit(3), ConcurrencyLimit::ANY])];
        assert_eq!(choose(&queue, None, ConcurrencyLimit::ANY, &loads), Some(0));
        loads[0].add(ConcurrencyLimit::ANY);
        assert_eq!(choose(&queue, None, ConcurrencyLimit::ANY, &loads), None);
        assert_eq!(choose(&queue, None, ConcurrencyLimit(8), &loads), None);
    }

    #[test]
    fn keeps_one_process_free_for_a_waiting_quarantined_request() {
        let mut queue = Queue::default();
        let first = queue.enter(ALONE);
        let mut loads = [
            load(&[ConcurrencyLimit::ANY; 2]),
            load(&[ConcurrencyLimit::ANY]),
        ];
        assert_eq!(choose(&queue, Some(first), ALONE, &loads), None);
        // Other requests do not go to the process that it waits for.
        assert_eq!(choose(&queue, None, ConcurrencyLimit::ANY, &loads), Some(0));
        assert_eq!(
            choose(&queue, None, ConcurrencyLimit::ANY, &loads[1..]),
            None
        );
        loads[1].remove(ConcurrencyLimit::ANY);
        assert_eq!(choose(&queue, Some(first), ALONE, &loads), Some(1));
    }

    #[test]
    fn requests_wait_for_earlier_requests() {
        const ANY: ConcurrencyLimit = ConcurrencyLimit::ANY;
        let mut queue = Queue::default();
        let [first, second] = [queue.enter(ANY), queue.enter(ANY)];
        let last = queue.enter(ALONE);
        let loads = [load(&[]), load(&[ANY])];
        let chosen = |queue: &Queue, ticket, limit| choose(queue, ticket, limit, &loads);
        assert_eq!(chosen(&queue, Some(second), ANY), None);
        assert_eq!(chosen(&queue, None, ANY), None, "a newcomer comes last");
        assert_eq!(chosen(&queue, Some(last), ALONE), None);
        assert_eq!(chosen(&queue, Some(first), ANY), Some(0));
        queue.leave(first);
        assert_eq!(chosen(&queue, Some(second), ANY), Some(0));
        queue.reenter(first, ANY);
        assert_eq!(
            chosen(&queue, Some(second), ANY),
            None,
            "the first request is back"
        );
        queue.leave(first);
        queue.leave(second);
        assert_eq!(chosen(&queue, Some(last), ALONE), Some(0));
        // A request that is not quarantined passes one that is.
        assert_eq!(chosen(&queue, None, ANY), Some(1));
        assert_eq!(chosen(&queue, None, ALONE), None);
        queue.leave(last);
        assert_eq!(queue.next(None), None);
    }

    #[test]
    fn next_walks_the_queue_in_order_of_arrival() {
        let mut queue = Queue::default();
        let tickets = [ConcurrencyLimit::ANY, ALONE, ConcurrencyLimit(8)].map(|l| queue.enter(l));
        assert_eq!(queue.next(None), Some((tickets[0], ConcurrencyLimit::ANY)));
        assert_eq!(queue.next(Some(tickets[0])), Some((tickets[1], ALONE)));
        queue.leave(tickets[1]);
        let last = Some((tickets[2], ConcurrencyLimit(8)));
        assert_eq!(queue.next(Some(tickets[0])), last);
        assert_eq!(queue.next(Some(tickets[2])), None);
    }

    /// Simulates one process in rounds. The requests sent in a round are answered, unless one of them is poison or the
    /// process is killed from outside. Returns the numbers of the requests that were answered and of those that were
    /// given up, and how often the process ended.
    fn simulate(
        requests: usize,
        poison: &[usize],
        is_killed: impl Fn(usize) -> bool,
    ) -> (Vec<usize>, Vec<usize>, usize) {
        let mut queue = Queue::default();
        let mut losses = vec![Losses::default(); requests];
        let mut waiting: VecDeque<(usize, Ticket)> = (0..requests)
            .map(|request| (request, queue.enter(ConcurrencyLimit::ANY)))
            .collect();
        let (mut answered, mut given_up, mut deaths) = (Vec::new(), Vec::new(), 0);
        for round in 0..10_000 {
            if waiting.is_empty() {
                break;
            }
            let mut at_process = load(&[]);
            let mut sent = Vec::new();
            waiting.retain(|&(request, ticket)| {
                let limit = losses[request].concurrency_limit();
                let loads = std::slice::from_ref(&at_process);
                let goes = choose(&queue, Some(ticket), limit, loads).is_some();
                if goes {
                    at_process.add(limit);
                    queue.leave(ticket);
                    sent.push(request);
                }
                !goes
            });
            assert!(!sent.is_empty(), "deadlock");
            let dies = is_killed(round) || sent.iter().any(|request| poison.contains(request));
            if !dies {
                answered.extend(sent);
                continue;
            }
            deaths += 1;
            for request in sent {
                losses[request].add();
                if losses[request].is_poison() {
                    given_up.push(request);
                } else {
                    let ticket = queue.enter(losses[request].concurrency_limit());
                    waiting.push_back((request, ticket));
                }
            }
        }
        answered.sort_unstable();
        given_up.sort_unstable();
        (answered, given_up, deaths)
    }

    #[test]
    fn gives_up_the_poisonous_request_and_no_other() {
        for poison in [0, 31, 63] {
            let (answered, given_up, deaths) = simulate(64, &[poison], |_| false);
            assert_eq!(given_up, [poison]);
            assert_eq!(answered.len(), 63);
            assert_eq!(deaths, 5);
        }
    }

    #[test]
    fn gives_up_many_poisonous_requests_and_no_others() {
        let poison = Vec::from_iter((0..64).step_by(7));
        let (answered, given_up, _) = simulate(64, &poison, |_| false);
        assert_eq!(given_up, poison);
        assert_eq!(answered.len(), 64 - poison.len());
    }

    #[test]
    fn gives_up_no_request_because_of_kills_from_outside() {
        for every in [2, 3, 5] {
            let (answered, given_up, _) = simulate(64, &[], |round| round % every == 0);
            assert!(given_up.is_empty(), "{given_up:?}");
            assert_eq!(answered.len(), 64);
        }
    }
}
