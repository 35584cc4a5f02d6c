//! A mutex that knows when it is held across a wait.

use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{self, PoisonError, TryLockError};

thread_local! {
    /// Guards that this thread has. Counted in debug builds only.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// How many guards this thread has; 0 in release builds.
pub(super) fn held() -> usize {
    HELD.get()
}

/// A mutex for short critical sections. Data are consistent at every point where a panic could happen, so there is no poisoning.
#[derive(Default)]
pub struct Mutex<T>(sync::Mutex<T>);

/// See [`Mutex::lock`].
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    guard: sync::MutexGuard<'a, T>,
    _count: Count,
}

impl<T> Mutex<T> {
    /// A mutex, unlocked.
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// Locks it. Nothing may be waited for until the guard is dropped.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.counted(guard)
    }

    /// Locks it if nobody else has it.
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
    /// The mutex, to lock it again.
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
