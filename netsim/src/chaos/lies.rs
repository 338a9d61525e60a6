//! What liars send.
//!
//! A lie speaks fifty times a second while it lasts. Its victims are a few nodes drawn once for it;
//! split lies tell each half of all nodes something else.

use std::collections::VecDeque;

use alloy_primitives::B256;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use fragcast_shredder::{
    BlockBuilder, Commitment, EquivocationProof, Kind, Message, MessageKey, ShreddedMessage,
    ShreddedSet, Timestamp,
};
use fragcast_turbine::control::{
    Hello, Listeners, MAX_ANSWER_SHREDS, MAX_TIPS, MessagePart, RepairRequest, RepairShreds, Tip,
    Tips, WHOLE,
};
use fragcast_turbine::{Control, Evidence, Plan};
use rand::RngCore as _;

use super::chain::{CHAIN, Chain, current, gateway_key, leader_key};
use super::plan::{LIAR, Lie};
use crate::random::{self, Stream};
use crate::{MILLIS, Nanos, SECONDS};

/// Time between two things that a lie says.
pub(super) const TICK: Nanos = 20 * MILLIS;
/// Recorded shreds, the oldest go first.
const RECORDED: usize = 4_096;
/// Nodes that a lie is told to, if it is not told to all.
pub(super) const VICTIMS: usize = 4;

/// To whom something is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// The lie's victims.
    Victims,
    /// Nodes with even numbers, or those with odd ones.
    Half(u32),
    /// Who listens to gossip.
    Gossip,
}

/// Something that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    Shred(Bytes),
    Frame(Bytes),
    Gossip(Kind, Bytes),
}

/// What liars have in common: recordings, and keys of their own making.
#[derive(Debug)]
pub(super) struct Lies {
    random: Stream,
    recorded: VecDeque<Bytes>,
    wires: VecDeque<(Kind, Bytes)>,
    /// Counts what was said, so that nothing is said twice.
    counter: u64,
}

fn frame(control: &Control) -> Raw {
    Raw::Frame(control.to_bytes())
}

fn commitment(set: &ShreddedSet) -> Commitment {
    let shred = &set.shreds[0];
    let signature = *shred.last_chunk().expect("a shred ends with its signature");
    Commitment { header: set.header, root: set.root, signature }
}

fn shreds(cut: &ShreddedMessage) -> impl Iterator<Item = Raw> {
    cut.sets.iter().flat_map(|set| set.shreds.iter().cloned()).map(Raw::Shred)
}

impl Lies {
    pub(super) fn new(seed: u64) -> Self {
        let random = random::stream(seed, "chaos lies", 0);
        Self { random, recorded: VecDeque::new(), wires: VecDeque::new(), counter: 0 }
    }

    /// A shred was sent by a leader: liars may send it again.
    pub(super) fn record(&mut self, shred: &Bytes) {
        if self.recorded.len() == RECORDED {
            self.recorded.pop_front();
        }
        self.recorded.push_back(shred.clone());
    }

    /// Likewise a message.
    pub(super) fn record_wire(&mut self, kind: Kind, wire: Bytes) {
        if self.wires.len() == 64 {
            self.wires.pop_front();
        }
        self.wires.push_back((kind, wire));
    }

    fn below(&mut self, n: u64) -> u64 {
        random::below(&mut self.random, n as usize) as u64
    }

    fn junk(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.random.fill_bytes(&mut bytes);
        bytes
    }

    fn recording(&mut self) -> Option<Bytes> {
        let at = random::below(&mut self.random, self.recorded.len().max(1));
        self.recorded.get(at).cloned()
    }

    /// A block of the lying gateway among those that nodes take.
    fn own_block(&mut self, now: Nanos, chain: &Chain) -> u64 {
        let from = current(now).saturating_sub(self.below(60));
        chain.next_of(LIAR, from)
    }

    /// A frag of the lying gateway that nobody else has signed.
    fn frag(&mut self, block: u64, chain: &Chain, len: usize) -> (MessageKey, Vec<u8>) {
        self.counter += 1;
        let seq = 1_000 + self.counter % 60_000;
        let tx = self.junk(len);
        let frag: Message = BlockBuilder::new(block).frag_at(seq, [tx]).into();
        let message = frag.index().expect("a small number");
        let wire = chain.gateways[LIAR as usize].sign(frag).to_wire();
        (MessageKey { block, attempt: 0, message }, wire)
    }

