//! Turns a scenario and a world into runs of the engine: messages with times and leaders, and
//! faults with nodes.
//!
//! Leaders are drawn from the stream "leaders", and the nodes of each fault from the stream
//! "faults" of its number, so that adding a fault does not change the others.
//!
//! The number of a block determines its leader, by [`Load::leader`]. Term 0 contains genesis, so a
//! run begins with the first block of term 1, and the first leader drawn is the second in
//! [`Load::leaders`].

use std::collections::BTreeSet;

use fragcast_shredder::shred::MAX_ATTEMPTS;
use fragcast_shredder::{Kind, MessageKey};
use fragcast_turbine::schedule::first_attempt;

use super::reader::{nearest, shortened};
use super::{
    FaultKind, FaultOptions, LoadOptions, MAX_PAIRS, NodeName, Position, Problem, Run, Scenario,
    ScenarioError, Shape, Who,
};
use crate::fault::{Fault, Faults, Span};
use crate::load::{Broadcast, Load, Registration, Table};
use crate::world::World;
use crate::{MILLIS, Nanos, NodeId, random};

/// How much later than it may a substitute opens a block: the Seal before takes so long to come.
const SUBSTITUTE_LATE: Nanos = 300 * MILLIS;
/// Blocks before a table's first that nodes learn of it.
const TABLE_AHEAD: u64 = 8;

/// How long a leader that dies still sends its last message.
const LAST_BREATH: Nanos = MILLIS;

/// Why a scenario and a world do not fit together. Its text becomes a [`Problem`]'s.
#[derive(Debug, thiserror::Error)]
enum Mismatch {
    #[error(
        "{messages} messages to {nodes} nodes are {pairs} pairs, and a run has {MAX_PAIRS} at \
         most; set fewer `load.blocks`, `load.frags` or nodes"
    )]
    TooLarge { messages: u64, nodes: usize, pairs: u64 },
    #[error(
        "`load.leaders` is {wanted}, but only {drawn} nodes of this network can lead; set fewer, \
         or add nodes of weight"
    )]
    Leaders { wanted: usize, drawn: usize },
    #[error("a share of {share} of {nodes} nodes is nobody; give a larger one")]
    EmptyShare { share: f64, nodes: usize },
    #[error("there is no node number {index}: they are 0 to {last}")]
    NodeIndex { index: u32, last: usize },
    #[error("there is no {what} `{name}`, did you mean `{nearest}`?")]
    Misspelt { what: &'static str, name: String, nearest: String },
    #[error("there is no {what} `{name}` in this network; it has {some}, …")]
    Unknown { what: &'static str, name: String, some: String },
    #[error(
        "{wanted} nodes that come or go are more than the {left} that never lead; set a smaller \
         `share_a_minute` or fewer blocks"
    )]
    Churn { wanted: usize, left: usize },
    #[error(
        "the run is over after {run_ms} ms, before the first table of `every_ms`; set more blocks"
    )]
    NoTable { run_ms: u64 },
    #[error("`network.guests` is {guests} of {nodes} nodes; leave some as members")]
    Guests { guests: u32, nodes: usize },
    #[error("block {block} would have more than {MAX_ATTEMPTS} attempts")]
    Attempts { block: u64 },
}

