//! The memory budget for everything whose size a client controls: received heads and bodies, converted bodies,
//! responses.
//!
//! A [`Buffer`] reserves memory before it allocates, and a request for which no memory is left gets an error. Arriving
//! bodies may use the whole limit. Accepted requests may use a sixteenth more for conversions and responses, so that a
//! flood of new bodies cannot starve them.
//!
//! The budget also keeps an account for each request. A request that alone needs more than the limit can never be
//! served, so it gets [`NoRoom::Ever`] instead of an invitation to try again.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::RequestError;

/// Accepted requests may exceed the limit by the limit divided by this.
const GROWTH_DIVISOR: usize = 16;
/// First allocation of a buffer that is likely to grow.
const FIRST_ALLOCATION_BYTES: usize = 64 << 10;

/// The memory that all requests together may use.
#[derive(Debug)]
pub struct Budget {
    /// In bytes.
    limit: usize,
    used: AtomicUsize,
}

/// What a reservation is for. It decides which limit applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A head or body that is being received.
    Arriving,
    /// The conversion or the response of a request that was received.
    Accepted,
}

/// Why a reservation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// Other requests use the memory. A later attempt may succeed.
    Now,
    /// Together with what the request holds already, the reservation exceeds the limit.
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
    /// The error when the response does not fit, rather than the request.
    pub fn for_response(self) -> RequestError {
        match self {
            Self::Now => self.into(),
            Self::Ever => RequestError::new(
                507,
                "The request and its response need more memory than SAGEMAKER_TFS_MAX_BODY_MEMORY_MB allows.",
            ),
        }
    }
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
        })
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Opens an account for a new request and returns an empty buffer for its bytes. The first `uncounted` bytes of the
    /// buffer do not count against the budget.
    pub fn arriving(self: &Arc<Self>, uncounted: usize) -> Buffer {
        let account = Account::new(self);
        Buffer {
            bytes: Vec::new(),
            counted: Some(Reservation::new(&account, Stage::Arriving, uncounted)),
        }
    }
}

/// The memory that one request uses.
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

    /// Checks that `more` arriving bytes would fit.
    fn check(&self, more: usize) -> Result<(), NoRoom> {
        let fits =
            |used: &AtomicUsize| total(used.load(Ordering::Relaxed), more, self.budget.limit);
        fits(&self.used).ok_or(NoRoom::Ever)?;
        fits(&self.budget.used).ok_or(NoRoom::Now)?;
        Ok(())
    }

    /// Takes `more` bytes, unless the total exceeds `limit`.
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

/// The sum of `used` and `more`, unless it exceeds the limit.
fn total(used: usize, more: usize, limit: usize) -> Option<usize> {
    used.checked_add(more).filter(|&total| total <= limit)
}

/// A reserved part of the budget. Dropping it releases the memory.
#[derive(Debug)]
pub struct Reservation {
    account: Arc<Account>,
    stage: Stage,
    /// This many bytes of the capacity are not counted.
    uncounted: usize,
    /// Bytes reserved now.
    bytes: usize,
}

impl Reservation {
    fn new(account: &Arc<Account>, stage: Stage, uncounted: usize) -> Self {
        Self {
            account: Arc::clone(account),
            stage,
            uncounted,
            bytes: 0,
        }
    }