    /// Says something. `tick` counts how often this lie has spoken.
    pub(super) fn say(
        &mut self,
        lie: Lie,
        (now, tick): (Nanos, u64),
        sent_at: Timestamp,
        chain: &Chain,
    ) -> Vec<(Audience, Raw)> {
        let key = &chain.leaders[LIAR as usize];
        let victims = |raw: Vec<Raw>| raw.into_iter().map(|raw| (Audience::Victims, raw)).collect();
        match lie {
            Lie::FarBlock => self.far_block(tick, (now, sent_at), chain),
            Lie::Recording => {
                let Some(shred) = self.recording() else { return Vec::new() };
                if tick == 0 {
                    let mut junk = shred.to_vec();
                    junk[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
                    return victims(vec![Raw::Shred(junk.into())]);
                }
                let more = (0..8).filter_map(|_| self.recording()).map(Raw::Shred);
                victims(more.collect())
            }
            Lie::HalfSets => {
                let half = (0..6).map(|_| {
                    let block = self.own_block(now, chain);
                    let (place, wire) = self.frag(block, chain, 2_000);
                    let cut = chain.cut(key, place, Kind::Frag, &wire, sent_at);
                    Raw::Shred(cut.sets[0].shreds[0].clone())
                });
                victims(half.collect())
            }
            Lie::Plans => {
                self.counter += 1;
                let leader = key.verifying_key().to_bytes();
                let plan = Plan {
                    version: self.counter,
                    effective: self.below(current(now)),
                    ..Plan::configured(CHAIN, leader, &chain.members)
                };
                victims(vec![frame(&Control::Plan(plan.sign(key)))])
            }
            Lie::Equivocations => {
                let block = self.own_block(now, chain);
                victims(self.equivocation(block, key, sent_at, chain))
            }
            Lie::SplitMessage if tick.is_multiple_of(10) => {
                let block = chain.next_of(LIAR, current(now).saturating_sub(1));
                let (place, wire) = self.frag(block, chain, 3_000);
                let (_, other) = self.frag(block, chain, 3_000);
                let other = reindexed(&other, place, chain);
                self.split(place, [&wire, &other], [sent_at; 2], key, chain)
            }
            Lie::SplitHeader if tick.is_multiple_of(10) => {
                let block = chain.next_of(LIAR, current(now).saturating_sub(1));
                let (place, wire) = self.frag(block, chain, 3_000);
                let later = sent_at + std::time::Duration::from_millis(1);
                self.split(place, [&wire, &wire], [sent_at, later], key, chain)
            }
            Lie::SplitMessage | Lie::SplitHeader => Vec::new(),
            Lie::TwinDelegations => self.twins(tick, (now, sent_at), chain),
            Lie::Strangers => victims(self.strangers(now, sent_at, chain)),
            Lie::Greetings => {
                let hello = |table| Hello { version: 1, chain_id: CHAIN, table };
                let tables = [self.random_table(), self.random_table()];
                victims(tables.map(|table| frame(&Control::Hello(hello(table)))).into())
            }
            Lie::Tips => victims(vec![self.tips(now)]),
            Lie::Requests => victims((0..6).map(|_| self.request(now)).collect()),
            Lie::Answers => victims(self.answers()),
            Lie::Garbage => {
                let len = self.below(1_300) as usize;
                let datagram = Raw::Shred(self.junk(len).into());
                let len = self.below(3_000) as usize;
                victims(vec![datagram, Raw::Frame(self.junk(len).into())])
            }
            Lie::GossipJunk => self.gossip_junk(),
        }
    }

    fn random_table(&mut self) -> [u8; 32] {
        let mut table = [0; 32];
        self.random.fill_bytes(&mut table);
        table
    }

    fn far_block(
        &mut self,
        tick: u64,
        (now, sent_at): (Nanos, Timestamp),
        chain: &Chain,
    ) -> Vec<(Audience, Raw)> {
        if !tick.is_multiple_of(10) {
            return Vec::new();
        }
        let ahead = [1 << 40, 10_000, 100, 9, u64::MAX / 2][self.below(5) as usize];
        let block = chain.next_of(LIAR, current(now).saturating_add(ahead));
        let gateway = &chain.gateways[LIAR as usize];
        let mut env = chain.env(block, 0);
        if self.below(2) == 0 {
            // As if the chain were there now.
            env.timestamp = sent_at.as_nanos() / SECONDS;
        }
        let builder = BlockBuilder::from_env(env);
        let mut said = Vec::new();
        for message in [Message::from(builder.env()), builder.seal_of(0).into()] {
            let (kind, index) = (message.kind(), message.index().expect("Env or Seal"));
            let wire = gateway.sign(message).to_wire();
            let place = MessageKey { block, attempt: 0, message: index };
            let key = &chain.leaders[LIAR as usize];
            let cut = chain.cut(key, place, kind, &wire, sent_at);
            said.extend(shreds(&cut).map(|raw| (Audience::Victims, raw)));
            said.push((Audience::Gossip, Raw::Gossip(kind, wire.into())));
        }
        said
    }

    fn equivocation(
        &mut self,
        block: u64,
        key: &SigningKey,
        sent_at: Timestamp,
        chain: &Chain,
    ) -> Vec<Raw> {
        let (place, wire) = self.frag(block, chain, 500);
        let mut other = wire.clone();
        let last = other.len() - 1;
        other[last] ^= 1;
        let [first, second] = [&wire, &other].map(|wire| {
            let cut = chain.cut(key, place, Kind::Frag, wire, sent_at);
            commitment(&cut.sets[0])
        });
        let key = key.verifying_key().to_bytes();
        let proof = EquivocationProof { chain_id: CHAIN, key, first, second };
        let delegation = chain.delegations[LIAR as usize];
        vec![frame(&Control::Evidence(Box::new(Evidence { delegation, proof })))]
    }

    fn split(
        &self,
        place: MessageKey,
        wires: [&[u8]; 2],
        sent_at: [Timestamp; 2],
        key: &SigningKey,
        chain: &Chain,
    ) -> Vec<(Audience, Raw)> {
        let mut said = Vec::new();
        for (half, (wire, sent_at)) in (0..).zip(wires.into_iter().zip(sent_at)) {
            let cut = chain.cut(key, place, Kind::Frag, wire, sent_at);
            said.extend(shreds(&cut).map(|raw| (Audience::Half(half), raw)));
        }
        said
    }

    fn twins(
        &mut self,
        tick: u64,
        (now, sent_at): (Nanos, Timestamp),
        chain: &Chain,
    ) -> Vec<(Audience, Raw)> {
        if !tick.is_multiple_of(25) {
            return Vec::new();
        }
        if tick == 0 {
            self.counter += 1;
        }
        let first = chain.next_of(LIAR, current(now).saturating_sub(2));
        let mut said = Vec::new();
        for half in 0..2u32 {
            let key = leader_key(1_000 + u64::from(half));
            if tick == 0 {
                let range = (first, first + 40);
                let signed = chain.delegate(LIAR, &key, 1_000 + self.counter, range);
                said.push((Audience::Half(half), frame(&Control::Delegation(signed))));
                continue;
            }
            let block = self.own_block(now, chain).max(first);
            let (place, wire) = self.frag(block, chain, 2_000);
            let cut = chain.cut(&key, place, Kind::Frag, &wire, sent_at);
            // To its own half, whose relays send it to everybody.
            said.extend(shreds(&cut).map(|raw| (Audience::Half(half), raw)));
        }
        said
    }

    fn strangers(&mut self, now: Nanos, sent_at: Timestamp, chain: &Chain) -> Vec<Raw> {
        self.counter += 1;
        let (stranger, key) = (gateway_key(1_000 + self.counter), leader_key(2_000 + self.counter));
        let delegation = chain.delegate(LIAR, &key, 1, (0, u64::MAX)).delegation.sign(&stranger);
        let place = MessageKey { block: current(now), attempt: 0, message: 1 };
        let [first, second] = [1, 2].map(|byte| {
            let cut = chain.cut(&key, place, Kind::Frag, &[byte; 300], sent_at);
            commitment(&cut.sets[0])
        });
        let key = key.verifying_key().to_bytes();
        let proof = EquivocationProof { chain_id: CHAIN, key, first, second };
        let evidence = Control::Evidence(Box::new(Evidence { delegation, proof }));
        let ids = (0..8).map(|_| self.random.next_u64()).collect();
        let listeners = Control::Listeners(Listeners { ids });
        vec![frame(&Control::Delegation(delegation)), frame(&evidence), frame(&listeners)]
    }

    fn tips(&mut self, now: Nanos) -> Raw {
        let tips = (0..MAX_TIPS).map(|_| {
            let block = match self.below(8) {
                0 => self.random.next_u64(),
                _ => (current(now) + 8).saturating_sub(self.below(16)),
            };
            let (row, above) =
                (self.below(60_000) as u16 >> self.below(16), self.random.next_u64());
            Tip { block, attempt: self.below(8) as u8, row, above }
        });
        frame(&Control::Tips(Tips { tips: tips.collect() }))
    }

    fn request(&mut self, now: Nanos) -> Raw {
        frame(&Control::RepairRequest(RepairRequest {
            nonce: self.random.next_u64(),
            block: current(now).saturating_sub(self.below(6)),
            attempt: (self.below(10) / 9) as u8,
            message: self.below(6) as u16,
            set: if self.below(2) == 0 { WHOLE } else { self.below(3) as u16 },
            have: self.random.next_u64(),
        }))
    }

    fn answers(&mut self) -> Vec<Raw> {
        let shreds: Vec<Bytes> = (0..MAX_ANSWER_SHREDS).filter_map(|_| self.recording()).collect();
        let nonce = self.below(1_000);
        let mut said = vec![frame(&Control::RepairShreds(RepairShreds { nonce, shreds }))];
        let wire = Bytes::from(self.junk(5_000));
        said.extend(
            MessagePart::of(nonce, Kind::Frag, &wire, 0)
                .map(|part| frame(&Control::MessagePart(part))),
        );
        said
    }

    fn gossip_junk(&mut self) -> Vec<(Audience, Raw)> {
        let len = 65 + self.below(600) as usize;
        let junk = self.junk(len);
        let mut said = vec![Raw::Gossip(Kind::Frag, junk.into())];
        if !self.wires.is_empty() {
            let at = random::below(&mut self.random, self.wires.len());
            let (kind, wire) = self.wires[at].clone();
            let (mut form, mut changed) = (wire.to_vec(), wire.to_vec());
            // v of 27 or 28, and any byte changed.
            form[64] = 27 + form[64] % 2;
            let byte = random::below(&mut self.random, changed.len());
            changed[byte] ^= 1 << self.below(8);
            said.push(Raw::Gossip(kind, form.into()));
            said.push(Raw::Gossip(kind, changed.into()));
            said.push(Raw::Gossip(kind, wire));
        }
        said.into_iter().map(|raw| (Audience::Gossip, raw)).collect()
    }
}

/// The frag in `wire` under the index of another one, signed anew.
fn reindexed(wire: &[u8], place: MessageKey, chain: &Chain) -> Vec<u8> {
    let tx = wire[wire.len() - 100..].to_vec();
    let content = B256::from(*blake3::hash(wire).as_bytes());
    let txs = [tx, content.to_vec()];
    let frag = BlockBuilder::new(place.block).frag_at(u64::from(place.message) - 1, txs);
    chain.gateways[LIAR as usize].sign(frag).to_wire()
}

#[cfg(test)]
mod tests {
    use super::super::chain::EPOCH;
    use super::*;
    use strum::VariantArray as _;

