//! The limit that physics sets: for each node the one-way delay from the leader, plus the
//! transmission of k shreds in fragcast's framing over the slower of the leader's uplink and the
//! node's downlink.
//!
//! To reach it everywhere, the leader would have to send to all nodes at once. A node can be faster
//! than its limit where delays break the triangle inequality, as real ones do, and modelled ones
//! with a factor per pair of places: a path by a relay is then faster than the direct one.
//!
//! The *relayed limit* allows for that. It has the shortest path over any relays in place of the
//! direct one, where every relay takes as long as the engine lets any host take for a packet, and
//! nothing else: no queue, no transmission of its own, no loss. No node of any protocol that sends
//! fragcast's shreds is faster, and no relayed limit is longer than the limit.

use fragcast_shredder::{CodeRate, LossTarget};
use fragcast_turbine::egress::FRAMING;

use crate::link::{LinkConfig, serialisation};
use crate::load::Broadcast;
use crate::world::World;
use crate::{Nanos, NodeId};

/// Bytes on the wire of a shred of fragcast.
pub fn framed_shred(rate: CodeRate) -> u64 {
    (rate.shred_len() + FRAMING) as u64
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

/// The time that the framed shreds of a message take over the slower of two access links.
fn transmission(links: &LinkConfig, broadcast: &Broadcast) -> Nanos {
    let bytes = framed_message(broadcast.bytes, links.loss.mean());
    serialisation(bytes, links.uplink_bps.min(links.downlink_bps))
}

/// The limit of every node for one message; 0 for the leader.
pub fn times(world: &World, links: &LinkConfig, broadcast: &Broadcast) -> Vec<Nanos> {
    let transmission = transmission(links, broadcast);
    (0..world.len() as NodeId)
        .map(|node| match node == broadcast.leader {
            true => 0,
            false => world.delay(broadcast.leader, node) + transmission,
        })
        .collect()
}

/// Delays of the shortest paths from one node to a node at each place, over any relays; each takes
/// the links' `hop` and `packet_cpu`. At the first node's own place it is that to its neighbours
/// there.
///
/// Dijkstra's algorithm without a queue, O(places²): the graph is complete.
pub fn shortest(world: &World, links: &LinkConfig, from: NodeId) -> Vec<Nanos> {
    let places = world.places.len();
    let row = |place: usize| &world.delays[place * places..(place + 1) * places];
    // All nodes of a place have the same delays, so paths are from place to place. One that a
    // shortest path passes always has a relay: a second node at the place of either end would be a
    // detour.
    let mut open = vec![false; places];
    world.nodes.iter().for_each(|node| open[usize::from(node.place)] = true);
    let mut best = row(usize::from(world.nodes[from as usize].place)).to_vec();
    while let Some(next) = (0..places).filter(|at| open[*at]).min_by_key(|at| best[*at]) {
        open[next] = false;
        let relayed = best[next].saturating_add(links.hop + links.packet_cpu);
        for (best, delay) in best.iter_mut().zip(row(next)) {
            *best = (*best).min(relayed.saturating_add(*delay));
        }
    }
    best
}

/// The relayed limit of every node for one message; 0 for the leader. `shortest` is [`shortest`]
/// from the leader.
pub fn relayed_times(
    world: &World,
    links: &LinkConfig,
    broadcast: &Broadcast,
    shortest: &[Nanos],
) -> Vec<Nanos> {
    let transmission = transmission(links, broadcast);
    (0..)
        .zip(&world.nodes)
        .map(|(id, node)| match id == broadcast.leader {
            true => 0,
            false => shortest[usize::from(node.place)] + transmission,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::MILLIS;
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
                + 20 * fragcast_shredder::merkle::depth(shards);
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
        assert!((44_000 * 8..52_000 * 8).contains(&transmission), "{transmission}");
    }

    /// The relayed limit for a frag of 36 kB.
    fn relayed(world: &World, links: &LinkConfig, leader: NodeId) -> Vec<Nanos> {
        let load = Load::single(vec![leader], 36_000);
        relayed_times(world, links, &load.broadcasts[0], &shortest(world, links, leader))
    }

    #[test]
    fn a_relay_is_used_where_a_triangle_is_violated() {
        // From a to c takes 100 ms, and over b 30 + 40.
        let ms = [[1, 30, 100], [30, 1, 40], [100, 40, 1]];
        let world =
            World::from_places(&[("a", 2), ("b", 1), ("c", 2)], |from, to| ms[from][to] * MILLIS);
        let links = LinkConfig::default();
        let load = Load::single(vec![0], 36_000);
        let transmission = transmission(&links, &load.broadcasts[0]);
        let path = |ms: u64| ms * MILLIS + transmission;
        let relay = links.hop + links.packet_cpu;
        assert_eq!(
            times(&world, &links, &load.broadcasts[0]),
            [0, path(1), path(30), path(100), path(100)]
        );
        let over_b = path(70) + relay;
        assert_eq!(relayed(&world, &links, 0), [0, path(1), path(30), over_b, over_b]);
        // A relay that takes longer than it saves is no shortcut.
        let slow = LinkConfig { hop: 30 * MILLIS, ..links };
        assert_eq!(relayed(&world, &slow, 0), times(&world, &slow, &load.broadcasts[0]));
        // Two relays in a row, each with its cost: 1 → 2 → 3 → 4.
        let world = World::from_places(&[("1", 1), ("2", 1), ("3", 1), ("4", 1)], |from, to| {
            if to == from + 1 { 10 * MILLIS } else { 90 * MILLIS }
        });
        assert_eq!(
            relayed(&world, &links, 0),
            [0, path(10), path(20) + relay, path(30) + 2 * relay]
        );
    }

    #[test]
    fn a_place_without_nodes_relays_nothing() {
        let ms = [[1, 30, 100], [30, 1, 40], [100, 40, 1]];
        let world = World::from_places(&[("a", 1), ("nobody", 0), ("c", 1)], |from, to| {
            ms[from][to] * MILLIS
        });
        assert_eq!(shortest(&world, &LinkConfig::default(), 0)[2], 100 * MILLIS);
    }

    /// The lengths of all shortest paths between nodes, by Floyd and Warshall.
    fn between_nodes(world: &World, relay: Nanos) -> Vec<Vec<Nanos>> {
        let n = world.len();
        let mut best: Vec<Vec<Nanos>> = (0..n as NodeId)
            .map(|a| (0..n as NodeId).map(|b| world.delay(a, b)).collect())
            .collect();
        for by in 0..n {
            for a in (0..n).filter(|a| *a != by) {
                for b in (0..n).filter(|b| *b != by && *b != a) {
                    best[a][b] = best[a][b].min(best[a][by] + relay + best[by][b]);
                }
            }
        }
        best
    }

    proptest! {
        #[test]
        fn the_relayed_limit_is_the_shortest_path_and_never_above_the_limit(
            counts in proptest::collection::vec(0usize..4, 2..7),
            delays in proptest::collection::vec(0u64..200_000_000, 49),
            hop in 0u64..20_000_000,
        ) {
            prop_assume!(counts.iter().sum::<usize>() > 0);
            let places: Vec<(&str, usize)> = counts.iter().map(|count| ("p", *count)).collect();
            let world = World::from_places(&places, |from, to| delays[from * 7 + to]);
            let links = LinkConfig { hop, ..LinkConfig::default() };
            let paths = between_nodes(&world, links.hop + links.packet_cpu);
            for leader in 0..world.len() as NodeId {
                let load = Load::single(vec![leader], 36_000);
                let direct = times(&world, &links, &load.broadcasts[0]);
                let relayed = relayed(&world, &links, leader);
                let transmission = transmission(&links, &load.broadcasts[0]);
                for node in 0..world.len() {
                    prop_assert!(relayed[node] <= direct[node]);
                    if node != leader as usize {
                        prop_assert_eq!(relayed[node], paths[leader as usize][node] + transmission);
                    }
                }
            }
        }
    }
}