/// All runs of a scenario.
pub(super) fn runs(scenario: &Scenario, world: &World) -> Result<Vec<Run>, ScenarioError> {
    let mut problems: Vec<Problem> = Vec::new();
    for fault in &scenario.faults {
        let message = fault.kind.misfit(&scenario.load);
        problems.extend(message.map(|message| told(fault, message)));
    }
    let nowhere =
        |error: Mismatch| Problem { position: Position::default(), message: error.to_string() };
    problems.extend(too_large(&scenario.load, world).map(nowhere));
    let (leaders, registers) = match leaders(scenario, world) {
        Ok(drawn) => drawn,
        Err(error) => {
            problems.push(nowhere(error));
            return Err(ScenarioError::wrong(&scenario.file, problems));
        }
    };
    let (guests, nodes) = (scenario.network.guests, world.len());
    if guests as usize >= nodes {
        problems.push(nowhere(Mismatch::Guests { guests, nodes }));
    }
    let (mut faults, mut registration, mut tables) = (Vec::new(), None, Vec::new());
    for (index, fault) in scenario.faults.iter().enumerate() {
        let draw = Draw { seed: scenario.seed, index: index as u64, world, leaders: &leaders };
        match draw.fault(fault) {
            Ok(resolved) => faults.extend(resolved),
            Err(error) => problems.push(told(fault, error.to_string())),
        }
        if let FaultKind::Churn { share_a_minute, every } = fault.kind {
            match draw.churn(&scenario.load, share_a_minute, every) {
                Ok((changed, gone)) => {
                    tables = changed;
                    faults.extend(gone);
                }
                Err(error) => problems.push(told(fault, error.to_string())),
            }
        }
        if let (FaultKind::Registration { who, span }, Some(leader)) = (&fault.kind, registers) {
            match draw.who(who) {
                Ok(mut late) => {
                    late.remove(&leader);
                    registration = Some((leader, late, *span));
                }
                Err(error) => problems.push(told(fault, error.to_string())),
            }
        }
    }
    for (index, fault) in scenario.faults.iter().enumerate() {
        let before = scenario.faults.iter().take(index + 1);
        if let FaultKind::Rebuild { block, .. } = fault.kind
            && cuts(before, block).count()
                >= usize::from(MAX_ATTEMPTS - attempts_of_others(scenario))
        {
            problems.push(told(fault, Mismatch::Attempts { block }.to_string()));
        }
    }
    if !problems.is_empty() {
        return Err(ScenarioError::wrong(&scenario.file, problems));
    }
    let faults = Faults(faults);
    Ok(match scenario.load.shape {
        Shape::Frag => {
            (0..leaders.len()).map(|i| frag_run(scenario, &leaders, i, &faults)).collect()
        }
        Shape::Blocks => {
            let mut run = blocks_run(scenario, leaders, registration, faults);
            run.load.tables = tables;
            vec![run]
        }
    })
}

fn told(fault: &FaultOptions, message: String) -> Problem {
    Problem { position: fault.position.clone(), message }
}

/// The error if a run would need too much memory.
fn too_large(load: &LoadOptions, world: &World) -> Option<Mismatch> {
    let messages = match load.shape {
        Shape::Frag => 1,
        Shape::Blocks => load.blocks * (u64::from(load.frags) + 2),
    };
    let nodes = world.len();
    let pairs = messages.saturating_mul(nodes as u64);
    (pairs > MAX_PAIRS).then_some(Mismatch::TooLarge { messages, nodes, pairs })
}

/// Draws the leaders, and one more if a gateway registers.
fn leaders(scenario: &Scenario, world: &World) -> Result<(Vec<NodeId>, Option<NodeId>), Mismatch> {
    let registers = |fault: &FaultOptions| matches!(fault.kind, FaultKind::Registration { .. });
    let registers = scenario.faults.iter().any(registers);
    let wanted = scenario.load.leaders + usize::from(registers);
    let mut rng = random::stream(scenario.seed, "leaders", 0);
    let drawn = random::weighted_sample(&mut rng, &world.weights(), wanted);
    if drawn.is_empty() || drawn.len() < wanted {
        return Err(Mismatch::Leaders { wanted, drawn: drawn.len() });
    }
    let mut drawn: Vec<NodeId> = drawn.into_iter().map(|node| node as NodeId).collect();
    let last = if registers { drawn.pop() } else { None };
    Ok((drawn, last))
}

/// The inputs for drawing the nodes of a fault.
struct Draw<'a> {
    seed: u64,
    index: u64,
    world: &'a World,
    leaders: &'a [NodeId],
}

