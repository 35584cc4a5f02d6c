//! Coroutines: functions with a stack of their own that can be suspended in the middle.
//!
//! `corosensei` switches stacks; its interface is safe, but a coroutine can be suspended only through a reference that its
//! body gets. The code that waits stands far below the body, inside `ureq`, which cannot hand that reference down. So this file keeps
//! it in a thread-local variable, and that is all its `unsafe` code is for.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::thread;

use corosensei::stack::DefaultStack;
use corosensei::{CoroutineResult, Yielder};

use super::WaitError;

/// Bytes of a stack, of which only touched pages take memory. The deepest path of a request uses some 28 KB in debug builds
/// (`opt-level = 1`); they abort when a request has used more than half, so that a test fails long before the limit is near. An
/// overflow ends in the guard page below: the process ends, and no memory is overwritten.
pub const STACK_BYTES: usize = 128 << 10;

/// What resumes a coroutine says how its wait ended.
pub(super) type Resumed = Result<(), WaitError>;

type Suspender = Yielder<Resumed, ()>;

thread_local! {
    /// Of the coroutine that runs on this thread now; null while none does.
    static SUSPENDER: Cell<*const Suspender> = const { Cell::new(ptr::null()) };
}

/// A coroutine, and its result when it is done: an error when it panicked. It never leaves its thread.
pub(super) struct Coroutine<R>(corosensei::Coroutine<Resumed, (), thread::Result<R>, DefaultStack>);

/// A stack, to be used again.
pub(super) struct Stack(DefaultStack);

/// How a coroutine returned control.
pub(super) enum Progress<R> {
    Suspended,
    Done(thread::Result<R>),
}

impl Stack {
    pub(super) fn new() -> io::Result<Self> {
        DefaultStack::new(STACK_BYTES).map(Self)
    }

    /// The most bytes that have been used at once since the stack was made.
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
    /// A coroutine that has not begun.
    pub(super) fn new(stack: Stack, body: impl FnOnce() -> R + 'static) -> Self {
        Self(corosensei::Coroutine::with_stack(
            stack.0,
            move |suspender: &Suspender, _| {
                SUSPENDER.set(ptr::from_ref(suspender));
                catch_unwind(AssertUnwindSafe(body))
            },
        ))
    }

    /// Runs until it waits next, or is done. Called by its thread only, and by no coroutine.
    pub(super) fn resume(&mut self, how: Resumed) -> Progress<R> {
        debug_assert!(SUSPENDER.get().is_null(), "coroutines do not nest");
        let result = self.0.resume(how);
        // The coroutine has control no more, so nobody may suspend it.
        SUSPENDER.set(ptr::null());
        match result {
            CoroutineResult::Yield(()) => Progress::Suspended,
            CoroutineResult::Return(result) => Progress::Done(result),
        }
    }

    /// The stack of a coroutine that is done.
    pub(super) fn into_stack(self) -> Stack {
        let stack = Stack(self.0.into_stack());
        #[cfg(debug_assertions)]
        if stack.used() > STACK_BYTES / 2 {
            // Whichever test comes by here fails.
            log::error!("a request used {} bytes of its stack", stack.used());
            log::logger().flush();
            std::process::abort();
        }
        stack
    }
}

/// Suspends the coroutine that calls this until it is resumed.
pub(super) fn suspend() -> Resumed {
    let suspender = SUSPENDER.get();
    assert!(!suspender.is_null(), "nothing to suspend on this thread");
    // SAFETY: not null, so the coroutine whose body set it runs on this thread now: `resume` sets it to null whenever
    // control leaves a coroutine, and coroutines do not nest. `corosensei` keeps the referent for the whole run of the body.
    let how = unsafe { (*suspender).suspend(()) };
    SUSPENDER.set(suspender);
    how
}
