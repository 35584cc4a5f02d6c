//! A mutex that lets every wait detect guards that are still held.

use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{self, PoisonError, TryLockError};

thread_local! {
    /// Number of guards that this thread holds. Counted in debug builds only.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Number of guards that this thread holds; always 0 in release builds.
pub(super) fn held() -> usize {
    HELD.get()
}

/// A mutex for short critical sections. It has no poisoning: its users keep the data consistent at every point where a
/// panic could happen.
#[derive(Default)]
pub struct Mutex<T>(sync::Mutex<T>);

/// Unlocks its [`Mutex`] when dropped.
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    guard: sync::MutexGuard<'a, T>,
    _count: Count,
}

impl<T> Mutex<T> {
    /// An unlocked mutex.
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// Locks the mutex. The caller must drop the guard before it waits.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.counted(guard)
    }

    /// Locks the mutex unless it is locked.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(self.counted(guard)),
            Err(TryLockError::Poisoned(poisoned)) => Some(self.counted(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn counted<'a>(&'a self, guard: sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        MutexGuard {
            mutex: self,
            guard,
            _count: Count::new(),
        }
    }
}

impl<'a, T> MutexGuard<'a, T> {
    /// The mutex of a guard, to lock it again.
    pub(super) fn mutex(guard: &Self) -> &'a Mutex<T> {
        guard.mutex
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.guard.fmt(f)
    }
}

/// Counts one guard of this thread.
struct Count;

impl Count {
    fn new() -> Self {
        if cfg!(debug_assertions) {
            HELD.set(HELD.get() + 1);
        }
        Self
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            HELD.set(HELD.get() - 1);
        }
    }
}
