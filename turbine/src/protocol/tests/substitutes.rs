//! Substitutes: who leads when the scheduled gateway is silent, and who gives way when it is not.

use super::network::*;
use super::*;
use crate::output::Output;
use crate::schedule::Lead;
use crate::sequencer::Sequencer;

/// Six members, three gateways, one substitute: of blocks 10 to 19 gateway 1 is the scheduled one and
/// gateway 2 its substitute.
fn world() -> World {
    let mut world = World::new(&[1; 6], 3);
    world.schedule = world.schedule.with_substitutes(1).unwrap();
    world
}

const FIRST: u8 = 2;

impl Net {
    fn lead(&mut self, node: usize, block: u64) -> Result<Lead, BroadcastError> {
        let gateway = self.world.gateways[node].address();
        self.nodes[node].lead(self.now, block, &gateway)
    }

    /// A gateway that need not be the scheduled one sends a message.
    fn send_as(
        &mut self,
        gateway: usize,
        message: Message,
        attempt: u8,
    ) -> Result<(), BroadcastError> {
        let message = self.world.gateways[gateway].sign_verified(message);
        let key = key(message.message(), attempt);
        self.nodes[gateway].broadcast(self.now, key, &message)
    }

    fn block_as(&mut self, gateway: usize, block: u64, attempt: u8) {
        for message in [env(block), frag(block, 0, 9_000), seal(block, 1)] {
            self.send_as(gateway, message, attempt).unwrap();
        }
    }

    /// What came at a node, as block, attempt and rank of each Seal.
    fn seals(&self, node: usize) -> Vec<(u64, u8, u8)> {
        let seals = self.delivered[node].iter().filter(|m| m.key.message == 2);
        seals.map(|m| (m.key.block, m.key.attempt, m.rank)).collect()
    }

    fn nobody_is_barred(&self) {
        let barred = |event: &&Event| matches!(event, Event::Bar { .. });
        assert_eq!(self.others.iter().flatten().filter(barred).count(), 0);
    }
}

#[test]
fn a_substitute_leads_the_term_of_a_leader_that_is_dead() {
    let mut net = Net::new(world(), 0.02, &config(RoutePolicy::Auto, 0.02));
    net.dead[1] = true;
    net.block_as(0, 9, FIRST);
    net.run_for(Duration::from_millis(100));
    for block in 10..14 {
        let wait = match net.lead(2, block) {
            Err(BroadcastError::NotDue { rank: 1, wait: Some(wait), .. }) => wait,
            other => panic!("{other:?}"),
        };
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        let early = net.send_as(2, env(block), 0);
        assert!(matches!(early, Err(BroadcastError::NotDue { .. })), "{early:?}");
        assert_eq!(net.lead(0, block), Err(BroadcastError::NotLeader(block)));
        net.run_for(wait);
        let lead = net.lead(2, block).unwrap();
        assert_eq!((lead.rank, lead.attempts()), (1, 0..=1));
        assert!(!net.nodes[2].leads(block), "not by the schedule");
        net.block_as(2, block, lead.first_attempt);
        net.run_for(Duration::from_millis(100));
    }
    net.run_for(Duration::from_secs(3));
    for node in [0, 3, 4, 5] {
        let seals = net.seals(node);
        let expected = [(10, 0, 1), (11, 0, 1), (12, 0, 1), (13, 0, 1)];
        assert_eq!(seals.into_iter().filter(|s| s.0 > 9).collect::<Vec<_>>(), expected);
        assert_eq!(net.nodes[node].counters().substituted, 4);
    }
    net.nobody_is_barred();
}

#[test]
fn the_scheduled_leader_that_comes_late_has_the_block() {
    let mut net = Net::new(world(), 0.0, &config(RoutePolicy::Auto, 0.0));
    net.block_as(0, 9, FIRST);
    net.run_for(Duration::from_millis(1_200));
    net.send_as(2, env(10), 0).unwrap();
    net.send_as(2, frag(10, 0, 8_000), 0).unwrap();
    net.run_for(Duration::from_millis(100));
    assert_eq!(net.lead(1, 10).map(|lead| lead.attempts()), Ok(FIRST..=7));
    net.block_as(1, 10, FIRST);
    net.run_for(Duration::from_millis(100));
    let overtaken = BroadcastError::Overtaken { block: 10, rank: 0 };
    assert_eq!(net.lead(2, 10), Err(overtaken));
    assert_eq!(net.send_as(2, frag(10, 1, 100), 0), Err(overtaken));
    assert_eq!(net.send_as(2, env(10), 1), Err(overtaken));
    net.run_for(Duration::from_secs(1));
    for node in [0, 3, 4, 5] {
        let (mut sequencer, mut out) = (Sequencer::new(1), Vec::new());
        for delivered in &net.delivered[node] {
            sequencer.push(Arc::clone(delivered), &mut out);
        }
        let void = |o: &&Output| matches!(o, Output::Retracted { block: 10, attempt: 0, .. });
        assert_eq!(out.iter().filter(void).count(), 1, "node {node}");
        let own: Vec<u16> = out
            .iter()
            .filter_map(|output| match output {
                Output::Message(m) if m.rank == 0 && m.key.block == 10 => Some(m.key.message),
                _ => None,
            })
            .collect();
        assert_eq!(own, [0, 1, 2], "node {node}");
    }
    net.nobody_is_barred();
}

#[test]
fn nobody_leads_by_the_attempts_of_another() {
    let mut net = Net::new(world(), 0.0, &config(RoutePolicy::Auto, 0.0));
    let not_leader = Err(BroadcastError::NotLeader(9));
    assert_eq!(net.send_as(0, env(9), 1), not_leader, "the substitute's");
    assert_eq!(net.send_as(1, env(9), FIRST), not_leader);
    // With the right key and the signature of another gateway.
    let message = net.world.gateways[1].sign_verified(env(9));
    let key = key(message.message(), FIRST);
    assert_eq!(net.nodes[0].broadcast(net.now, key, &message), not_leader);
    assert_eq!(net.send_as(0, env(9), FIRST), Ok(()));
}

/// A node whose operator has not turned substitutes on follows the scheduled gateways, and nobody is
/// barred for what it cannot check.
#[test]
fn a_node_without_substitutes_bars_nobody_who_sends_their_blocks() {
    let world = world();
    let old = 5;
    let mut other = self::world();
    other.schedule = other.schedule.with_substitutes(0).unwrap();
    let mut net = Net::new(world, 0.0, &config(RoutePolicy::Fixed(Route::Rotor), 0.0));
    net.nodes[old] = other.node(old, config(RoutePolicy::Fixed(Route::Rotor), 0.0));
    for node in 0..5 {
        net.nodes[node].handle_disconnected(peer(old as u32));
        net.connect(old, node);
    }
    net.settle();
    net.block_as(0, 8, FIRST);
    net.run_for(Duration::from_millis(1_200));
    net.dead[0] = true;
    net.block_as(1, 9, 0);
    net.run_for(Duration::from_secs(2));
    net.block_as(1, 10, FIRST);
    net.run_for(Duration::from_secs(2));
    assert_eq!(net.seals(old), [(8, FIRST, 0), (10, FIRST, 0)]);
    assert!(
        net.nodes[old].outcomes().get(Outcome::Unproven) > 0,
        "it was sent what it cannot check"
    );
    for node in [3, 4] {
        assert_eq!(net.seals(node), [(8, FIRST, 0), (9, 0, 1), (10, FIRST, 0)], "node {node}");
    }
    net.nobody_is_barred();
}
