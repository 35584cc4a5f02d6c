//! Makes room for a new connection: chooses the open connection to close.
//!
//! `connection/timing.rs` decides how dispensable a connection is; this file finds and closes the most dispensable one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::http::connection::Dispensable;
use crate::http::socket::Socket;
use crate::http::table::Table;

/// Candidates kept from one search, because a search examines every connection.
const MAX_CANDIDATES: usize = 1024;
/// Pause between searches when the last one found every candidate.
const SEARCH_PAUSE: Duration = Duration::from_millis(100);

/// A reason, since when it has applied, and the id of the connection.
type Candidate = (Dispensable, Instant, u64);

/// Connections that can be closed for new ones, the most dispensable first.
#[derive(Debug, Default)]
pub struct Candidates {
    queue: VecDeque<Candidate>,
    /// When the next search may run, if the last one found every candidate.
    next_search: Option<Instant>,
}

impl Candidates {
    /// Closes the most dispensable connection. Returns false if every connection has to stay. A client that is sending
    /// a request gets a response first, by `turn_away`.
    pub fn make_room<P>(&mut self, table: &Table<P>, turn_away: impl Fn(&Socket<P>)) -> bool {
        loop {
            while let Some(next) = self.queue.pop_front() {
                if close(next, table, &turn_away) {
                    return true;
                }
            }
            let now = Instant::now();
            if self.next_search.is_some_and(|then| now < then) {
                return false;
            }
            self.queue = find(table, now);
            let may_have_more = self.queue.len() == MAX_CANDIDATES;
            self.next_search = (!may_have_more).then_some(now + SEARCH_PAUSE);
            if self.queue.is_empty() {
                return false;
            }
        }
    }
}

/// Finds the most dispensable connections. While it searches, it holds no lock that events need.
fn find<P>(table: &Table<P>, now: Instant) -> VecDeque<Candidate> {
    let all = table.all();
    let found = all.iter().filter_map(|socket| {
        let (what, since) = socket.try_connection()?.dispensable(now)?;
        Some((what, since, socket.id))
    });
    let mut found = Vec::from_iter(found);
    if found.len() > MAX_CANDIDATES {
        found.select_nth_unstable(MAX_CANDIDATES);
        found.truncate(MAX_CANDIDATES);
    }
    found.sort_unstable();
    found.into()
}

/// Closes the connection of a candidate, unless something has happened on it since the search.
fn close<P>(
    (what, since, id): Candidate,
    table: &Table<P>,
    turn_away: impl Fn(&Socket<P>),
) -> bool {
    let Some(socket) = table.get(id) else {
        return false;
    };
    let Some(mut connection) = socket.try_connection() else {
        return false; // its worker is handling it
    };
    let is_unchanged = connection.dispensable(Instant::now()) == Some((what, since));
    // A request may have arrived that its worker has not read yet.
    if !is_unchanged || connection.is_ready(&*socket) {
        return false;
    }
    connection.close();
    drop(connection);
    if matches!(what, Dispensable::Head | Dispensable::SlowBody) {
        turn_away(&socket);
    }
    table.remove(&socket);
    true
}
