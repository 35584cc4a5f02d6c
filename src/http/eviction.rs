//! Makes room for new connections: decides which open connection is closed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::http::connection::Dispensable;
use crate::http::socket::Socket;
use crate::http::table::Table;

/// Finding candidates means looking at every connection, so this many are noted at once.
const NOTED_DISPENSABLE: usize = 1024;
/// When none was found, how long not to look again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A connection, by number, and since when it is dispensable for this reason.
type Candidate = (Dispensable, Instant, u64);

/// Connections that may be closed for new ones, the most dispensable first.
#[derive(Debug, Default)]
pub struct Candidates {
    queue: VecDeque<Candidate>,
    /// The last search found all there were; the next one is due then.
    look_again: Option<Instant>,
}

impl Candidates {
    /// Closes the most dispensable connection, if there is one. A client in the midst of a request is told first, by
    /// `turn_away`.
    pub fn make_room<P>(&mut self, table: &Table<P>, turn_away: impl Fn(&Socket<P>)) -> bool {
        loop {
            while let Some(next) = self.queue.pop_front() {
                if close(next, table, &turn_away) {
                    return true;
                }
            }
            let now = Instant::now();
            if self.look_again.is_some_and(|then| now < then) {
                return false;
            }
            self.queue = find(table, now);
            let there_may_be_more = self.queue.len() == NOTED_DISPENSABLE;
            self.look_again = (!there_may_be_more).then_some(now + LOOK_AGAIN);
            if self.queue.is_empty() {
                return false;
            }
        }
    }
}

/// Finds the most dispensable connections. Holds no lock that events need while it looks.
fn find<P>(table: &Table<P>, now: Instant) -> VecDeque<Candidate> {
    let all = table.all();
    let found = all.iter().filter_map(|socket| {
        let (what, since) = socket.try_connection()?.dispensable(now)?;
        Some((what, since, socket.id))
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
fn close<P>(
    (what, since, id): Candidate,
    table: &Table<P>,
    turn_away: impl Fn(&Socket<P>),
) -> bool {
    let Some(socket) = table.get(id) else {
        return false;
    };
    let Some(mut connection) = socket.try_connection() else {
        return false; // something has just happened on it
    };
    let is_as_noted = connection.dispensable(Instant::now()) == Some((what, since));
    // A request may have arrived that no worker has read yet.
    if !is_as_noted || connection.is_ready(&*socket) {
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
