//! Guests: members with and without them, how late guests are, and what silent members cost them.
//!
//! ```text
//! cargo run --release -p netsim --example guests -- 500 5000
//! ```

use std::collections::BTreeSet;
use std::io::{self, Write};

use fragcast_shredder::{Kind, MessageKey};
use netsim::engine::{Setup, run};
use netsim::fault::{ALWAYS, Fault, Faults};
use netsim::link::LinkConfig;
use netsim::load::{Broadcast, Load};
use netsim::outcome::{NEVER, Outcome};
use netsim::protocols::fragcast::{Fragcast, FragcastConfig, Network};
use netsim::protocols::limit;
use netsim::topology::{self, Source, WorldConfig};
use netsim::world::World;
use netsim::{MILLIS, NodeId, SECONDS};

/// Frags of the block.
const FRAGS: u16 = 20;

fn main() -> io::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let (members, guests) = (numbers.next().unwrap_or(500), numbers.next().unwrap_or(5_000));
    compare(&mut io::stdout(), members, guests)
}

/// What one run shows, in milliseconds.
struct Shown {
    members: f64,
    guests: f64,
    over_limit: f64,
    missed: usize,
    repaired: usize,
    rotations: u64,
}

/// The first nodes of the world's cities as members, and others, from the same cities, as guests.
fn world(members: usize, guests: usize) -> World {
    let config = WorldConfig {
        source: Source::Default { nodes: (members + guests) as u32 },
        ..WorldConfig::default()
    };
    let mut world = topology::build(&config).expect("the built-in cities").world;
    world.part_guests(guests);
    world
}

fn show(world: &World, members: usize, faults: &Faults) -> Shown {
    let links = LinkConfig::default();
    // A block's Env and frags, five a second, from one leader. Of a block without its Env nodes keep
    // but the first frags.
    let mut load = Load::single(vec![0], 36_000);
    let first = load.broadcasts[0];
    let message = |n: u16| {
        let key = MessageKey { message: n, ..first.key };
        let at = first.at + u64::from(n) * SECONDS / 5;
        match n {
            0 => Broadcast { key, at, kind: Kind::Env, bytes: 300, ..first },
            _ => Broadcast { key, at, ..first },
        }
    };
    load.broadcasts = (0..=FRAGS).map(message).collect();
    let network = Network::with_guests(world, members as NodeId);
    let mut fragcast = Fragcast::new(&FragcastConfig::default(), &network, &load, 1);
    let setup = Setup { world, links, faults, load: &load, seed: 1, patience: 10 * SECONDS };
    let outcome: Outcome = run(setup, &mut fragcast);
    let limits: Vec<Vec<u64>> =
        load.broadcasts.iter().map(|broadcast| limit::times(world, &links, broadcast)).collect();
    let mean = |times: &[&[u64]], nodes: std::ops::Range<usize>| {
        let all = times.iter().flat_map(|of| of[nodes.clone()].iter());
        let (count, sum) =
            all.fold((0u64, 0u64), |(n, sum), t| (n + 1, sum + (*t).min(20 * SECONDS)));
        sum as f64 / count.max(1) as f64 / MILLIS as f64
    };
    let after: Vec<&[u64]> = outcome.completions.iter().map(|c| &c.after[..]).collect();
    let bounds: Vec<&[u64]> = limits.iter().map(|of| &of[..]).collect();
    let n = world.nodes.len();
    let of_guests = mean(&after, members..n);
    Shown {
        members: mean(&after, 0..members),
        guests: of_guests,
        over_limit: of_guests / mean(&bounds, members..n),
        missed: after.iter().flat_map(|of| of.iter()).filter(|t| **t == NEVER).count(),
        repaired: outcome
            .completions
            .iter()
            .flat_map(|c| &c.repaired[members..])
            .filter(|r| **r)
            .count(),
        rotations: (members..n)
            .filter_map(|guest| fragcast.node(guest as NodeId).attached())
            .map(|state| state.rotations)
            .sum(),
    }
}

fn compare(out: &mut impl Write, members: usize, guests: usize) -> io::Result<()> {
    let all = world(members, guests);
    let alone = World { nodes: all.nodes[..members].to_vec(), ..all.clone() };
    let none = Faults::default();
    let without = show(&alone, members, &none);
    writeln!(out, "{members} members alone: mean {:.3} ms", without.members)?;
    let with = show(&all, members, &none);
    writeln!(
        out,
        "with {guests} guests: members {:.3} ms (x {:.4}), guests {:.3} ms, x {:.3} of their limit; \
         {} missed, {} by repair, {} rotations",
        with.members,
        with.members / without.members,
        with.guests,
        with.over_limit,
        with.missed,
        with.repaired,
        with.rotations
    )?;
    let silent: BTreeSet<NodeId> = (0..members as NodeId).filter(|node| node % 10 == 7).collect();
    let silent = Faults(vec![Fault::Silent { nodes: silent, span: ALWAYS }]);
    let without = show(&alone, members, &silent);
    let shown = show(&all, members, &silent);
    writeln!(
        out,
        "a tenth of the members silent: members alone {:.3} ms, with guests {:.3} ms (x {:.4}), guests \
         {:.3} ms; {} missed, {} by repair, {} rotations",
        without.members,
        shown.members,
        shown.members / without.members,
        shown.guests,
        shown.missed,
        shown.repaired,
        shown.rotations
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn guests_miss_nothing_and_cost_members_nothing() {
        let mut out = Vec::new();
        super::compare(&mut out, 20, 40).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("; 0 missed").count(), 2, "{text}");
        let (_, ratio) = text.split_once("(x ").expect("a ratio is told");
        let ratio: f64 = ratio[..6].parse().expect("of four decimals");
        assert!(ratio <= 1.01, "{text}");
    }
}