impl Draw<'_> {
    /// Resolves a fault of hosts; `None` for a fault of a leader.
    fn fault(&self, fault: &FaultOptions) -> Result<Option<Fault>, Mismatch> {
        Ok(Some(match &fault.kind {
            FaultKind::Crash { who, span } => Fault::Crash { nodes: self.who(who)?, span: *span },
            FaultKind::Silent { who, span } => Fault::Silent { nodes: self.who(who)?, span: *span },
            FaultKind::Partition { who, span } => {
                Fault::Partition { nodes: self.who(who)?, span: *span }
            }
            FaultKind::TurbineDown { who, span } => {
                Fault::TurbineDown { nodes: self.who(who)?, span: *span }
            }
            FaultKind::SlowUplink { who, span, bps } => {
                Fault::SlowUplink { nodes: self.who(who)?, span: *span, bps: *bps }
            }
            FaultKind::Equivocate { .. }
            | FaultKind::Rebuild { .. }
            | FaultKind::LeaderDies { .. }
            | FaultKind::Registration { .. }
            | FaultKind::Churn { .. } => return Ok(None),
        }))
    }

    fn who(&self, who: &Who) -> Result<BTreeSet<NodeId>, Mismatch> {
        match who {
            Who::Share { share, by_weight } => self.share(*share, *by_weight),
            Who::All => Ok((0..self.world.len() as NodeId).collect()),
            Who::Nodes(names) => names.iter().map(|name| self.node(name)).collect(),
            Who::Places(names) => {
                let mut nodes = BTreeSet::new();
                for name in names {
                    nodes.extend(self.place(name)?);
                }
                Ok(nodes)
            }
        }
    }

    fn share(&self, share: f64, by_weight: bool) -> Result<BTreeSet<NodeId>, Mismatch> {
        let n = self.world.len();
        let wanted = (share * n as f64).round() as usize;
        if wanted == 0 && share > 0.0 {
            return Err(Mismatch::EmptyShare { share, nodes: n });
        }
        let mut weights = self.world.weights();
        if !by_weight {
            weights.fill(1);
        }
        for leader in self.leaders {
            weights[*leader as usize] = 0;
        }
        let mut rng = random::stream(self.seed, "faults", self.index);
        let drawn = random::weighted_sample(&mut rng, &weights, wanted);
        Ok(drawn.into_iter().map(|node| node as NodeId).collect())
    }

    /// Who comes and goes: the tables, and the crashes of those that leave.
    fn churn(
        &self,
        load: &LoadOptions,
        share_a_minute: f64,
        every: Nanos,
    ) -> Result<(Vec<Table>, Vec<Fault>), Mismatch> {
        let nodes = self.world.len();
        let (time, term) = (load.block_time().max(1), load.blocks_per_term);
        let run = load.blocks * time;
        // A table begins with a term: blocks are counted from the first of term 1.
        let first = |table: u64| term + (table * every / time).next_multiple_of(term);
        let begins = |table: u64| (first(table) - term) * time;
        let count = (1..).take_while(|table| begins(*table) < run).count() as u64;
        if count == 0 {
            return Err(Mismatch::NoTable { run_ms: run / MILLIS });
        }
        let minutes = every as f64 / (60_000.0 * MILLIS as f64);
        let each = ((share_a_minute * nodes as f64 * minutes).round() as usize).max(1);
        let wanted = 2 * each * count as usize;
        let mut weights = self.world.weights();
        self.leaders.iter().for_each(|leader| weights[*leader as usize] = 0);
        weights.iter_mut().for_each(|weight| *weight = (*weight).min(1));
        let mut rng = random::stream(self.seed, "faults", self.index);
        let drawn = random::weighted_sample(&mut rng, &weights, wanted);
        if drawn.len() < wanted {
            return Err(Mismatch::Churn { wanted, left: drawn.len() });
        }
        let drawn: Vec<NodeId> = drawn.into_iter().map(|node| node as NodeId).collect();
        let (leave, join) = drawn.split_at(wanted / 2);
        let table = |number: u64| {
            let before = each * number as usize;
            let known_at = begins(number).saturating_sub(TABLE_AHEAD * time);
            let absent = leave[..before].iter().chain(&join[before..]).copied().collect();
            let (from_block, known_at) =
                if number == 0 { (0, 0) } else { (first(number), known_at) };
            Table { from_block, known_at, absent }
        };
        let gone = |number: u64| {
            let at = begins(number).saturating_sub(every / 2);
            let of = each * (number as usize - 1)..each * number as usize;
            let nodes = leave[of].iter().copied().collect();
            Fault::Crash { nodes, span: (at, Nanos::MAX) }
        };
        Ok(((0..=count).map(table).collect(), (1..=count).map(gone).collect()))
    }

    fn node(&self, name: &NodeName) -> Result<NodeId, Mismatch> {
        let nodes = &self.world.nodes;
        let found = match name {
            NodeName::Index(index) => Some(*index as usize).filter(|index| *index < nodes.len()),
            NodeName::Id(id) => nodes.iter().position(|node| node.id == *id),
        };
        found.map(|node| node as NodeId).ok_or_else(|| match name {
            NodeName::Index(index) => {
                Mismatch::NodeIndex { index: *index, last: nodes.len().saturating_sub(1) }
            }
            NodeName::Id(id) => {
                let ids: Vec<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
                unknown("node", id, &ids)
            }
        })
    }

    fn place(&self, name: &str) -> Result<BTreeSet<NodeId>, Mismatch> {
        let places = &self.world.places;
        let Some(place) = places.iter().position(|place| place.name == *name) else {
            let names: Vec<&str> = places.iter().map(|place| place.name.as_str()).collect();
            return Err(unknown("place", name, &names));
        };
        let nodes = self.world.nodes.iter().enumerate();
        let here = nodes.filter(|(_, node)| usize::from(node.place) == place);
        Ok(here.map(|(node, _)| node as NodeId).collect())
    }
}

