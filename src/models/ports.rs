//! The ports that models may have in multi-model mode.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};

use crate::config::InstancePorts;
use crate::wait::Mutex;

/// Free pairs of ports.
#[derive(Debug)]
pub struct PortPool {
    /// The first of each pair, which is for gRPC.
    free: Mutex<BTreeSet<u16>>,
}

impl PortPool {
    /// Pairs within `low..=high`, without `taken`, which the front listens on.
    pub fn new(low: u16, high: u16, taken: u16) -> Self {
        // A pair is two ports, so of an odd number one is left over.
        let pairs = (high - low) / 2;
        let firsts = (0..pairs).map(|pair| low + 2 * pair);
        Self {
            free: Mutex::new(firsts.filter(|&p| p != taken && p + 1 != taken).collect()),
        }
    }

    /// Takes pairs for this many instances. Those that another program uses are passed over.
    pub fn take(&self, instances: usize) -> Option<Vec<InstancePorts>> {
        let mut free = self.free.lock();
        let usable = free
            .iter()
            .copied()
            .filter(|&p| is_usable(p) && is_usable(p + 1));
        let firsts: Vec<u16> = usable.take(instances).collect();
        if firsts.len() < instances {
            return None;
        }
        let pair = |grpc| InstancePorts {
            grpc,
            rest: grpc + 1,
        };
        firsts.iter().for_each(|first| {
            free.remove(first);
        });
        Some(firsts.into_iter().map(pair).collect())
    }

    /// Gives pairs back.
    pub fn give_back(&self, ports: &[InstancePorts]) {
        let mut free = self.free.lock();
        free.extend(ports.iter().map(|pair| pair.grpc));
    }
}

fn is_usable(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_range_has_499_pairs() {
        let pool = PortPool::new(9000, 9999, 8080);
        let free = pool.free.lock();
        assert_eq!(free.len(), 499);
        assert_eq!(free.last(), Some(&9996));
    }

    #[test]
    fn the_fronts_own_port_is_left_out() {
        for own in [9000, 9001] {
            let pool = PortPool::new(9000, 9003, own);
            assert!(pool.free.lock().is_empty());
        }
    }

    #[test]
    fn pairs_are_taken_given_back_and_passed_over() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let used = listener.local_addr().unwrap().port();
        let pool = PortPool::new(used, used + 4, 0);
        assert_eq!(pool.take(2), None);
        let Some(taken) = pool.take(1) else {
            return; // the next two ports are in use too, by somebody else
        };
        assert_eq!(taken[0].grpc, used + 2);
        assert_eq!(pool.take(1), None);
        pool.give_back(&taken);
        assert_eq!(pool.take(1), Some(taken));
    }
}
