//! Of requests that are lost together when a process ends, which one ends it? As data: no clock, no threads.
//!
//! A request that was lost is sent again, as often as its deadline allows. But it may be the request that ends the
//! process, again and again, and everything beside it is lost each time. It is found out by its company: a request
//! that was lost often is sent beside few others, and in the end alone. Only what is lost alone is given up, so
//! bad luck in company costs nobody more than time. Both pools, of model servers and of Python workers, go by this.

use std::collections::BTreeMap;

/// Losses in any company; those who were lost by chance are mostly answered by then.
const IN_ANY_COMPANY: u32 = 2;
/// Then losses in small company: of the 64 requests that are under way at most, each goes through few such groups.
const IN_SMALL_COMPANY: u32 = 1;
/// How many make a small company: about the root of their number, so that there are as many groups as members.
const SMALL_COMPANY: usize = 8;
/// Then losses alone, after which it is the request's own doing: twice, for once may be chance.
const ALONE: u32 = 2;

/// How often a request was lost when a process ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses(u32);

/// How many requests may be at a process at most, together with the one that this is said of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Company(usize);

impl Losses {
    /// It was lost once more.
    pub fn add(&mut self) {
        self.0 += 1;
    }

    /// How often it was lost.
    pub fn count(self) -> u32 {
        self.0
    }

    /// Beside how many it may be sent next.
    pub fn company(self) -> Company {
        const SMALL: u32 = IN_ANY_COMPANY + IN_SMALL_COMPANY;
        match self.0 {
            ..IN_ANY_COMPANY => Company::ANY,
            IN_ANY_COMPANY..SMALL => Company(SMALL_COMPANY),
            SMALL.. => Company(1),
        }
    }

    /// Whether the request must be what ends the process, as far as can be told from outside.
    pub fn is_guilty(self) -> bool {
        self.0 >= IN_ANY_COMPANY + IN_SMALL_COMPANY + ALONE
    }
}

impl Company {
    /// As many as there are.
    pub const ANY: Self = Self(usize::MAX);

    fn is_suspect(self) -> bool {
        self != Self::ANY
    }
}

/// The requests that are at one process.
#[derive(Debug, Default)]
pub struct Load {
    /// How many.
    pub requests: usize,
    /// What the suspects among them ask for.
    suspects: Vec<Company>,
}

impl Load {
    /// A request has come.
    pub fn add(&mut self, company: Company) {
        self.requests += 1;
        if company.is_suspect() {
            self.suspects.push(company);
        }
    }

    /// A request has left.
    pub fn remove(&mut self, company: Company) {
        self.requests -= 1;
        if let Some(place) = self.suspects.iter().position(|&other| other == company) {
            self.suspects.swap_remove(place);
        }
    }

    /// Whether there are suspects among them: then others may wait for one to leave.
    pub fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    fn has_room(&self, company: Company) -> bool {
        let limit = self.suspects.iter().fold(company, |a, &b| a.min(b));
        self.requests < limit.0
    }
}

/// Who waits to be sent. A suspect waits until all who came before it are gone, and one process is then kept free for
/// it; else there is no order.
#[derive(Debug, Default)]
pub struct Queue {
    last: u64,
    waiting: BTreeMap<u64, Company>,
}

/// A place in the queue.
pub type Ticket = u64;

impl Queue {
    /// Somebody begins to wait.
    pub fn enter(&mut self, company: Company) -> Ticket {
        self.last += 1;
        self.waiting.insert(self.last, company);
        self.last
    }

    /// Waits no more. Says whether everybody is to look again: others may have waited behind a suspect, and it may be
    /// the last of them that leaves.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        let had_suspects = self.has_suspects();
        self.waiting.remove(&ticket);
        had_suspects
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many wait.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether suspects wait: then everybody is to look again whenever something changes.
    pub fn has_suspects(&self) -> bool {
        self.waiting.values().any(|company| company.is_suspect())
    }