    /// Grows or shrinks the reservation to fit a capacity of `capacity` bytes.
    fn resize(&mut self, capacity: usize) -> Result<(), NoRoom> {
        let bytes = capacity.saturating_sub(self.uncounted);
        match bytes.checked_sub(self.bytes) {
            None => self.account.give_back(self.bytes - bytes),
            Some(0) => {}
            Some(more) => {
                let whole = self.account.budget.limit;
                let limit = match self.stage {
                    Stage::Arriving => whole,
                    Stage::Accepted => whole + whole / GROWTH_DIVISOR,
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

/// Bytes whose memory is reserved before it is allocated. Only the methods here grow the allocation.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// `None` if no client controls the number of bytes.
    counted: Option<Reservation>,
}

impl Buffer {
    /// An empty buffer for the same request, for a conversion of these bytes or for the response.
    pub fn sibling(&self) -> Self {
        Self {
            bytes: Vec::new(),
            counted: self.reservation(Stage::Accepted),
        }
    }

    /// An empty buffer for the same request, for more bytes that arrive.
    pub fn arriving_sibling(&self) -> Self {
        Self {
            bytes: Vec::new(),
            counted: self.reservation(Stage::Arriving),
        }
    }

    /// Checks that `bytes` more bytes of the same request could arrive now, without reserving them.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn check_room(&self, bytes: usize) -> Result<(), NoRoom> {
        match &self.counted {
            Some(counted) if bytes > 0 => counted.account.check(bytes),
            _ => Ok(()),
        }
    }

    /// Reserves memory for the same request that is kept outside of a buffer, while it is converted for example.
    ///
    /// # Errors
    /// When the memory is not available.
    pub fn reserve_outside(&self, bytes: usize) -> Result<Option<Reservation>, NoRoom> {
        self.reserve_at(Stage::Accepted, bytes)
    }

    /// Reserves memory for received bytes of the same request that are kept outside of a buffer, such as a parsed head.
    ///
    /// # Errors
    /// When the memory is not available.
    pub fn reserve_arriving_outside(&self, bytes: usize) -> Result<Option<Reservation>, NoRoom> {
        self.reserve_at(Stage::Arriving, bytes)
    }

    fn reserve_at(&self, stage: Stage, bytes: usize) -> Result<Option<Reservation>, NoRoom> {
        let Some(mut reservation) = self.reservation(stage) else {
            return Ok(None);
        };
        reservation.resize(bytes)?;
        Ok(Some(reservation))
    }

    /// An empty reservation on the account of the same request. `None` if the buffer is not counted.
    fn reservation(&self, stage: Stage) -> Option<Reservation> {
        let counted = self.counted.as_ref();
        counted.map(|counted| Reservation::new(&counted.account, stage, 0))
    }

    /// Makes room for exactly `more` additional bytes.
    ///
    /// # Errors
    /// When the memory is not available. The buffer is unchanged then.
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

    /// Makes room for `more` additional bytes. If memory allows, doubles the capacity for bytes that may follow, but
    /// not beyond `most` bytes in all.
    ///
    /// # Errors
    /// When the memory is not available. The buffer is unchanged then.
    pub fn reserve(&mut self, more: usize, most: usize) -> Result<(), NoRoom> {
        let needed = self.bytes.len().checked_add(more).ok_or(NoRoom::Ever)?;
        if needed <= self.bytes.capacity() {
            return Ok(());
        }
        let step = (2 * self.bytes.capacity())
            .max(FIRST_ALLOCATION_BYTES)
            .min(most);
        if step > needed && self.reserve_exact(step - self.bytes.len()).is_ok() {
            return Ok(());
        }
        self.reserve_exact(more)
    }

    /// Makes room for `likely` additional bytes, the expected size of a conversion, or at least for `least` bytes.
    ///
    /// # Errors
    /// When not even `least` bytes are available. The buffer is unchanged then.
    pub fn reserve_likely(&mut self, likely: usize, least: usize) -> Result<(), NoRoom> {
        self.reserve_exact(likely)
            .or_else(|_| self.reserve_exact(least))
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// When the memory is not available. The buffer is unchanged then.
    pub fn extend(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.reserve(bytes.len(), usize::MAX)?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Bytes that fit without growing the allocation.
    pub fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// The bytes. Callers may append at most [`Buffer::room`] bytes: more would allocate memory that is not reserved.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Removes `amount` bytes from the start.
    pub fn consume(&mut self, amount: usize) {
        if amount == self.bytes.len() {
            self.bytes.clear();
        } else if amount > 0 {
            self.bytes.drain(..amount);
        }
    }

    /// Sets how many bytes do not count against the budget. The next change of the capacity applies it.
    pub fn set_uncounted(&mut self, uncounted: usize) {
        if let Some(counted) = &mut self.counted {
            counted.uncounted = uncounted;
        }
    }

    /// Frees unused capacity, and counts all but `uncounted` bytes from now on.
    ///
    /// # Errors
    /// When bytes that did not count before no longer fit.
    pub fn settle(&mut self, uncounted: usize) -> Result<(), NoRoom> {
        self.bytes.shrink_to_fit();
        self.set_uncounted(uncounted);
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
    /// A buffer of bytes whose number no client controls. It does not count against the budget.
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

    /// Whether `bytes` bytes of a new request could arrive.
    fn has_room(budget: &Arc<Budget>, bytes: usize) -> bool {
        budget.arriving(0).check_room(bytes).is_ok()
    }

    #[test]
    fn new_bodies_stay_within_the_limit_and_accepted_requests_may_exceed_it_by_a_sixteenth() {
        let budget = Budget::new(800);
        let (mut first, mut second) = (budget.arriving(0), budget.arriving(0));
        assert_eq!(first.reserve_exact(500), Ok(()));
        assert_eq!(
            first.reserve_exact(100),
            Ok(()),
            "that much is reserved already"
        );
        assert_eq!(second.reserve_exact(301), Err(NoRoom::Now));
        assert_eq!(second.reserve_exact(801), Err(NoRoom::Ever));
        assert_eq!(second.reserve_exact(300), Ok(()));
        assert!(has_room(&budget, 0) && !has_room(&budget, 1));
        let mut response = budget.arriving(0).sibling();
        assert_eq!(response.reserve_exact(51), Err(NoRoom::Now));
        assert_eq!(response.reserve_exact(851), Err(NoRoom::Ever));
        assert_eq!(response.extend(&[1; 50]), Ok(()));
        assert!(has_room(&budget, 0), "a request without a body always fits");
        drop((first, second, response));
        assert!(has_room(&budget, 800) && !has_room(&budget, usize::MAX));
    }

    #[test]
    fn memory_that_a_request_holds_counts_against_its_own_limit() {
        let budget = Budget::new(800);
        let mut body = budget.arriving(0);
        body.reserve_exact(500).unwrap();
        let mut converted = body.sibling();
        assert_eq!(converted.reserve_exact(351), Err(NoRoom::Ever));
        converted.reserve_exact(200).unwrap();
        let mut response = converted.sibling();
        assert_eq!(response.reserve_exact(151), Err(NoRoom::Ever));
        assert_eq!(response.reserve_outside(151).err(), Some(NoRoom::Ever));
        // More bytes of the same request cannot arrive either.
        assert_eq!(body.check_room(101), Err(NoRoom::Ever));
        assert_eq!(body.reserve_arriving_outside(101).err(), Some(NoRoom::Ever));
        assert_eq!(body.arriving_sibling().extend(&[1; 101]), Err(NoRoom::Ever));
        assert_eq!(body.check_room(100), Ok(()));
        // One request's account does not affect another's: they only share the limit.
        let mut other = budget.arriving(0);
        assert_eq!(other.reserve_exact(101), Err(NoRoom::Now));
        other.reserve_exact(100).unwrap();
        assert_eq!(body.check_room(1), Err(NoRoom::Now));
        assert_eq!(response.reserve_exact(100), Err(NoRoom::Now));
        // Released memory is available again.
        drop(other);
        drop(converted);
        assert_eq!(response.reserve_exact(350), Ok(()));
        drop((body, response));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn every_allocated_byte_is_reserved() {
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
        let _others = budget
            .arriving(0)
            .reserve_arriving_outside((1 << 20) - 7)
            .unwrap();
        assert_eq!(buffer.settle(2), Err(NoRoom::Now));
    }

    #[test]
    fn grows_exactly_when_doubling_does_not_fit() {
        let budget = Budget::new(100_000);
        let mut buffer = budget.arriving(0);
        buffer.extend(&[0; 60_000]).unwrap();
        assert_eq!(buffer.extend(&[0; 40_000]), Ok(()));
        assert_eq!(buffer.room(), 0);
        let mut announced = Budget::new(1 << 30).arriving(0);
        announced.reserve(1, 10).unwrap();
        assert_eq!(announced.room(), 10, "no more than `most`");
    }
}
