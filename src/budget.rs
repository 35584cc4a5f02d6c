//! Memory whose size clients decide: what is received, its conversion, and the answer.
//!
//! Memory is reserved before it is allocated, and a request that finds no room gets an error. Arriving bodies may use
//! the whole limit. Accepted requests may use a sixteenth more for conversions and answers, so that a flood of new bodies
//! cannot keep them from being answered.
//!
//! What a request has already counts against it: a request that needs more together than all there is can never be
//! served, and is told so ([`NoRoom::Ever`]) instead of to try again.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::RequestError;

/// The part of the limit that accepted requests may take beyond it.
const GROWTH_PART: usize = 16;
/// Allocated at once for bytes that may become many.
const FIRST_PIECE_BYTES: usize = 64 << 10;

/// All the memory there is for requests.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
}

/// What memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A head or a body that is being received.
    Arriving,
    /// The conversion or the answer of a request that was received.
    Accepted,
}

/// A reservation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// Other requests use the memory; later there may be enough.
    Now,
    /// With what the request has already, it is more than the limit.
    Ever,
}

impl From<NoRoom> for RequestError {
    fn from(no_room: NoRoom) -> Self {
        match no_room {
            NoRoom::Now => Self::busy(
                "The memory for request bodies is used up; try again, or raise SAGEMAKER_TFS_MAX_BODY_MEMORY_MB.",
            ),
            NoRoom::Ever => Self::new(
                413,
                "The request needs more memory than SAGEMAKER_TFS_MAX_BODY_MEMORY_MB allows.",
            ),
        }
    }
}

impl NoRoom {
    /// The error when it is the answer that finds no room, not the body.
    pub fn for_answer(self) -> RequestError {
        match self {
            Self::Now => self.into(),
            Self::Ever => RequestError::new(
                507,
                "The request and its answer need more memory than SAGEMAKER_TFS_MAX_BODY_MEMORY_MB allows.",
            ),
        }
    }
}

impl Budget {
    /// Room for `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
        })
    }

    /// Bytes that fit in all.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// An empty buffer for bytes of a new request that arrive. Up to `free` bytes of it are not counted.
    pub fn arriving(self: &Arc<Self>, free: usize) -> Buffer {
        let account = Account::new(self);
        Buffer {
            bytes: Vec::new(),
            counted: Some(Reservation::new(&account, Stage::Arriving, free)),
        }
    }
}

/// What one request has of the budget.
#[derive(Debug)]
struct Account {
    budget: Arc<Budget>,
    used: AtomicUsize,
}

impl Account {
    fn new(budget: &Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            budget: Arc::clone(budget),
            used: AtomicUsize::new(0),
        })
    }

    /// Whether it could take so many bytes that arrive.
    fn check(&self, more: usize) -> Result<(), NoRoom> {
        let fits =
            |used: &AtomicUsize| total(used.load(Ordering::Relaxed), more, self.budget.limit);
        fits(&self.used).ok_or(NoRoom::Ever)?;
        fits(&self.budget.used).ok_or(NoRoom::Now)?;
        Ok(())
    }

    /// Takes more, up to `limit` in all.
    fn take(&self, more: usize, limit: usize) -> Result<(), NoRoom> {
        let relaxed = Ordering::Relaxed;
        let fits = |used| total(used, more, limit);
        fits(self.used.load(relaxed)).ok_or(NoRoom::Ever)?;
        let updated = self.budget.used.fetch_update(relaxed, relaxed, fits);
        updated.map_err(|_| NoRoom::Now)?;
        self.used.fetch_add(more, relaxed);
        Ok(())
    }

    fn give_back(&self, less: usize) {
        if less > 0 {
            self.used.fetch_sub(less, Ordering::Relaxed);
            self.budget.used.fetch_sub(less, Ordering::Relaxed);
        }
    }
}

/// What is used together with `more`, if that is within the limit.
fn total(used: usize, more: usize, limit: usize) -> Option<usize> {
    used.checked_add(more).filter(|&total| total <= limit)
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    account: Arc<Account>,
    stage: Stage,
    /// So many bytes are not counted.
    free: usize,
    bytes: usize,
}

impl Reservation {
    fn new(account: &Arc<Account>, stage: Stage, free: usize) -> Self {
        Self {
            account: Arc::clone(account),
            stage,
            free,
            bytes: 0,
        }
    }

    /// Changes the reservation to what a capacity of `capacity` bytes needs.
    fn resize(&mut self, capacity: usize) -> Result<(), NoRoom> {
        let bytes = capacity.saturating_sub(self.free);
        match bytes.checked_sub(self.bytes) {
            None => self.account.give_back(self.bytes - bytes),
            Some(0) => {}
            Some(more) => {
                let whole = self.account.budget.limit;
                let limit = match self.stage {
                    Stage::Arriving => whole,
                    Stage::Accepted => whole + whole / GROWTH_PART,
                };
                self.account.take(more, limit)?;
            }
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.account.give_back(self.bytes);
    }
}

/// Bytes whose memory is reserved before it is allocated. Only the functions here make it grow.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// `None`: bytes whose number no client decides.
    counted: Option<Reservation>,
}

