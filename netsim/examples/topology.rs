//! Compares fragcast with gossip on a topology of one's own: nodes in three cities, with slow
//! uplinks and 2 % loss.
//!
//! ```text
//! cargo run -p netsim --example topology
//! ```

use std::io::{self, Write};

use netsim::compare::{Case, Contender, Plan};
use netsim::fault::Faults;
use netsim::link::{LinkConfig, Loss};
use netsim::load::Load;
use netsim::protocols::fragcast::FragcastConfig;
use netsim::protocols::gossip::GossipConfig;
use netsim::world::World;
use netsim::{MILLIS, NodeId, SECONDS, report};

fn main() -> io::Result<()> {
    run(&mut io::stdout())
}

fn run(out: &mut impl Write) -> io::Result<()> {
    let plan = plan();
    let runs = plan.run(|_events| {});
    report::table::print(out, &plan.compare(&runs), false)
}

fn plan() -> Plan {
    // Nodes 0 to 19 are in Berlin, 20 to 39 in New York, 40 to 59 in Tokyo.
    let places = [("Berlin", 20), ("New York", 20), ("Tokyo", 20)];
    let world = World::from_places(&places, |from, to| match (from.min(to), from.max(to)) {
        (0, 1) => 43 * MILLIS,
        (0, 2) => 120 * MILLIS,
        (1, 2) => 85 * MILLIS,
        _ => MILLIS / 4, // between two nodes of one city
    });
    let links = LinkConfig {
        uplink_bps: 200_000_000,
        downlink_bps: 200_000_000,
        loss: Loss::Independent(0.02),
        ..LinkConfig::default()
    };
    // One frag of 36 kB from a leader in each city, each in a run of its own.
    let case = |leader: NodeId| Case {
        load: Load::single(vec![leader], 36_000),
        faults: Faults::default(),
        seed: leader.into(),
    };
    let fragcast = FragcastConfig {
        loss: links.loss.mean(),
        uplink_bps: links.uplink_bps,
        ..FragcastConfig::default()
    };
    Plan {
        worlds: vec![("one frag of 36 kB, leaders in Berlin, New York and Tokyo".into(), world)],
        links,
        cases: [0, 20, 40].map(case).into(),
        contenders: vec![
            Contender::Fragcast(fragcast),
            Contender::Gossip(GossipConfig::with_mesh(8)),
        ],
        guests: 0,
        patience: 10 * SECONDS,
        settings: Vec::new(),
        notes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn prints_the_same_table_every_time() {
        let mut out = Vec::new();
        super::run(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), include_str!("topology.txt"));
    }
}
