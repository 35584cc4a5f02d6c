//! Finds which in-flight request crashes a process. As data: no clock, no threads.
//!
//! A lost request is sent again, as often as its deadline allows. But it may be the one that ends the process, again and
//! again, and takes everything beside it along each time. It is found by exclusion: a request that was lost often is sent
//! beside few others (it is *quarantined*), and in the end alone. Only a request that was lost alone is given up as
//! *poison*, so bad luck beside others costs a request nothing but time. Pools of model servers and of Python workers both
//! go by this.

use std::collections::BTreeMap;

/// Losses beside any number of others; requests lost by chance have mostly been answered by then.
const LOSSES_UNLIMITED: u32 = 2;
/// Then losses in a small group: of the requests in flight each goes through few such groups.
const LOSSES_IN_SMALL_GROUP: u32 = 1;
/// Size of a small group: about the root of the usual number in flight (64), so that there are as many groups as members.
const SMALL_GROUP: usize = 8;
/// Then losses alone, after which it is the request's own doing: twice, for once may be chance.
const LOSSES_ALONE: u32 = 2;

/// How often a request was lost when a process ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses(u32);

/// The most requests that may be at a process together with the one that has this limit, itself included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConcurrencyLimit(usize);

impl Losses {
    /// It was lost once more.
    pub fn add(&mut self) {
        self.0 += 1;
    }

    /// How often it was lost.
    pub fn count(self) -> u32 {
        self.0
    }

    /// The limit with which it may be sent next.
    pub fn concurrency_limit(self) -> ConcurrencyLimit {
        const GROUPED: u32 = LOSSES_UNLIMITED + LOSSES_IN_SMALL_GROUP;
        match self.0 {
            ..LOSSES_UNLIMITED => ConcurrencyLimit::ANY,
            LOSSES_UNLIMITED..GROUPED => ConcurrencyLimit(SMALL_GROUP),
            GROUPED.. => ConcurrencyLimit(1),
        }
    }

    /// Whether the request must be what crashes the process, as far as can be told from outside.
    pub fn is_poison(self) -> bool {
        self.0 >= LOSSES_UNLIMITED + LOSSES_IN_SMALL_GROUP + LOSSES_ALONE
    }
}

impl ConcurrencyLimit {
    /// No limit: the request is not quarantined.
    pub const ANY: Self = Self(usize::MAX);

    /// Whether there is one.
    pub fn is_quarantined(self) -> bool {
        self != Self::ANY
    }
}

/// The requests that are at one process.
#[derive(Debug, Default)]
pub struct Load {
    /// How many.
    pub requests: usize,
    /// Requests that will be sent here soon. They count when requests are spread over processes, but nobody waits for them.
    pub expected: usize,
    /// Limits of the quarantined ones among them.
    quarantined: Vec<ConcurrencyLimit>,
}

impl Load {
    /// A request has come.
    pub fn add(&mut self, limit: ConcurrencyLimit) {
        self.requests += 1;
        if limit.is_quarantined() {
            self.quarantined.push(limit);
        }
    }

    /// A request has left.
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

/// The requests that wait to be sent, in order of arrival. A quarantined one waits until all that came before it are gone,
/// and one process is then kept free for it; those behind it may pass it, but not each other.
#[derive(Debug, Default)]
pub struct Queue {
    last: Ticket,
    waiting: BTreeMap<Ticket, ConcurrencyLimit>,
}

/// A place in the queue.
pub type Ticket = u64;

impl Queue {
    /// A request begins to wait.
    pub fn enter(&mut self, limit: ConcurrencyLimit) -> Ticket {
        self.last += 1;
        self.waiting.insert(self.last, limit);
        self.last
    }

    /// A request that had left waits again, as if it had not left.
    pub fn reenter(&mut self, ticket: Ticket, limit: ConcurrencyLimit) {
        self.waiting.insert(ticket, limit);
    }

    /// A request waits no more.
    pub fn leave(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }

    /// The first request that waits, or the first one behind `ticket`.
    pub fn next(&self, ticket: Option<Ticket>) -> Option<(Ticket, ConcurrencyLimit)> {
        let from = ticket.map_or(0, |ticket| ticket + 1);
        let next = self.waiting.range(from..).next();
        next.map(|(&ticket, &limit)| (ticket, limit))
    }

    /// How many wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The process that a request may be sent to now, if any: of those in `loads` the one with the least to do.
    /// `is_usable` says whether it takes requests just now. A request without a ticket is newer than all that wait.
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
    fn limits_get_smaller_and_only_losses_alone_are_the_last() {
        let limit = |losses| lost(losses).concurrency_limit();
        assert_eq!([limit(0), limit(1)], [ConcurrencyLimit::ANY; 2]);
        assert_eq!(limit(2), ConcurrencyLimit(SMALL_GROUP));
        assert_eq!([limit(3), limit(4)], [ALONE; 2]);
        assert!(!lost(4).is_poison());
        assert!(lost(5).is_poison());
    }

