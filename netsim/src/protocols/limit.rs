//! The limit that physics sets: for each node the one-way delay from the leader, plus the
//! transmission of k shreds in fragcast's framing over the slower of the leader's uplink and the
//! node's downlink.
//!
//! To reach it everywhere, the leader would have to send to all nodes at once. A node can be faster
//! than its limit where delays break the triangle inequality, as real ones do, and modelled ones
//! with a factor per pair of places: a path by a relay is then faster than the direct one.

use fragcast_shredder::{CodeRate, LossTarget};
use fragcast_turbine::egress::FRAMING;

use crate::link::{LinkConfig, serialisation};
use crate::load::Broadcast;
use crate::world::World;
use crate::{Nanos, NodeId};

/// Bytes on the wire of a shred of fragcast.
pub fn framed_shred(rate: CodeRate) -> u64 {
    // Header 48 + 1, signature 64, and 32 for each level of the tree.
    let shards = usize::from(rate.k) + usize::from(rate.m);
    let path = 32 * u64::from(shards.next_power_of_two().trailing_zeros());
    49 + 64 + u64::from(rate.shard_len) + path + FRAMING as u64
}

/// Fragcast's code rate for one hop with this loss.
pub fn one_hop(bytes: u32, loss: f64) -> CodeRate {
    CodeRate::new(bytes as usize, LossTarget::over_hops(loss, 1, 0.0))
}

/// Bytes of k framed shreds of each set.
pub fn framed_message(bytes: u32, loss: f64) -> u64 {
    let rate = one_hop(bytes, loss);
    u64::from(rate.sets) * u64::from(rate.k) * framed_shred(rate)
}

/// The limit of every node for one message; 0 for the leader.
pub fn times(world: &World, links: &LinkConfig, broadcast: &Broadcast) -> Vec<Nanos> {
    let bytes = framed_message(broadcast.bytes, links.loss.mean());
    let transmission = serialisation(bytes, links.uplink_bps.min(links.downlink_bps));
    (0..world.len() as NodeId)
        .map(|node| match node == broadcast.leader {
            true => 0,
            false => world.delay(broadcast.leader, node) + transmission,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Load;
    use crate::world::sample::line;

    #[test]
    fn the_framing_is_that_of_real_shreds() {
        for bytes in [500, 5_000, 36_000, 144_000] {
            let rate = one_hop(bytes, 0.01);
            let shards = usize::from(rate.k) + usize::from(rate.m);
            let len = 49
                + 64
                + usize::from(rate.shard_len)
                + 32 * fragcast_shredder::merkle::depth(shards);
            assert_eq!(framed_shred(rate), (len + FRAMING) as u64);
        }
    }

    #[test]
    fn the_limit_is_delay_and_transmission() {
        let world = line(4, 4, 10_000_000);
        let load = Load::single(vec![1], 36_000);
        let times = times(&world, &LinkConfig::default(), &load.broadcasts[0]);
        let transmission = framed_message(36_000, 0.01) * 8;
        assert_eq!(times[1], 0);
        assert_eq!(times[3], 20_100_000 + transmission);
        assert!((48_000 * 8..56_000 * 8).contains(&transmission), "{transmission}");
    }
}
