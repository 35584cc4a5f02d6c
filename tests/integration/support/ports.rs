//! Free ports for tests that run beside each other, in threads and in other processes.
//!
//! Ports are handed out in blocks below the range from which the system takes ports for outgoing connections, so
//! that nobody gets one by accident. A block is taken by binding the UDP port of its first number: that locks it
//! against other test processes, and the lock goes with the process, however it ends.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports in a block: one for the front and two for each of up to seven instances.
const BLOCK: u16 = 16;
const FIRST: u16 = 20_000;
const BLOCKS: u16 = 750;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A block of free consecutive ports, ours until dropped.
#[derive(Debug)]
pub struct Ports {
    pub first: u16,
    _lock: UdpSocket,
}

impl Ports {
    /// Takes a block.
    ///
    /// # Panics
    /// When there is none.
    pub fn take() -> Self {
        // Test processes that run at the same time start at different places.
        let offset = (std::process::id() * 31 % u32::from(BLOCKS)) as u16;
        for _ in 0..BLOCKS {
            let block = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(offset) % BLOCKS;
            let first = FIRST + block * BLOCK;
            if let Ok(lock) = UdpSocket::bind((Ipv4Addr::LOCALHOST, first))
                && (first..first + BLOCK).all(is_free)
            {
                return Self { first, _lock: lock };
            }
        }
        panic!("no {BLOCK} free consecutive ports");
    }
}

/// Whether a server could listen on this port now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}
