//! Coroutines: functions with their own stacks that can be suspended in the middle.
//!
//! `corosensei` switches the stacks. Its interface is safe, but a coroutine can be suspended only through a reference
//! that its body gets. Code that waits may be far below the body, inside `ureq`, which cannot pass that reference on.
//! So this file keeps the reference in a thread-local variable, which needs `unsafe`. In debug builds, `unsafe` code
//! also measures the stacks.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::thread;

use corosensei::stack::DefaultStack;
use corosensei::{CoroutineResult, Yielder};

use super::WaitError;

/// Size of a stack in bytes. Only touched pages take memory. The deepest path of a request uses about 28 KB in debug
/// builds (`opt-level = 1`). Debug builds abort when a coroutine has used more than half of its stack, so tests fail
/// long before a release build gets near the limit. An overflow hits the guard page below the stack: the process ends,
/// and no memory is overwritten.
pub const STACK_BYTES: usize = 128 << 10;

/// How the wait of a coroutine ended, passed to it when it resumes.
pub(super) type Resumed = Result<(), WaitError>;

type Suspender = Yielder<Resumed, ()>;

thread_local! {
    /// Suspends the coroutine that is running on this thread. Null while none is.
    static SUSPENDER: Cell<*const Suspender> = const { Cell::new(ptr::null()) };
}

/// A coroutine with a result of type `R`. It never moves to another thread.
pub(super) struct Coroutine<R>(corosensei::Coroutine<Resumed, (), thread::Result<R>, DefaultStack>);

/// A stack, which can be reused.
pub(super) struct Stack(DefaultStack);

/// Why a coroutine returned control.
pub(super) enum Progress<R> {
    /// It waits.
    Suspended,
    /// It has finished: its result, or an error if it panicked.
    Done(thread::Result<R>),
}

impl Stack {
    /// Maps a new stack.
    pub(super) fn new() -> io::Result<Self> {
        DefaultStack::new(STACK_BYTES).map(Self)
    }

    /// The most bytes that have been in use since the stack was made.
    #[cfg(debug_assertions)]
    fn used(&self) -> usize {
        use corosensei::stack::Stack as _;
        const WORD: usize = size_of::<usize>();
        let base = self.0.base().get();
        let mut address = base - STACK_BYTES;
        // SAFETY: the stack is STACK_BYTES readable bytes below its base, which nothing uses now. New pages are zero.
        while address < base && unsafe { ptr::read_volatile(address as *const usize) } == 0 {
            address += WORD;
        }
        base - address
    }
}

impl<R: 'static> Coroutine<R> {
    /// A coroutine that has not started.
    pub(super) fn new(stack: Stack, body: impl FnOnce() -> R + 'static) -> Self {
        Self(corosensei::Coroutine::with_stack(
            stack.0,
            move |suspender: &Suspender, _| {
                SUSPENDER.set(ptr::from_ref(suspender));
                catch_unwind(AssertUnwindSafe(body))
            },
        ))
    }

    /// Runs the coroutine until its next wait or its end. Only its own thread may call this, and not from a coroutine.
    pub(super) fn resume(&mut self, how: Resumed) -> Progress<R> {
        debug_assert!(SUSPENDER.get().is_null(), "coroutines do not nest");
        let result = self.0.resume(how);
        // The coroutine no longer runs, so it must not be suspended.
        SUSPENDER.set(ptr::null());
        match result {
            CoroutineResult::Yield(()) => Progress::Suspended,
            CoroutineResult::Return(result) => Progress::Done(result),
        }
    }

    /// The stack of a coroutine that has finished.
    pub(super) fn into_stack(self) -> Stack {
        let stack = Stack(self.0.into_stack());
        #[cfg(debug_assertions)]
        if stack.used() > STACK_BYTES / 2 {
            // Aborting fails the test that used so much.
            log::error!(
                "a coroutine used {} bytes of its stack, more than half",
                stack.used()
            );
            log::logger().flush();
            std::process::abort();
        }
        stack
    }
}

/// Suspends the calling coroutine until it is resumed.
pub(super) fn suspend() -> Resumed {
    let suspender = SUSPENDER.get();
    assert!(!suspender.is_null(), "suspend is called in coroutines only");
    // SAFETY: not null, so the coroutine whose body set it runs on this thread now: `resume` sets it to null whenever
    // control leaves a coroutine, and coroutines do not nest. `corosensei` keeps the referent for the whole run of the
    // body.
    let how = unsafe { (*suspender).suspend(()) };
    SUSPENDER.set(suspender);
    how
}