    /// The process that a request may be sent to now, if any: of those in `loads` the one with the least to do.
    /// `is_usable` says whether it takes requests just now. A request without a ticket is newer than all that wait.
    pub fn choose<'a>(
        &self,
        ticket: Option<Ticket>,
        company: Company,
        loads: impl Iterator<Item = (usize, &'a Load)> + Clone,
        is_usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut earlier = self.waiting.range(..ticket.unwrap_or(u64::MAX));
        let requests = |(_, load): &(usize, &Load)| load.requests;
        let mut kept_free = None;
        if company.is_suspect() {
            if earlier.next().is_some() {
                return None;
            }
        } else if earlier.any(|(_, company)| company.is_suspect()) {
            kept_free = loads.clone().min_by_key(requests).map(|(index, _)| index);
        }
        let loads = loads.filter(|&(index, load)| {
            kept_free != Some(index) && load.has_room(company) && is_usable(index)
        });
        loads.min_by_key(requests).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const ALONE: Company = Company(1);

    fn suspect(losses: u32) -> Losses {
        Losses(losses)
    }

    fn choose(
        queue: &Queue,
        ticket: Option<Ticket>,
        company: Company,
        loads: &[Load],
    ) -> Option<usize> {
        queue.choose(ticket, company, loads.iter().enumerate(), |_| true)
    }

    fn load(companies: &[Company]) -> Load {
        let mut load = Load::default();
        companies.iter().for_each(|&company| load.add(company));
        load
    }

    #[test]
    fn company_gets_smaller_and_only_losses_alone_are_the_last() {
        let company = |losses| suspect(losses).company();
        assert_eq!([company(0), company(1)], [Company::ANY; 2]);
        assert_eq!(company(2), Company(SMALL_COMPANY));
        assert_eq!([company(3), company(4)], [ALONE; 2]);
        assert!(!suspect(4).is_guilty());
        assert!(suspect(5).is_guilty());
    }

    #[test]
    fn the_one_with_the_least_to_do_is_taken() {
        let queue = Queue::default();
        let loads = [load(&[Company::ANY]), load(&[]), load(&[])];
        assert_eq!(choose(&queue, None, Company::ANY, &loads), Some(1));
        let usable = |index| index == 0;
        let found = queue.choose(None, Company::ANY, loads.iter().enumerate(), usable);
        assert_eq!(found, Some(0));
        assert_eq!(choose(&queue, None, Company::ANY, &[]), None);
    }

    #[test]
    fn nobody_joins_one_that_must_be_alone() {
        let queue = Queue::default();
        let mut loads = [load(&[ALONE])];
        assert_eq!(choose(&queue, None, Company::ANY, &loads), None);
        loads[0].remove(ALONE);
        assert!(!loads[0].has_suspects());
        assert_eq!(choose(&queue, None, ALONE, &loads), Some(0));
        loads[0].add(Company::ANY);
        assert_eq!(choose(&queue, None, ALONE, &loads), None);
    }

    #[test]
    fn a_small_company_has_a_limit_for_all_in_it() {
        let queue = Queue::default();
        let mut loads = [load(&[Company(3), Company::ANY])];
        assert_eq!(choose(&queue, None, Company::ANY, &loads), Some(0));
        loads[0].add(Company::ANY);
        assert_eq!(choose(&queue, None, Company::ANY, &loads), None);
        assert_eq!(choose(&queue, None, Company(8), &loads), None);
    }

    #[test]
    fn one_process_is_kept_free_for_a_suspect_that_waits() {
        let mut queue = Queue::default();
        let first = queue.enter(ALONE);
        let mut loads = [load(&[Company::ANY; 2]), load(&[Company::ANY])];
        assert_eq!(choose(&queue, Some(first), ALONE, &loads), None);
        // Others do not fill up the place that it waits for.
        assert_eq!(choose(&queue, None, Company::ANY, &loads), Some(0));
        assert_eq!(choose(&queue, None, Company::ANY, &loads[1..]), None);
        loads[1].remove(Company::ANY);
        assert_eq!(choose(&queue, Some(first), ALONE, &loads), Some(1));
    }

    #[test]
    fn a_suspect_waits_for_those_before_it_and_others_do_not_wait_for_each_other() {
        let mut queue = Queue::default();
        let [old, older] = [queue.enter(Company::ANY), queue.enter(Company::ANY)];
        let last = queue.enter(ALONE);
        let loads = [load(&[])];
        assert!(queue.has_suspects());
        assert_eq!(choose(&queue, Some(last), ALONE, &loads), None);
        assert_eq!(choose(&queue, Some(older), Company::ANY, &loads), Some(0));
        queue.leave(old);
        queue.leave(older);
        assert_eq!(choose(&queue, Some(last), ALONE, &loads), Some(0));
        queue.leave(last);
        assert!(queue.is_empty());
    }

    /// One process, rounds of time: what was sent is answered in the round after, unless a guilty one is beside it,
    /// or the process is killed from outside. Gives the losses of each request that was answered, and of each that
    /// was given up, by its number.
    fn play(
        requests: usize,
        guilty: &[usize],
        is_killed: impl Fn(usize) -> bool,
    ) -> (Vec<usize>, Vec<usize>, usize) {
        let mut queue = Queue::default();
        let mut losses = vec![Losses::default(); requests];
        let mut waiting: VecDeque<(usize, Ticket)> = (0..requests)
            .map(|request| (request, queue.enter(Company::ANY)))
            .collect();
        let (mut answered, mut given_up, mut deaths) = (Vec::new(), Vec::new(), 0);
        for round in 0..10_000 {
            if waiting.is_empty() {
                break;
            }
            let mut at_process = load(&[]);
            let mut sent = Vec::new();
            waiting.retain(|&(request, ticket)| {
                let company = losses[request].company();
                let loads = std::slice::from_ref(&at_process);
                let goes = choose(&queue, Some(ticket), company, loads).is_some();
                if goes {
                    at_process.add(company);
                    queue.leave(ticket);
                    sent.push(request);
                }
                !goes
            });
            assert!(!sent.is_empty(), "everybody waits for somebody");
            let dies = is_killed(round) || sent.iter().any(|request| guilty.contains(request));
            if !dies {
                answered.extend(sent);
                continue;
            }
            deaths += 1;
            for request in sent {
                losses[request].add();
                if losses[request].is_guilty() {
                    given_up.push(request);
                } else {
                    let ticket = queue.enter(losses[request].company());
                    waiting.push_back((request, ticket));
                }
            }
        }
        answered.sort_unstable();
        given_up.sort_unstable();
        (answered, given_up, deaths)
    }

    #[test]
    fn the_guilty_one_is_given_up_and_nobody_else() {
        for guilty in [0, 31, 63] {
            let (answered, given_up, deaths) = play(64, &[guilty], |_| false);
            assert_eq!(given_up, [guilty]);
            assert_eq!(answered.len(), 63);
            assert_eq!(deaths, 5);
        }
    }

    #[test]
    fn many_guilty_ones_are_given_up_and_nobody_else() {
        let guilty = Vec::from_iter((0..64).step_by(7));
        let (answered, given_up, _) = play(64, &guilty, |_| false);
        assert_eq!(given_up, guilty);
        assert_eq!(answered.len(), 64 - guilty.len());
    }

    #[test]
    fn kills_from_outside_are_nobodys_guilt() {
        for every in [2, 3, 5] {
            let (answered, given_up, _) = play(64, &[], |round| round % every == 0);
            assert!(given_up.is_empty(), "{given_up:?}");
            assert_eq!(answered.len(), 64);
        }
    }
}