    #[test]
    fn the_one_with_the_least_to_do_is_taken() {
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
    fn nobody_joins_one_that_must_be_alone() {
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
    fn a_small_group_has_a_limit_for_all_in_it() {
        let queue = Queue::default();
        let mut loads = [load(&[ConcurrencyLimit(3), ConcurrencyLimit::ANY])];
        assert_eq!(choose(&queue, None, ConcurrencyLimit::ANY, &loads), Some(0));
        loads[0].add(ConcurrencyLimit::ANY);
        assert_eq!(choose(&queue, None, ConcurrencyLimit::ANY, &loads), None);
        assert_eq!(choose(&queue, None, ConcurrencyLimit(8), &loads), None);
    }

    #[test]
    fn one_process_is_kept_free_for_a_quarantined_request_that_waits() {
        let mut queue = Queue::default();
        let first = queue.enter(ALONE);
        let mut loads = [
            load(&[ConcurrencyLimit::ANY; 2]),
            load(&[ConcurrencyLimit::ANY]),
        ];
        assert_eq!(choose(&queue, Some(first), ALONE, &loads), None);
        // Others do not fill up the place that it waits for.
        assert_eq!(choose(&queue, None, ConcurrencyLimit::ANY, &loads), Some(0));
        assert_eq!(
            choose(&queue, None, ConcurrencyLimit::ANY, &loads[1..]),
            None
        );
        loads[1].remove(ConcurrencyLimit::ANY);
        assert_eq!(choose(&queue, Some(first), ALONE, &loads), Some(1));
    }

    #[test]
    fn requests_wait_for_those_before_them() {
        const ANY: ConcurrencyLimit = ConcurrencyLimit::ANY;
        let mut queue = Queue::default();
        let [first, second] = [queue.enter(ANY), queue.enter(ANY)];
        let last = queue.enter(ALONE);
        let loads = [load(&[]), load(&[ANY])];
        let chosen = |queue: &Queue, ticket, limit| choose(queue, ticket, limit, &loads);
        assert_eq!(chosen(&queue, Some(second), ANY), None);
        assert_eq!(chosen(&queue, None, ANY), None, "a newcomer is the last");
        assert_eq!(chosen(&queue, Some(last), ALONE), None);
        assert_eq!(chosen(&queue, Some(first), ANY), Some(0));
        queue.leave(first);
        assert_eq!(chosen(&queue, Some(second), ANY), Some(0));
        queue.reenter(first, ANY);
        assert_eq!(chosen(&queue, Some(second), ANY), None, "it is back");
        queue.leave(first);
        queue.leave(second);
        assert_eq!(chosen(&queue, Some(last), ALONE), Some(0));
        // One that is not quarantined passes one that is.
        assert_eq!(chosen(&queue, None, ANY), Some(1));
        assert_eq!(chosen(&queue, None, ALONE), None);
        queue.leave(last);
        assert_eq!(queue.next(None), None);
    }

    #[test]
    fn the_queue_is_walked_in_order_of_arrival() {
        let mut queue = Queue::default();
        let tickets = [ConcurrencyLimit::ANY, ALONE, ConcurrencyLimit(8)].map(|l| queue.enter(l));
        assert_eq!(queue.next(None), Some((tickets[0], ConcurrencyLimit::ANY)));
        assert_eq!(queue.next(Some(tickets[0])), Some((tickets[1], ALONE)));
        queue.leave(tickets[1]);
        let last = Some((tickets[2], ConcurrencyLimit(8)));
        assert_eq!(queue.next(Some(tickets[0])), last);
        assert_eq!(queue.next(Some(tickets[2])), None);
    }

    /// One process, rounds of time: what was sent is answered in the round after, unless a poisonous one is beside it,
    /// or the process is killed from outside. Gives the losses of each request that was answered, and of each that
    /// was given up, by its number.
    fn play(
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
            assert!(!sent.is_empty(), "everybody waits for somebody");
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
    fn the_poisonous_one_is_given_up_and_nobody_else() {
        for poison in [0, 31, 63] {
            let (answered, given_up, deaths) = play(64, &[poison], |_| false);
            assert_eq!(given_up, [poison]);
            assert_eq!(answered.len(), 63);
            assert_eq!(deaths, 5);
        }
    }

    #[test]
    fn many_poisonous_ones_are_given_up_and_nobody_else() {
        let poison = Vec::from_iter((0..64).step_by(7));
        let (answered, given_up, _) = play(64, &poison, |_| false);
        assert_eq!(given_up, poison);
        assert_eq!(answered.len(), 64 - poison.len());
    }

    #[test]
    fn kills_from_outside_make_nobody_poison() {
        for every in [2, 3, 5] {
            let (answered, given_up, _) = play(64, &[], |round| round % every == 0);
            assert!(given_up.is_empty(), "{given_up:?}");
            assert_eq!(answered.len(), 64);
        }
    }
}
