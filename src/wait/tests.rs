//! The same tests for coroutines and for threads, and what only coroutines can do.
