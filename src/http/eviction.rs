//! Makes room for new connections: decides which open connection is closed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::http::connection::Dispensable;
use crate::http::listener::Listener;

/// Finding candidates means looking at every connection, so this many are noted at once.
const NOTED_DISPENSABLE: usize = 1024;
/// When none was found, how long not to look again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Connections that may be closed for new ones, the most dispensable first.
#[derive(Debug, Default)]
pub struct Candidates {
    queue: VecDeque<(Dispensable, Instant, u64)>,
    /// The last search found all there were; the next one is due then.
    look_again: Option<Instant>,
}

impl<P> Listener<P> {
    /// Closes the most dispensable connection, if there is one.
    pub(super) fn make_room(&self) -> bool {
        let mut noted = self.candidates.lock();
        loop {
            while let Some(next) = noted.queue.pop_front() {
                if self.give_up(next) {
                    return true;
                }
            }
            let now = Instant::now();
            if noted.look_again.is_some_and(|then| now < then) {
                return false;
            }
            noted.queue = self.find_dispensable(now);
            let there_may_be_more = noted.queue.len() == NOTED_DISPENSABLE;
            noted.look_again = (!there_may_be_more).then_some(now + LOOK_AGAIN);
            if noted.queue.is_empty() {
                return false;
            }
        }
    }

    /// Finds the most dispensable connections. Holds no lock that events need while it looks.
    fn find_dispensable(&self, now: Instant) -> VecDeque<(Dispensable, Instant, u64)> {
        let all = self.table.all();
        let found = all.iter().filter_map(|connection| {
            let (what, since) = connection.try_connection()?.dispensable(now)?;
            Some((what, since, connection.id))
        });
        let mut found = Vec::from_iter(found);
        if found.len() > NOTED_DISPENSABLE {
            found.select_nth_unstable(NOTED_DISPENSABLE);
            found.truncate(NOTED_DISPENSABLE);
        }
        found.sort_unstable();
        found.into()
    }

    /// Closes this connection, if it is still as it was noted.
    fn give_up(&self, (what, since, id): (Dispensable, Instant, u64)) -> bool {
        let Some(connection) = self.table.get(id) else {
            return false;
        };
        let Some(mut state) = connection.try_connection() else {
            return false; // something has just happened on it
        };
        let is_as_noted = state.dispensable(Instant::now()) == Some((what, since));
        // A request may have arrived that no worker has read yet.
        if !is_as_noted || state.is_ready(&*connection) {
            return false;
        }
        state.close();
        drop(state);
        if matches!(what, Dispensable::Head | Dispensable::SlowBody) {
            self.turn_away(&connection.stream);
        }
        self.table.remove(&connection);
        true
    }
}