fn unknown(what: &'static str, name: &str, known: &[&str]) -> Mismatch {
    let name = shortened(name);
    match nearest(&name, known) {
        Some(nearest) => Mismatch::Misspelt { what, name, nearest: nearest.into() },
        None => {
            let some: Vec<&str> = known.iter().copied().take(10).collect();
            Mismatch::Unknown { what, name, some: some.join(", ") }
        }
    }
}

/// The message of a block after which its leader dies.
fn death(faults: &[FaultOptions], of: u64) -> Option<u16> {
    let after = faults.iter().filter_map(|fault| match fault.kind {
        FaultKind::LeaderDies { block, after_message } if block == of => Some(after_message),
        _ => None,
    });
    after.min()
}

/// The messages after which attempts at a block are given up, in the order of the file.
fn cuts<'a>(faults: impl Iterator<Item = &'a FaultOptions>, of: u64) -> impl Iterator<Item = u16> {
    faults.filter_map(move |fault| match fault.kind {
        FaultKind::Rebuild { block, after_message } if block == of => Some(after_message),
        _ => None,
    })
}

fn equivocal(faults: &[FaultOptions], of: (u64, u16)) -> bool {
    let at = |fault: &FaultOptions| match fault.kind {
        FaultKind::Equivocate { block, message } => (block, message) == of,
        _ => false,
    };
    faults.iter().any(at)
}

/// The crash of a leader after a broadcast.
fn crash(broadcast: &Broadcast) -> Fault {
    let nodes = BTreeSet::from([broadcast.leader]);
    Fault::Crash { nodes, span: (broadcast.at + LAST_BREATH, Nanos::MAX) }
}

/// The attempts of a block that are its substitutes'.
fn attempts_of_others(scenario: &Scenario) -> u8 {
    first_attempt(scenario.fragcast.substitutes, 0)
}

/// The run of leader number `i`, followed by the others in turn.
fn frag_run(scenario: &Scenario, leaders: &[NodeId], i: usize, faults: &Faults) -> Run {
    let mut turn = leaders.to_vec();
    turn.rotate_left(i);
    let substitutes = scenario.fragcast.substitutes;
    let mut load = Load { substitutes, ..Load::single(turn, scenario.load.frag(i)) };
    load.broadcasts[0].key.attempt = attempts_of_others(scenario);
    let mut faults = faults.clone();
    load.broadcasts[0].equivocal = equivocal(&scenario.faults, (1, 1));
    if death(&scenario.faults, 1).is_some() {
        faults.0.push(crash(&load.broadcasts[0]));
    }
    without_the_dead(load, faults)
}

/// A gateway's leader, who does not reach the registry, and from when until when.
type Registers = (NodeId, BTreeSet<NodeId>, Span);

/// The registration, and the first block of the new list: that of the protocol's rule for the block
/// that is open half a second later, when half of the nodes have asked.
fn registration(options: &LoadOptions, registers: Registers) -> Registration {
    let (leader, late, (at, late_at)) = registers;
    let blocks = at.saturating_add(500 * MILLIS) / options.block_time().max(1);
    let head = options.blocks_per_term.saturating_add(blocks);
    let from_block = fragcast_turbine::rotation::first_block(head, options.blocks_per_term);
    Registration { at, leader, from_block: from_block.unwrap_or(u64::MAX), late, late_at }
}

