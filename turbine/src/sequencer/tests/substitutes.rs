//! Substitutes: the lowest rank counts, whatever comes when and by which way.

use super::*;

/// Who stands in for the gateway of the other tests.
fn substitute(message: &VerifiedMessage) -> VerifiedMessage {
    GatewayKey::from_bytes([0x22; 32]).unwrap().sign_verified(message.message().clone())
}

/// With one substitute, whose attempts are 0 and 1; the scheduled gateway's are 2 to 7.
struct Bench {
    sequencer: Sequencer,
    /// What was handed on and not retracted, with the rank.
    held: Vec<(u16, u8)>,
}

impl Bench {
    fn new() -> Self {
        Self { sequencer: Sequencer::new(1), held: Vec::new() }
    }

    fn push(&mut self, via: Via, message: &VerifiedMessage, attempt: u8) -> (Fate, Vec<String>) {
        let delivered = (*by(via, message, attempt)).clone();
        let rank = u8::from(message.gateway() != sign(message.message().clone()).gateway());
        let mut out = Vec::new();
        let fate = self.sequencer.push(Arc::new(Delivered { rank, ..delivered }), &mut out);
        for output in &out {
            match output {
                Output::Message(m) => self.held.push((m.key.message, m.rank)),
                Output::Retracted { .. } => self.held.clear(),
            }
        }
        (fate, out.iter().map(describe).collect())
    }

    fn turbine(&mut self, message: &VerifiedMessage, attempt: u8) -> Vec<String> {
        self.push(Via::Turbine, message, attempt).1
    }

    fn gossip(&mut self, message: &VerifiedMessage) -> Vec<String> {
        self.push(Via::Gossip, message, 0).1
    }
}

#[test]
fn the_scheduled_gateway_supersedes_a_whole_block_of_its_substitute() {
    let mut bench = Bench::new();
    let own = [env_at(7, 1), frag_with(7, 0, false, 1), seal(7, 1)];
    let others = [env_at(7, 2), frag_with(7, 0, false, 2), seal(7, 1)].map(|m| substitute(&m));
    for (message, out) in others.iter().zip(["7.0.0", "7.0.1", "7.0.2"]) {
        assert_eq!(bench.turbine(message, 0), [out]);
    }
    assert_eq!(bench.held, [(0, 1), (1, 1), (2, 1)]);
    assert_eq!(bench.turbine(&own[1], 2), [""; 0], "its Env is missing");
    assert_eq!(bench.turbine(&own[0], 2), ["-7.0 superseded", "7.2.0", "7.2.1"]);
    assert_eq!(bench.turbine(&own[2], 2), ["7.2.2"]);
    assert_eq!(bench.held, [(0, 0), (1, 0), (2, 0)]);
    let again = substitute(&env_at(7, 3));
    assert_eq!(bench.push(Via::Turbine, &again, 1), (Fate::Stale, vec![]));
    assert_eq!(bench.gossip(&again), [""; 0]);
}

/// Env and Seal follow from what the sequencer of the chain demands, so both make the same.
#[test]
fn an_env_that_both_have_signed_is_the_scheduled_gateways() {
    for by_gossip in [false, true] {
        let mut bench = Bench::new();
        let push = |bench: &mut Bench, message: &VerifiedMessage, attempt| match by_gossip {
            true => bench.gossip(message),
            false => bench.turbine(message, attempt),
        };
        let frags = [1, 2].map(|tx| frag_with(7, 0, false, tx));
        let (env, seal) = (env(7), seal(7, 1));
        let block = [&env, &frags[1], &seal].map(substitute);
        let out: Vec<String> = block.iter().flat_map(|m| push(&mut bench, m, 0)).collect();
        assert_eq!(out, ["7.0.0", "7.0.1", "7.0.2"]);
        // The frags of the substitute stay until there is something to put in their place.
        assert_eq!(push(&mut bench, &env, 2), [""; 0], "gossip: {by_gossip}");
        let out = push(&mut bench, &frags[0], 2);
        assert_eq!(out, ["-7.0 gossip_order", "7.2.0", "7.2.1"], "gossip: {by_gossip}");
        assert_eq!(push(&mut bench, &seal, 2), ["7.2.2"], "gossip: {by_gossip}");
        assert_eq!(bench.held, [(0, 0), (1, 0), (2, 0)]);
    }
}

