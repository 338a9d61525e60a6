//! Connections and meshes when a run begins.
//!
//! **Connections** are a union of random Hamiltonian cycles, so that every node has nearly as many
//! as the limit allows and the graph is connected by construction. Such unions are contiguous with
//! uniform random regular graphs (Kim and Wormald 2001), whose rejection sampling is infeasible at
//! 50 connections.
//!
//! **Meshes** are those of a network that has been up for long. Heartbeats bring a node up to D
//! when it is below D_low and down to D when it is above D_high, so while peers come and go the
//! degrees lie around D. Here they are D as far as the connections allow. Replaying a cold start
//! instead (no node leaves, every node grafts until it has D) would give a mean degree of about 1.2
//! D. That is the mesh of a larger D, and a comparison tries several anyway.

use crate::NodeId;
use crate::random::{self, Stream, shuffle};

use super::GossipConfig;

/// The neighbours of each node.
pub(in crate::protocols) type Graph = Vec<Vec<NodeId>>;

/// Connections and mesh of `n` nodes.
pub(super) fn draw(n: usize, config: &GossipConfig, seed: u64) -> (Graph, Graph) {
    let connections = connect(n, config.connections, &mut random::stream(seed, "gossip peers", 0));
    let mesh = graft(&connections, config, &mut random::stream(seed, "gossip mesh", 0));
    (connections, mesh)
}

fn connect(n: usize, limit: u32, rng: &mut Stream) -> Graph {
    if n <= limit as usize + 1 {
        return (0..n as NodeId).map(|a| (0..n as NodeId).filter(|b| *b != a).collect()).collect();
    }
    let mut graph: Graph = vec![Vec::new(); n];
    let mut order: Vec<NodeId> = (0..n as NodeId).collect();
    for _ in 0..(limit / 2).max(1) {
        shuffle(rng, &mut order);
        for (a, b) in order.iter().zip(order.iter().cycle().skip(1)) {
            link(&mut graph, *a, *b);
        }
    }
    graph
}

/// Adds an edge that does not exist yet.
fn link(graph: &mut Graph, a: NodeId, b: NodeId) {
    if a != b && !graph[a as usize].contains(&b) {
        graph[a as usize].push(b);
        graph[b as usize].push(a);
    }
}

pub(super) fn graft(connections: &Graph, config: &GossipConfig, rng: &mut Stream) -> Graph {
    let n = connections.len();
    let [d_low, d, d_high] = [config.d_low, config.d, config.d_high].map(|d| d as usize);
    let mut mesh: Graph = vec![Vec::new(); n];
    let room = |mesh: &Graph, node: NodeId, most: usize| mesh[node as usize].len() < most;
    let mut edges: Vec<(NodeId, NodeId)> = (0..n as NodeId)
        .flat_map(|a| connections[a as usize].iter().map(move |b| (a, *b)))
        .filter(|(a, b)| a < b)
        .collect();
    shuffle(rng, &mut edges);
    for (a, b) in &edges {
        if room(&mesh, *a, d) && room(&mesh, *b, d) {
            link(&mut mesh, *a, *b);
        }
    }
    // A node whose peers were all full grafts as a heartbeat does.
    for node in 0..n {
        if mesh[node].len() < d_low {
            let mut candidates = connections[node].clone();
            shuffle(rng, &mut candidates);
            for peer in candidates {
                if mesh[node].len() < d && room(&mesh, peer, d_high) {
                    link(&mut mesh, node as NodeId, peer);
                }
            }
        }
    }
    join(&mut mesh, &edges, d_high);
    mesh
}

/// Joins the components of the mesh by connections between them. From D = 4 on there is almost
/// always only one. Otherwise gossip would bridge them, at the cost of a heartbeat.
fn join(mesh: &mut Graph, edges: &[(NodeId, NodeId)], d_high: usize) {
    let mut component = components(mesh);
    for (a, b) in edges {
        let (x, y) = (component[*a as usize], component[*b as usize]);
        if x != y && mesh[*a as usize].len() < d_high && mesh[*b as usize].len() < d_high {
            link(mesh, *a, *b);
            component.iter_mut().filter(|c| **c == y).for_each(|c| *c = x);
        }
    }
}

/// A number for each node, equal for nodes that can reach one another.
pub(super) fn components(graph: &Graph) -> Vec<u32> {
    let mut component = vec![u32::MAX; graph.len()];
    let mut stack = Vec::new();
    for start in 0..graph.len() {
        if component[start] != u32::MAX {
            continue;
        }
        component[start] = start as u32;
        stack.push(start);
        while let Some(node) = stack.pop() {
            for peer in &graph[node] {
                if component[*peer as usize] == u32::MAX {
                    component[*peer as usize] = start as u32;
                    stack.push(*peer as usize);
                }
            }
        }
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symmetric(graph: &Graph) -> bool {
        let mut pairs = (0..graph.len()).flat_map(|a| graph[a].iter().map(move |b| (a, *b)));
        pairs.all(|(a, b)| graph[b as usize].contains(&(a as NodeId)) && a != b as usize)
    }

    fn connected(graph: &Graph) -> bool {
        components(graph).iter().all(|c| *c == 0)
    }

    #[test]
    fn meshes_are_symmetric_connected_and_within_bounds() {
        for d in [3, 4, 6, 8, 12, 16, 24] {
            let config = GossipConfig::with_mesh(d);
            for (n, seed) in [(400, 1), (400, 2), (1_000, 3), (80, 4)] {
                let (connections, mesh) = draw(n, &config, seed);
                assert!(symmetric(&connections) && connected(&connections), "{d} {n}");
                assert!(symmetric(&mesh) && connected(&mesh), "{d} {n}");
                let degrees = |graph: &Graph| graph.iter().map(Vec::len).collect::<Vec<_>>();
                assert!(degrees(&connections).iter().all(|k| *k <= 50 && *k >= 20), "{d} {n}");
                let degrees = degrees(&mesh);
                let within = config.d_low as usize..=config.d_high as usize;
                assert!(degrees.iter().all(|k| within.contains(k)), "{d} {n}");
                let mean = degrees.iter().sum::<usize>() as f64 / n as f64;
                assert!((mean - f64::from(d)).abs() < 0.25, "{d} {n}: {mean}");
                for node in 0..n {
                    assert!(mesh[node].iter().all(|peer| connections[node].contains(peer)));
                }
            }
        }
    }

    #[test]
    fn few_nodes_are_all_connected() {
        let config = GossipConfig::based_op();
        for n in [1, 2, 3, 7, 51] {
            let (connections, mesh) = draw(n, &config, 1);
            assert!(connections.iter().all(|peers| peers.len() == n - 1));
            assert!(connected(&mesh) && symmetric(&mesh), "{n}");
        }
        assert!(draw(0, &config, 1).1.is_empty());
    }

    #[test]
    fn meshes_in_pieces_are_joined() {
        // Two rings of three that one connection joins.
        let mut connections: Graph = vec![Vec::new(); 6];
        for (a, b) in [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3), (0, 3)] {
            link(&mut connections, a, b);
        }
        let config = GossipConfig { d: 2, d_low: 1, d_high: 3, ..GossipConfig::based_op() };
        for seed in 0..20 {
            let mesh = graft(&connections, &config, &mut random::stream(seed, "t", 0));
            assert!(connected(&mesh), "{seed}");
            assert!(mesh.iter().all(|peers| (1..=3).contains(&peers.len())));
        }
    }
}