/// The run of whole blocks.
fn blocks_run(
    scenario: &Scenario,
    mut leaders: Vec<NodeId>,
    registers: Option<Registers>,
    faults: Faults,
) -> Run {
    let Scenario { load: options, faults: all, .. } = scenario;
    leaders.rotate_right(1);
    let mut load = Load {
        broadcasts: Vec::new(),
        leaders,
        blocks_per_term: options.blocks_per_term,
        registration: registers.map(|registers| registration(options, registers)),
        substitutes: scenario.fragcast.substitutes,
        tables: Vec::new(),
    };
    let mut faults = faults;
    let mut start = 0;
    for block in 1..=options.blocks {
        let number = options.blocks_per_term + block - 1;
        let leader = load.leader(number);
        if faults.is_down(leader, start) {
            let by = Late { number, start };
            let sent = substituted(scenario, &load, &faults, by);
            load.broadcasts.extend(sent);
        }
        let own = attempts_of_others(scenario);
        let cuts: Vec<u16> = cuts(all.iter(), block).collect();
        for (attempt, cut) in cuts.iter().map(|cut| Some(*cut)).chain([None]).enumerate() {
            let death = death(all, block).filter(|_| cut.is_none());
            let last = cut.or(death).unwrap_or(options.seal());
            let messages = (0..=last).map(|message| Broadcast {
                at: start + options.offset(message),
                leader,
                key: MessageKey { block: number, attempt: own + attempt as u8, message },
                kind: kind(options, message),
                bytes: bytes(options, message),
                expected: cut.is_none(),
                equivocal: cut.is_none() && equivocal(all, (block, message)),
            });
            load.broadcasts.extend(messages);
            if let (Some(_), Some(broadcast)) = (death, load.broadcasts.last()) {
                faults.0.push(crash(broadcast));
            }
            if cut.is_some() {
                start += options.offset(last) + options.interval;
            }
        }
        start += options.block_time();
    }
    without_the_dead(load, faults)
}

/// A block whose leader is down when it begins.
#[derive(Clone, Copy)]
struct Late {
    number: u64,
    start: Nanos,
}

/// What the first substitute that is up sends of a block: as many frags as there is time for.
fn substituted(scenario: &Scenario, load: &Load, faults: &Faults, late: Late) -> Vec<Broadcast> {
    let (Late { number, start }, options) = (late, &scenario.load);
    let ranked = load.ranked(number);
    let up = (0u64..).zip(ranked).skip(1).find(|(_, (node, _))| !faults.is_down(*node, start));
    let Some((rank, (leader, attempt))) = up else { return Vec::new() };
    let waits = rank * scenario.fragcast.substitute_after + SUBSTITUTE_LATE;
    // The Seal comes before the next block's Env.
    let fits = |frags: &u16| {
        waits + Nanos::from(*frags) * options.interval + options.seal_after < options.block_time()
    };
    let Some(frags) = (1..=options.frags).rev().find(fits) else { return Vec::new() };
    let message = |message: u16| {
        let is_seal = message > frags;
        let after = match is_seal {
            true => Nanos::from(frags) * options.interval + options.seal_after,
            false => options.offset(message),
        };
        let of = if is_seal { options.seal() } else { message };
        Broadcast {
            at: start + waits + after,
            leader,
            key: MessageKey { block: number, attempt, message },
            kind: kind(options, of),
            bytes: bytes(options, of),
            expected: true,
            equivocal: false,
        }
    };
    (0..=frags + 1).map(message).collect()
}

fn kind(options: &LoadOptions, message: u16) -> Kind {
    match message {
        0 => Kind::Env,
        _ if message <= options.frags => Kind::Frag,
        _ => Kind::Seal,
    }
}

fn bytes(options: &LoadOptions, message: u16) -> u32 {
    match kind(options, message) {
        Kind::Env => options.env_bytes,
        Kind::Frag => options.frag(usize::from(message) - 1),
        Kind::Seal => options.seal_bytes,
    }
}

/// Removes messages that are never sent because their leader is down, since no node can have them.
fn without_the_dead(mut load: Load, faults: Faults) -> Run {
    load.broadcasts.retain(|broadcast| !faults.is_down(broadcast.leader, broadcast.at));
    Run { load, faults }
}