#[test]
fn over_gossip_nobodys_frags_go_with_the_env_of_another() {
    let mut bench = Bench::new();
    let own = [env_at(7, 1), frag_with(7, 0, false, 1), frag_with(7, 1, false, 1)];
    let others = [env_at(7, 2), frag_with(7, 0, false, 2)].map(|m| substitute(&m));
    assert_eq!(bench.gossip(&own[1]), [""; 0]);
    assert_eq!(bench.gossip(&others[0]), ["7.0.0"]);
    assert_eq!(bench.gossip(&own[2]), [""; 0]);
    assert_eq!(bench.gossip(&others[1]), ["7.0.1"]);
    let out = bench.gossip(&own[0]);
    assert_eq!(out, ["-7.0 superseded", "7.2.0", "7.2.1", "7.2.2"]);
    // The other way round the substitute has nothing to say.
    let mut bench = Bench::new();
    own.iter().for_each(|message| drop(bench.gossip(message)));
    assert_eq!(others.iter().flat_map(|message| bench.gossip(message)).count(), 0);
    assert_eq!(bench.held, [(0, 0), (1, 0), (2, 0)]);
}

#[test]
fn a_later_env_of_gossips_is_newer_than_the_first_attempt_of_the_scheduled_gateway() {
    let mut bench = Bench::new();
    assert_eq!(bench.turbine(&env_at(7, 1), 2), ["7.2.0"]);
    assert_eq!(bench.gossip(&env_at(7, 2)), ["-7.2 superseded", "7.3.0"]);
    assert_eq!(bench.turbine(&env_at(7, 2), 3), [""; 0]);
    assert_eq!(bench.gossip(&substitute(&env_at(7, 3))), [""; 0]);
}

#[test]
fn a_substitute_that_signs_without_end_takes_nothing_of_another() {
    let mut sequencer = Sequencer::new(3);
    let mut push = |via, message: &VerifiedMessage, attempt, rank| {
        let delivered = Delivered { rank, ..(*by(via, message, attempt)).clone() };
        let mut out = Vec::new();
        let fate = sequencer.push(Arc::new(delivered), &mut out);
        (fate, out.iter().map(describe).collect::<Vec<_>>())
    };
    let third = GatewayKey::from_bytes([0x33; 32]).unwrap();
    let by_third = |message: VerifiedMessage| third.sign_verified(message.message().clone());
    let fates: Vec<Fate> = (0..MAX_SUBSTITUTED as u64 + 1)
        .map(|seq| push(Via::Turbine, &by_third(frag(7, seq)), 0, 3).0)
        .collect();
    let (last, before) = fates.split_last().unwrap();
    assert!(before.iter().all(|fate| *fate == Fate::Waiting));
    assert_eq!(*last, Fate::OutOfBounds);
    // Attempts 4 and 5 are those of the first substitute.
    let block = [env_at(7, 1), frag_with(7, 0, false, 1), seal(7, 1)].map(|m| substitute(&m));
    let out: Vec<String> =
        block.iter().flat_map(|message| push(Via::Turbine, message, 4, 1).1).collect();
    assert_eq!(out, ["7.4.0", "7.4.1", "7.4.2"]);
}

#[test]
fn what_waits_of_a_substitute_is_not_charged_to_who_leads() {
    let tx = vec![1; 8 * 1024 * 1024];
    let big = |block, seq| BlockBuilder::new(block).frag_at(seq, [tx.clone()]);
    let key = GatewayKey::from_bytes([0x22; 32]).unwrap();
    let mut bench = Bench::new();
    // The scheduled gateway's frags wait for their Env; of block 9 only its substitute's are here.
    for block in [7, 8] {
        bench.turbine(&sign(big(block, 0)), 2);
    }
    bench.turbine(&key.sign_verified(big(9, 0)), 0);
    for seq in 1..12 {
        bench.turbine(&key.sign_verified(big(8, seq)), 0);
        assert!(bench.sequencer.waiting() <= MAX_WAITING);
    }
    for block in [7, 8, 9] {
        let waiting = bench.sequencer.blocks[&block].held().waiting;
        assert!(waiting > tx.len(), "it is where it was, in block {block}");
    }
    // What was dropped may come again.
    let again = key.sign_verified(big(8, 1));
    assert_eq!(bench.push(Via::Turbine, &again, 0).0, Fate::Waiting);
    assert_eq!(bench.turbine(&env(8), 2), ["8.2.0", "8.2.1"]);
    assert_eq!(bench.turbine(&env(7), 2), ["7.2.0", "7.2.1"]);
}

#[test]
fn a_substitute_that_signs_without_end_leaves_room() {
    let mut bench = Bench::new();
    for n in 0..2 * MAX_SUBSTITUTED as u64 {
        bench.gossip(&substitute(&frag(7, n + 1)));
        bench.gossip(&substitute(&env_at(7, n)));
    }
    let [env, frag] = [env_at(7, u64::MAX), frag(7, 0)];
    assert_eq!(bench.gossip(&env).len(), 2, "what was there is void, and this is here");
    assert_eq!(bench.held, [(0, 0)]);
    bench.turbine(&env, 2);
    bench.turbine(&frag, 2);
    assert_eq!(bench.held, [(0, 0), (1, 0)]);
}
