//! Free ports for tests that run at the same time, in threads and in other processes.
//!
//! Ports are handed out in blocks below the range from which the system takes ports for outgoing connections, so no
//! other process gets one by accident. Binding the UDP port with the block's first number locks the block against other
//! test processes, and the system releases the lock however the process ends.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::support::wait_for;

/// A range of ports, cut into blocks. Python's tests take those from 26,000 upwards (tests/harness/ports.py).
struct Stretch {
    first: u16,
    block: u16,
    blocks: u16,
    next: AtomicU16,
}

/// Blocks with one port for the server and two for each of up to seven instances.
static SMALL: Stretch = Stretch {
    first: 20_000,
    block: 16,
    blocks: 375,
    next: AtomicU16::new(0),
};

/// Blocks for hundreds of models. They are few, so a test may have to wait until another test is done.
static LARGE: Stretch = Stretch {
    first: 10_000,
    block: 1_000,
    blocks: 10,
    next: AtomicU16::new(0),
};

/// A block of free consecutive ports, reserved until dropped.
#[derive(Debug)]
pub struct Ports {
    pub first: u16,
    _lock: UdpSocket,
}

impl Ports {
    /// Takes a block of at least `count` ports.
    ///
    /// # Panics
    /// When no block is large enough or becomes free.
    pub fn take(count: u16) -> Self {
        let stretch = if count <= SMALL.block { &SMALL } else { &LARGE };
        assert!(count <= stretch.block, "no blocks of {count} ports");
        let what = format!("{count} free consecutive ports");
        wait_for(&what, || stretch.take(count))
    }
}

impl Stretch {
    fn take(&self, count: u16) -> Option<Ports> {
        // Test processes that run at the same time start at different blocks.
        let offset = (std::process::id() * 31 % u32::from(self.blocks)) as u16;
        (0..self.blocks).find_map(|_| {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let first = self.first + turn.wrapping_add(offset) % self.blocks * self.block;
            let lock = UdpSocket::bind((Ipv4Addr::LOCALHOST, first)).ok()?;
            let all_are_free = (first..first + count).all(is_free);
            all_are_free.then_some(Ports { first, _lock: lock })
        })
    }
}

/// Whether a server could listen on this port now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}