impl Buffer {
    /// An empty buffer of the same request, for what these bytes are converted to.
    pub fn sibling(&self) -> Self {
        Self {
            bytes: Vec::new(),
            counted: self.reservation(Stage::Accepted),
        }
    }

    /// An empty buffer of the same request, for more of it that arrives.
    pub fn arriving_sibling(&self) -> Self {
        Self {
            bytes: Vec::new(),
            counted: self.reservation(Stage::Arriving),
        }
    }

    /// Whether so many bytes more of the same request could arrive now.
    ///
    /// # Errors
    /// When they could not.
    pub fn check_room(&self, bytes: usize) -> Result<(), NoRoom> {
        match &self.counted {
            Some(counted) if bytes > 0 => counted.account.check(bytes),
            _ => Ok(()),
        }
    }

    /// Reserves more memory for the same request.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn beside(&self, bytes: usize) -> Result<Option<Reservation>, NoRoom> {
        self.reserve_at(Stage::Accepted, bytes)
    }

    /// Reserves memory for received bytes of the same request that are kept outside of a buffer.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn arriving_beside(&self, bytes: usize) -> Result<Option<Reservation>, NoRoom> {
        self.reserve_at(Stage::Arriving, bytes)
    }

    fn reserve_at(&self, stage: Stage, bytes: usize) -> Result<Option<Reservation>, NoRoom> {
        let Some(mut reservation) = self.reservation(stage) else {
            return Ok(None);
        };
        reservation.resize(bytes)?;
        Ok(Some(reservation))
    }

    /// An empty reservation for the same request.
    fn reservation(&self, stage: Stage) -> Option<Reservation> {
        let counted = self.counted.as_ref();
        counted.map(|counted| Reservation::new(&counted.account, stage, 0))
    }

    /// Makes room for exactly `more` bytes.
    ///
    /// # Errors
    /// When there is none; nothing has changed then.
    pub fn reserve_exact(&mut self, more: usize) -> Result<(), NoRoom> {
        let capacity = self.bytes.len().checked_add(more).ok_or(NoRoom::Ever)?;
        if capacity > self.bytes.capacity() {
            if let Some(counted) = &mut self.counted {
                counted.resize(capacity)?;
            }
            self.bytes.reserve_exact(more);
        }
        Ok(())
    }

    /// Makes room for `more` bytes, and for some that may follow, up to `most` bytes in all.
    ///
    /// # Errors
    /// When there is none; nothing has changed then.
    pub fn reserve(&mut self, more: usize, most: usize) -> Result<(), NoRoom> {
        let needed = self.bytes.len().checked_add(more).ok_or(NoRoom::Ever)?;
        if needed <= self.bytes.capacity() {
            return Ok(());
        }
        let step = (2 * self.bytes.capacity()).max(FIRST_PIECE_BYTES).min(most);
        if step > needed && self.reserve_exact(step - self.bytes.len()).is_ok() {
            return Ok(());
        }
        self.reserve_exact(more)
    }

    /// Makes room for the `likely` size of a conversion, or at least for `least` bytes.
    ///
    /// # Errors
    /// When there is not even room for those; nothing has changed then.
    pub fn reserve_likely(&mut self, likely: usize, least: usize) -> Result<(), NoRoom> {
        self.reserve_exact(likely)
            .or_else(|_| self.reserve_exact(least))
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// When there is no room for them; nothing has changed then.
    pub fn extend(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.reserve(bytes.len(), usize::MAX)?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Bytes it has room for without growing.
    pub fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// The bytes. Callers may append at most [`Buffer::room`] bytes.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Removes so many bytes from the start.
    pub fn consume(&mut self, amount: usize) {
        if amount == self.bytes.len() {
            self.bytes.clear();
        } else if amount > 0 {
            self.bytes.drain(..amount);
        }
    }

    /// From now on, `free` bytes are not counted.
    pub fn set_free(&mut self, free: usize) {
        if let Some(counted) = &mut self.counted {
            counted.free = free;
        }
    }

    /// Frees unused capacity, and counts all but `free` bytes from now on.
    ///
    /// # Errors
    /// When there is no room for bytes that were not counted before.
    pub fn settle(&mut self, free: usize) -> Result<(), NoRoom> {
        self.bytes.shrink_to_fit();
        self.set_free(free);
        let counted = self.counted.as_mut();
        counted.map_or(Ok(()), |counted| counted.resize(self.bytes.capacity()))
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Buffer {}

impl From<Vec<u8>> for Buffer {
    /// For bytes whose number no client decides; they are not counted.
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            counted: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether so many bytes of a new request could arrive.
    fn has_room(budget: &Arc<Budget>, bytes: usize) -> bool {
        budget.arriving(0).check_room(bytes).is_ok()
    }

    #[test]
    fn new_bodies_must_fit_and_accepted_ones_may_grow_by_a_sixteenth() {
        let budget = Budget::new(800);
        let (mut first, mut second) = (budget.arriving(0), budget.arriving(0));
        assert_eq!(first.reserve_exact(500), Ok(()));
        assert_eq!(first.reserve_exact(100), Ok(()), "it has that already");
        assert_eq!(second.reserve_exact(301), Err(NoRoom::Now));
        assert_eq!(second.reserve_exact(801), Err(NoRoom::Ever));
        assert_eq!(second.reserve_exact(300), Ok(()));
        assert!(has_room(&budget, 0) && !has_room(&budget, 1));
        let mut answer = budget.arriving(0).sibling();
        assert_eq!(answer.reserve_exact(51), Err(NoRoom::Now));
        assert_eq!(answer.reserve_exact(851), Err(NoRoom::Ever));
        assert_eq!(answer.extend(&[1; 50]), Ok(()));
        assert!(has_room(&budget, 0), "a request without a body always fits");
        drop((first, second, answer));
        assert!(has_room(&budget, 800) && !has_room(&budget, usize::MAX));
    }

    #[test]
    fn what_a_request_has_already_counts_against_it() {
        let budget = Budget::new(800);
        let mut body = budget.arriving(0);
        body.reserve_exact(500).unwrap();
        let mut converted = body.sibling();
        assert_eq!(converted.reserve_exact(351), Err(NoRoom::Ever));
        converted.reserve_exact(200).unwrap();
        let mut answer = converted.sibling();
        assert_eq!(answer.reserve_exact(151), Err(NoRoom::Ever));
        assert_eq!(answer.beside(151).err(), Some(NoRoom::Ever));
        // Nor can more of the same request arrive.
        assert_eq!(body.check_room(101), Err(NoRoom::Ever));
        assert_eq!(body.arriving_beside(101).err(), Some(NoRoom::Ever));
        assert_eq!(body.arriving_sibling().extend(&[1; 101]), Err(NoRoom::Ever));
        assert_eq!(body.check_room(100), Ok(()));
        // Other requests are not to blame for that, and it is not to blame for theirs.
        let mut other = budget.arriving(0);
        assert_eq!(other.reserve_exact(101), Err(NoRoom::Now));
        other.reserve_exact(100).unwrap();
        assert_eq!(body.check_room(1), Err(NoRoom::Now));
        assert_eq!(answer.reserve_exact(100), Err(NoRoom::Now));
        // What it gives back it may have again.
        drop(other);
        drop(converted);
        assert_eq!(answer.reserve_exact(350), Ok(()));
        drop((body, answer));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn no_byte_is_allocated_that_is_not_reserved() {
        let budget = Budget::new(1 << 20);
        let mut buffer = budget.arriving(100);
        let mut whole = Vec::new();
        for length in [1, 99, 1, 5000, 70_000, 200_000, 300_000] {
            let piece = vec![b'x'; length];
            buffer.extend(&piece).unwrap();
            whole.extend_from_slice(&piece);
            assert_eq!(&*buffer, whole);
            let used = budget.used.load(Ordering::Relaxed);
            assert_eq!(used, buffer.bytes.capacity().saturating_sub(100));
        }
        let before = (buffer.len(), buffer.room());
        assert_eq!(buffer.extend(&[0; 1 << 20]), Err(NoRoom::Ever));
        assert_eq!((buffer.len(), buffer.room()), before);
        buffer.consume(whole.len() - 10);
        assert_eq!(buffer.len(), 10);
        assert_eq!(buffer.settle(10), Ok(()));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        assert_eq!(buffer.settle(3), Ok(()));
        assert_eq!(budget.used.load(Ordering::Relaxed), 7);
        let _others = budget.arriving(0).arriving_beside((1 << 20) - 7).unwrap();
        assert_eq!(buffer.settle(2), Err(NoRoom::Now));
    }

    #[test]
    fn what_does_not_fit_doubled_may_fit_as_it_is() {
        let budget = Budget::new(100_000);
        let mut buffer = budget.arriving(0);
        buffer.extend(&[0; 60_000]).unwrap();
        assert_eq!(buffer.extend(&[0; 40_000]), Ok(()));
        assert_eq!(buffer.room(), 0);
        let mut announced = Budget::new(1 << 30).arriving(0);
        announced.reserve(1, 10).unwrap();
        assert_eq!(announced.room(), 10, "no more than may come");
    }
}