    /// Each lie says something, and is well formed where it has to be.
    #[test]
    fn every_lie_speaks() {
        let chain = Chain::new(1, 12);
        let mut lies = Lies::new(1);
        let now = 60 * SECONDS;
        let at = Timestamp::from_nanos(EPOCH + now);
        let (place, wire) = lies.frag(chain.next_of(LIAR, current(now)), &chain, 3_000);
        let cut = chain.cut(&chain.leaders[LIAR as usize], place, Kind::Frag, &wire, at);
        cut.sets[0].shreds.iter().for_each(|shred| lies.record(shred));
        lies.record_wire(Kind::Frag, wire.into());
        for lie in Lie::VARIANTS {
            let said: Vec<_> =
                (0..30).flat_map(|tick| lies.say(*lie, (now, tick), at, &chain)).collect();
            assert!(said.len() > 2, "{lie:?}");
            for (audience, raw) in said {
                match raw {
                    Raw::Frame(bytes) if *lie != Lie::Garbage => {
                        assert!(Control::from_bytes(&bytes).is_ok(), "{lie:?}");
                    }
                    Raw::Gossip(..) => assert_eq!(audience, Audience::Gossip),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn the_evidence_of_equivocation_is_sound() {
        let chain = Chain::new(1, 12);
        let mut lies = Lies::new(1);
        let at = Timestamp::from_nanos(EPOCH);
        let block = chain.next_of(LIAR, 1_050);
        let key = &chain.leaders[LIAR as usize];
        let said = lies.equivocation(block, key, at, &chain);
        let Some(Raw::Frame(bytes)) = said.first() else { panic!("{said:?}") };
        let Ok(Control::Evidence(evidence)) = Control::from_bytes(bytes) else { panic!() };
        assert_eq!(evidence.verify(), Ok(chain.gateways[LIAR as usize].address()));
    }
}
