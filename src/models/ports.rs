//! The ports for TFS instances in multi-model mode.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};

use crate::config::InstancePorts;
use crate::wait::Mutex;

/// The free pairs of ports.
#[derive(Debug)]
pub struct PortPool {
    /// The first port of each pair, which is for gRPC.
    free: Mutex<BTreeSet<u16>>,
}

impl PortPool {
    /// All pairs within `low..=high` that do not contain `own`, the port on which this server listens.
    pub fn new(low: u16, high: u16, own: u16) -> Self {
        // As many pairs as docs/MULTI_MODEL.md says.
        let pairs = (high - low) / 2;
        let firsts = (0..pairs).map(|pair| low + 2 * pair);
        Self {
            free: Mutex::new(firsts.filter(|&p| p != own && p + 1 != own).collect()),
        }
    }

    /// Takes pairs for this many instances, skipping ports that another program uses. `None` if there are not enough.
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

    /// Makes pairs free again.
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
    fn the_range_9000_to_9999_has_499_pairs() {
        let pool = PortPool::new(9000, 9999, 8080);
        let free = pool.free.lock();
        assert_eq!(free.len(), 499);
        assert_eq!(free.last(), Some(&9996));
    }

    #[test]
    fn leaves_out_the_servers_own_port() {
        for own in [9000, 9001] {
            let pool = PortPool::new(9000, 9003, own);
            assert!(pool.free.lock().is_empty());
        }
    }

    #[test]
    fn takes_and_gives_back_pairs_and_skips_ports_in_use() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let used = listener.local_addr().unwrap().port();
        let pool = PortPool::new(used, used + 4, 0);
        assert_eq!(pool.take(2), None);
        let Some(taken) = pool.take(1) else {
            return; // another program uses the next two ports
        };
        assert_eq!(taken[0].grpc, used + 2);
        assert_eq!(pool.take(1), None);
        pool.give_back(&taken);
        assert_eq!(pool.take(1), Some(taken));
    }
}
