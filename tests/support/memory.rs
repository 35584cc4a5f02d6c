//! Servers with little memory for requests, and the memory that they take.

use super::{Server, Setup, processes};

/// `SAGEMAKER_TFS_MAX_BODY_MEMORY_MB`.
const LIMIT_MB: usize = 64;
/// The same in bytes.
pub const LIMIT: usize = LIMIT_MB << 20;
/// The most memory that the server may take above what it needs at rest. The quarter is for the growth of accepted
/// requests and for the allocator.
pub const PEAK: usize = LIMIT + LIMIT / 4;

/// A server with that limit.
pub fn start(setup: Setup) -> Server {
    processes::raise_own_file_limit();
    let server = setup
        .var("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB", LIMIT_MB)
        .var("FAKE_TFS_RECORD_REQUESTS", 0)
        .start();
    // So that memory allocated only once is not measured.
    for _ in 0..100 {
        server.assert_serves();
    }
    server
}

/// The peak of the server's resident memory while `run` ran, less its resident memory before, in bytes.
pub fn peak(server: &Server, run: impl FnOnce()) -> usize {
    processes::peak(server.pid(), run)
}
