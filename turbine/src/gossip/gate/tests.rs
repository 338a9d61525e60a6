//! Every vector of the existing system through the gate, and everything that must not pass.

use alloy_primitives::{B256, Bytes, U256, hex};
use fragcast_shredder::{BlockBuilder, GatewayKey, Message, SignedMessage};
use proptest::prelude::*;

use super::seen::{MAX_OF_BLOCK, MAX_VERSIONS};
use super::*;
use crate::epoch::Epoch;
use crate::membership::Membership;
use crate::schedule::Schedule;
use crate::testing;

const H: &str = "e75fae0065403d4091f3d6549c4219db69c96d9de761cfc75fe9792b6166c758";

/// Kind, dialect (none: both), body and root of each vector.
fn vectors() -> Vec<(Kind, Option<Dialect>, Vec<u8>, B256)> {
    let env = format!(
        "0100000000000000{H}1234567890123456789012345678901234567890\
         020000000000000003000000000000000400000000000000\
         0500000000000000000000000000000000000000000000000000000000000000\
         {H}b8000000010203{H}"
    );
    let seal =
        format!("08000000000000007b00000000000000a86100000000000040420f0000000000{}", H.repeat(5));
    let (v0, blob) = (Some(Dialect::V0), Some(Dialect::V0Blob));
    let vectors = [
        (Kind::Env, None, env, "fa09df7670737568ba783dfd934e19b06e6681e367a866a5647449bd4e5ca324"),
        (
            Kind::Frag,
            v0,
            "01000000000000000000000000000000011500000004000000010203".into(),
            "2a5ebad20a81878e5f229928e5c2043580051673b89a7a286008d30f62b10963",
        ),
        (
            Kind::Frag,
            blob,
            "010000000000000000000000000000000100000000000000001d00000004000000010203".into(),
            "03ad6cf2f1dcaa15376a664e013eb33765310ef6fe22247096593834350b4fca",
        ),
        (
            Kind::Frag,
            v0,
            "070000000000000003000000000000000015000000080000000b00000001020304050607".into(),
            "dac4143ca4a13445c6d07e7f16b35598a92d912a5c506599055784943ef05108",
        ),
        (
            Kind::Frag,
            blob,
            "070000000000000003000000000000000000000000000000001d000000080000000b00000001020304050607"
                .into(),
            "63d9b95a9b737290e280e4ac8e15ca1115a9546ffebaf578fa73fd487ed34bcd",
        ),
        (
            Kind::Seal,
            v0,
            seal.clone(),
            "e86afda21ddc7338c7e84561681fde45e2ab55cce8cde3163e0ae5f1c378439e",
        ),
        (
            Kind::Seal,
            blob,
            format!("{seal}0000000000000000"),
            "e86afda21ddc7338c7e84561681fde45e2ab55cce8cde3163e0ae5f1c378439e",
        ),
        (
            Kind::Seal,
            blob,
            format!("{seal}0100000000000000"),
            "efccff69077bc6a2531c80e19a4aca20d15bef1452a873e6b66c39b71d9ce2a3",
        ),
    ];
    let decoded = vectors.into_iter().map(|(kind, dialect, body, root)| {
        (kind, dialect, hex::decode(body).unwrap(), root.parse().unwrap())
    });
    decoded.collect()
}

fn gateway_at(place: u8) -> GatewayKey {
    GatewayKey::from_bytes([0x11 + place; 32]).unwrap()
}

/// Led by [`testing::gateway`] in blocks 0–29, by another in 30–59, and again.
fn gate_of(dialect: Dialect) -> Gate {
    let gateways = vec![gateway_at(0).address(), gateway_at(1).address()];
    Gate::new(dialect, testing::epochs(Schedule::new(gateways, 30).unwrap()))
}

fn gate() -> Gate {
    gate_of(Dialect::V0)
}

fn signed_by(key: &GatewayKey, root: &B256, body: &[u8]) -> Bytes {
    [key.sign_digest(root).as_bytes(), body].concat().into()
}

fn frag(block_number: u64, seq: u64, tx: u8) -> Message {
    BlockBuilder::new(block_number).frag_at(seq, [vec![tx; 20]]).into()
}

/// Signed by the gateway of the block.
fn wire(message: Message) -> Bytes {
    let place = message.block() / 30 % 2;
    gateway_at(place as u8).sign(message).to_wire().into()
}

fn with(data: &Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = data.to_vec();
    change(&mut bytes);
    bytes.into()
}

fn other_v(data: &Bytes) -> Bytes {
    with(data, |bytes| bytes[64] += 27)
}

fn high_s(data: &Bytes) -> Bytes {
    let order = U256::from_be_bytes(hex!(
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
    ));
    with(data, |bytes| {
        let s = order - U256::from_be_slice(&bytes[32..64]);
        bytes[32..64].copy_from_slice(&s.to_be_bytes::<32>());
        bytes[64] ^= 1;
    })
}

/// What becomes of a message, having checked that the verdict is the outcome's.
fn outcome(gate: &mut Gate, kind: Kind, data: &Bytes) -> GossipOutcome {
    let checked = gate.check(kind, data);
    assert_eq!(checked.verdict, checked.outcome.verdict());
    let is_handed_on = matches!(checked.outcome, GossipOutcome::Accepted | GossipOutcome::OtherV);
    assert_eq!(checked.message.is_some(), is_handed_on, "{:?}", checked.outcome);
    checked.outcome
}

#[track_caller]
fn rejects(gate: &mut Gate, kind: Kind, data: &Bytes, expected: GossipOutcome) {
    let before = gate.remembered();
    assert_eq!(outcome(gate, kind, data), expected);
    let verdict = if expected.is_foreign() { Verdict::Ignore } else { Verdict::Reject };
    assert_eq!(expected.verdict(), verdict);
    assert_eq!(gate.remembered(), before, "what fails leaves nothing behind");
}

#[test]
fn every_vector_passes_in_its_dialect_and_no_other() {
    let key = gateway_at(0);
    for dialect in [Dialect::V0, Dialect::V0Blob] {
        for (kind, own, body, root) in vectors() {
            let mut gate = gate_of(dialect);
            // Block 123 is the first gateway's as well.
            let data = signed_by(&key, &root, &body);
            if own.is_some_and(|own| own != dialect) {
                rejects(&mut gate, kind, &data, GossipOutcome::Dialect);
                continue;
            }
            let checked = gate.check(kind, &data);
            assert_eq!(
                (checked.verdict, checked.outcome),
                (Verdict::Accept, GossipOutcome::Accepted)
            );
            let message = checked.message.unwrap();
            assert_eq!((message.root(), message.message().kind()), (root, kind));
            assert_eq!(message.to_wire(), data, "byte for byte");
            assert_eq!(outcome(&mut gate, kind, &data), GossipOutcome::Duplicate);
        }
    }
}

#[test]
fn an_empty_frag_passes() {
    let data = wire(BlockBuilder::new(5).frag_at(1, Vec::<Bytes>::new()).into());
    assert_eq!(hex::encode(&data[65..]), "050000000000000001000000000000000015000000");
    assert_eq!(outcome(&mut gate(), Kind::Frag, &data), GossipOutcome::Accepted);
}

#[test]
fn a_message_cut_anywhere_or_with_a_byte_more_does_not_pass() {
    let key = gateway_at(0);
    for (kind, dialect, body, root) in vectors() {
        let mut gate = gate_of(dialect.unwrap_or_default());
        let whole = signed_by(&key, &root, &body);
        for len in 0..whole.len() {
            let cut = gate.check(kind, &whole.slice(..len));
            // What still decodes is signed by nobody that is known, or is of the other dialect.
            let decodes = cut.outcome.is_foreign() && cut.message.is_none();
            assert!(decodes || cut.verdict == Verdict::Reject, "{kind:?} {len}");
        }
        for byte in [0, 1, 0xff] {
            let longer = with(&whole, |bytes| bytes.push(byte));
            assert_ne!(gate.check(kind, &longer).verdict, Verdict::Accept, "{kind:?}");
        }
        assert_eq!(gate.remembered(), 0);
        assert_eq!(outcome(&mut gate, kind, &whole), GossipOutcome::Accepted);
    }
    rejects(&mut gate(), Kind::Seal, &Bytes::new(), GossipOutcome::Truncated);
    rejects(&mut gate(), Kind::Seal, &vec![1; 64].into(), GossipOutcome::Truncated);
    rejects(&mut gate(), Kind::Seal, &vec![1; 65 + 191].into(), GossipOutcome::Truncated);
    rejects(&mut gate(), Kind::Seal, &vec![1; 65 + 193].into(), GossipOutcome::Malformed);
}

#[test]
fn the_longest_message_passes_and_a_longer_one_is_not_even_decoded() {
    let mut gate = gate();
    let fixed = 65 + 21 + 4;
    let long = |len: usize| wire(BlockBuilder::new(1).frag([vec![7; len - fixed]]).into());
    rejects(&mut gate, Kind::Frag, &long(11 << 20), GossipOutcome::TooLong);
    rejects(&mut gate, Kind::Frag, &long(MAX_MESSAGE_LEN + 1), GossipOutcome::TooLong);
    rejects(&mut gate, Kind::Env, &vec![0; 11 << 20].into(), GossipOutcome::TooLong);
    let longest = long(MAX_MESSAGE_LEN);
    assert_eq!(longest.len(), MAX_MESSAGE_LEN);
    assert_eq!(outcome(&mut gate, Kind::Frag, &longest), GossipOutcome::Accepted);
}

#[test]
fn a_topic_takes_only_its_own_kind() {
    for (sent, data) in [
        (Kind::Env, testing::env(3).to_wire()),
        (Kind::Frag, testing::frag(3, 0).to_wire()),
        (Kind::Seal, testing::seal(3, 1).to_wire()),
    ] {
        for kind in [Kind::Env, Kind::Frag, Kind::Seal] {
            let checked = gate().check(kind, &data.clone().into());
            let expected = if kind == sent { Verdict::Accept } else { Verdict::Reject };
            assert_eq!(checked.verdict, expected, "{sent:?} as {kind:?}");
        }
    }
}

#[test]
fn who_is_no_gateway_that_we_know_and_a_gateway_out_of_turn_are_ignored() {
    let mut gate = gate();
    let by = |place| Bytes::from(gateway_at(place).sign(frag(3, 0, 1)).to_wire());
    rejects(&mut gate, Kind::Frag, &by(2), GossipOutcome::WrongSigner);
    assert_eq!(outcome(&mut gate, Kind::Frag, &by(1)), GossipOutcome::NotScheduled);
    assert_eq!(outcome(&mut gate, Kind::Frag, &other_v(&by(1))), GossipOutcome::NotScheduled);
    assert_eq!(gate.remembered(), 0);
    assert_eq!(outcome(&mut gate, Kind::Frag, &by(0)), GossipOutcome::Accepted);
    // In its own term the other one leads.
    let later = Bytes::from(gateway_at(1).sign(frag(33, 0, 1)).to_wire());
    assert_eq!(outcome(&mut gate, Kind::Frag, &later), GossipOutcome::Accepted);
}

#[test]
fn signatures_that_nobody_makes_are_rejected() {
    let mut gate = gate();
    let good = wire(frag(3, 0, 1));
    // Anybody can make the high form of a good one: it is not taken, and nobody is blamed.
    for high in [high_s(&good), other_v(&high_s(&good))] {
        let checked = gate.check(Kind::Frag, &high);
        assert_eq!((checked.verdict, checked.outcome), (Verdict::Ignore, GossipOutcome::HighS));
        assert!(checked.message.is_none());
    }
    for v in (2..27).chain(29..=255) {
        let bad = with(&good, |bytes| bytes[64] = v);
        rejects(&mut gate, Kind::Frag, &bad, GossipOutcome::BadSignature);
    }
    for (r, s) in [(0, 1), (1, 0), (0xff, 1), (1, 0xff), (0, 0), (0xff, 0xff)] {
        let bad = with(&good, |bytes| {
            bytes[..32].fill(r);
            bytes[32..64].fill(s);
        });
        rejects(&mut gate, Kind::Frag, &bad, GossipOutcome::BadSignature);
    }
    // The other parity is some other key's.
    let mirrored = with(&good, |bytes| bytes[64] ^= 1);
    rejects(&mut gate, Kind::Frag, &mirrored, GossipOutcome::WrongSigner);
}

#[test]
fn another_v_after_the_canonical_one_is_a_duplicate() {
    let mut gate = gate();
    let data = wire(frag(3, 0, 1));
    assert_eq!(outcome(&mut gate, Kind::Frag, &data), GossipOutcome::Accepted);
    assert_eq!(outcome(&mut gate, Kind::Frag, &other_v(&data)), GossipOutcome::Duplicate);
    assert_eq!(outcome(&mut gate, Kind::Frag, &data), GossipOutcome::Duplicate);
    assert_eq!(gate.remembered(), 1);
}

#[test]
fn another_v_before_the_canonical_one_does_not_keep_it_from_others() {
    let mut gate = gate();
    let data = wire(frag(3, 0, 1));
    let checked = gate.check(Kind::Frag, &other_v(&data));
    assert_eq!((checked.verdict, checked.outcome), (Verdict::Ignore, GossipOutcome::OtherV));
    let message = checked.message.unwrap();
    assert!(message.signature().is_canonical());
    assert_eq!(message.to_wire(), data);
    assert_eq!(outcome(&mut gate, Kind::Frag, &other_v(&data)), GossipOutcome::Duplicate);
    let checked = gate.check(Kind::Frag, &data);
    assert_eq!((checked.verdict, checked.outcome), (Verdict::Accept, GossipOutcome::Canonical));
    assert!(checked.message.is_none(), "it was handed on before");
    assert_eq!(outcome(&mut gate, Kind::Frag, &data), GossipOutcome::Duplicate);
    assert_eq!(outcome(&mut gate, Kind::Frag, &other_v(&data)), GossipOutcome::Duplicate);
}

#[test]
fn junk_before_a_known_message_is_not_taken_for_it() {
    let mut gate = gate();
    let data = wire(frag(3, 0, 1));
    assert_eq!(outcome(&mut gate, Kind::Frag, &data), GossipOutcome::Accepted);
    let mirrored = with(&data, |bytes| bytes[64] ^= 1);
    rejects(&mut gate, Kind::Frag, &mirrored, GossipOutcome::WrongSigner);
    assert_eq!(outcome(&mut gate, Kind::Frag, &high_s(&data)), GossipOutcome::HighS);
    for at in 0..64 {
        let junk = with(&data, |bytes| bytes[at] ^= 1);
        assert_ne!(gate.check(Kind::Frag, &junk).verdict, Verdict::Accept, "byte {at}");
    }
    assert_eq!(gate.remembered(), 1);
}

#[test]
fn only_the_window_is_looked_at() {
    let mut gate = gate();
    let of = |block| wire(frag(block, 0, 1));
    assert_eq!(outcome(&mut gate, Kind::Frag, &of(5)), GossipOutcome::Accepted);
    gate.set_window(10, 20);
    assert_eq!(gate.remembered(), 0);
    for (block, expected) in [
        (9, GossipOutcome::Past),
        (10, GossipOutcome::Accepted),
        (20, GossipOutcome::Accepted),
        (21, GossipOutcome::Future),
        (u64::MAX, GossipOutcome::Future),
    ] {
        assert_eq!(outcome(&mut gate, Kind::Frag, &of(block)), expected, "{block}");
    }
    // No signature is looked at outside: who sends it costs nothing, and may be honest.
    let junk = with(&of(9), |bytes| bytes[..65].fill(0xff));
    assert_eq!(outcome(&mut gate, Kind::Frag, &junk), GossipOutcome::Past);
    gate.set_window(11, 20);
    assert_eq!(gate.remembered(), 1);
    gate.set_window(0, 12);
    assert_eq!(gate.remembered(), 0, "the window may also move back");
}

#[test]
fn a_number_that_no_shred_carries_is_the_gateways_fault_alone() {
    let mut gate = gate();
    let last = wire(frag(3, 65_534, 1));
    assert_eq!(outcome(&mut gate, Kind::Frag, &last), GossipOutcome::Accepted);
    for seq in [65_535, u64::MAX] {
        let data = wire(frag(3, seq, 1));
        assert_eq!(outcome(&mut gate, Kind::Frag, &data), GossipOutcome::Index);
        let unsigned = with(&data, |bytes| bytes[0] ^= 1);
        assert_eq!(gate.check(Kind::Frag, &unsigned).verdict, Verdict::Reject);
    }
    assert_eq!(gate.remembered(), 1);
}

/// 10 MiB of empty transactions took the tree hash most of a minute.
#[test]
fn a_frag_of_many_empty_transactions_is_not_hashed() {
    let mut gate = gate();
    let many = |count: usize, len: usize| {
        let txs = vec![vec![7; len]; count];
        Message::from(BlockBuilder::new(1).frag(txs))
    };
    let mut junk = vec![1; 65];
    // As many as the list has room for.
    many(1 << 20, 0).encode_body(&mut junk);
    assert_eq!(outcome(&mut gate, Kind::Frag, &junk.into()), GossipOutcome::Crowded);
    for (count, len, expected) in [
        (CROWD, 0, GossipOutcome::Accepted),
        (CROWD + 1, 0, GossipOutcome::Crowded),
        (CROWD + 1, MIN_TX_LEN - 1, GossipOutcome::Crowded),
        (CROWD + 1, MIN_TX_LEN, GossipOutcome::Accepted),
    ] {
        assert_eq!(outcome(&mut gate, Kind::Frag, &wire(many(count, len))), expected);
    }
}

#[test]
fn a_place_has_as_many_versions_as_a_block_has_attempts() {
    let mut gate = gate();
    for version in 0..MAX_VERSIONS as u8 {
        let data = wire(frag(3, 0, version));
        assert_eq!(outcome(&mut gate, Kind::Frag, &data), GossipOutcome::Accepted);
    }
    let ninth = wire(frag(3, 0, MAX_VERSIONS as u8));
    assert_eq!(outcome(&mut gate, Kind::Frag, &ninth), GossipOutcome::Conflict);
    assert_eq!(outcome(&mut gate, Kind::Frag, &other_v(&ninth)), GossipOutcome::Conflict);
    assert_eq!(gate.remembered(), MAX_VERSIONS);
    // Neither the place beside it nor the Seal of the same number is taken.
    assert_eq!(outcome(&mut gate, Kind::Frag, &wire(frag(3, 1, 1))), GossipOutcome::Accepted);
    let seal = testing::seal(3, 0).to_wire().into();
    assert_eq!(outcome(&mut gate, Kind::Seal, &seal), GossipOutcome::Accepted);
    // Known ones are still told apart.
    let first = wire(frag(3, 0, 0));
    assert_eq!(outcome(&mut gate, Kind::Frag, &first), GossipOutcome::Duplicate);
}

#[test]
fn a_gateway_that_signs_without_end_fills_its_own_block_alone() {
    let mut gate = gate();
    for seq in 0..MAX_OF_BLOCK as u64 {
        let data = wire(frag(3, seq, 1));
        assert_eq!(outcome(&mut gate, Kind::Frag, &data), GossipOutcome::Accepted);
    }
    let more = wire(frag(3, MAX_OF_BLOCK as u64, 1));
    assert_eq!(outcome(&mut gate, Kind::Frag, &more), GossipOutcome::Full);
    assert_eq!(gate.remembered(), MAX_OF_BLOCK);
    assert_eq!(outcome(&mut gate, Kind::Frag, &wire(frag(2, 0, 1))), GossipOutcome::Accepted);
    assert_eq!(outcome(&mut gate, Kind::Frag, &wire(frag(4, 0, 1))), GossipOutcome::Accepted);
}

#[test]
fn while_the_head_is_unknown_the_farthest_future_goes_first() {
    let mut gate = gate();
    let first = 1_000;
    for block in first..first + MAX_BLOCKS as u64 {
        let data = wire(frag(block, 0, 1));
        assert_eq!(outcome(&mut gate, Kind::Frag, &data), GossipOutcome::Accepted);
    }
    let farther = wire(frag(first + MAX_BLOCKS as u64, 0, 1));
    assert_eq!(outcome(&mut gate, Kind::Frag, &farther), GossipOutcome::Full);
    let nearer = wire(frag(first - 1, 0, 1));
    assert_eq!(outcome(&mut gate, Kind::Frag, &nearer), GossipOutcome::Accepted);
    assert_eq!(gate.remembered(), MAX_BLOCKS);
    let near = wire(frag(first, 0, 1));
    assert_eq!(outcome(&mut gate, Kind::Frag, &near), GossipOutcome::Duplicate);
    let evicted = wire(frag(first + MAX_BLOCKS as u64 - 1, 0, 1));
    assert_eq!(outcome(&mut gate, Kind::Frag, &evicted), GossipOutcome::Full);
}

/// A node that verifies no Seal has a window that grows without end; what is live must pass.
#[test]
fn a_window_whose_low_end_lags_still_takes_what_is_new() {
    let mut gate = gate();
    for head in 0..4 * MAX_BLOCKS as u64 {
        gate.set_window(0, head + 7);
        let data = wire(frag(head, 0, 1));
        assert_eq!(outcome(&mut gate, Kind::Frag, &data), GossipOutcome::Accepted, "{head}");
        assert!(gate.remembered() <= MAX_BLOCKS);
    }
    assert_eq!(outcome(&mut gate, Kind::Frag, &wire(frag(9, 0, 1))), GossipOutcome::Past);
}

#[test]
fn ten_thousand_junk_messages_leave_nothing_behind() {
    let mut gate = gate();
    let good = wire(frag(3, 0, 1));
    for round in 0..10_000u32 {
        let junk = with(&good, |bytes| {
            bytes[0] ^= 0x55;
            bytes[90..94].copy_from_slice(&round.to_le_bytes());
        });
        assert_ne!(gate.check(Kind::Frag, &junk).verdict, Verdict::Accept);
    }
    assert_eq!(gate.remembered(), 0);
    assert_eq!(outcome(&mut gate, Kind::Frag, &good), GossipOutcome::Accepted);
}

/// Blocks from 100 on are signed by another gateway, whom who is behind does not know.
#[test]
fn gateways_are_those_of_the_blocks_epoch() {
    let schedule = |place| Schedule::new(vec![gateway_at(place).address()], 30).unwrap();
    let epoch = |from, place| {
        let members = Arc::new(Membership::new(5, Vec::new()).unwrap());
        Arc::new(Epoch::new(5, from, members, schedule(place), []).unwrap())
    };
    let view = |epochs: &[&Arc<Epoch>]| {
        Arc::new(EpochsView::new(epochs.iter().map(|epoch| Arc::clone(epoch)).collect()).unwrap())
    };
    let (old, new) = (epoch(10, 0), epoch(100, 1));
    let by = |place, block| Bytes::from(gateway_at(place).sign(frag(block, 0, 1)).to_wire());
    let mut gate = Gate::new(Dialect::V0, view(&[&old]));
    let outcome = |gate: &mut Gate, place, block| {
        let checked = gate.check(Kind::Frag, &by(place, block));
        (checked.outcome, checked.verdict)
    };
    assert_eq!(outcome(&mut gate, 0, 9), (GossipOutcome::Past, Verdict::Ignore));
    assert_eq!(outcome(&mut gate, 0, 99), (GossipOutcome::Accepted, Verdict::Accept));
    assert_eq!(outcome(&mut gate, 1, 100), (GossipOutcome::WrongSigner, Verdict::Ignore));
    // A peer goes by another table: it may be right.
    gate.set_epochs(view(&[&old]), true);
    assert_eq!(outcome(&mut gate, 1, 100), (GossipOutcome::OtherTable, Verdict::Ignore));
    gate.set_epochs(view(&[&old, &new]), false);
    assert_eq!(outcome(&mut gate, 1, 100), (GossipOutcome::Accepted, Verdict::Accept));
    assert_eq!(outcome(&mut gate, 1, 99), (GossipOutcome::NotScheduled, Verdict::Ignore));
    assert_eq!(outcome(&mut gate, 0, 101), (GossipOutcome::NotScheduled, Verdict::Ignore));
    // What has passed is remembered over a change of epochs.
    assert_eq!(outcome(&mut gate, 0, 99), (GossipOutcome::Duplicate, Verdict::Ignore));
    gate.set_epochs(view(&[&new]), false);
    assert_eq!(outcome(&mut gate, 0, 98), (GossipOutcome::Past, Verdict::Ignore));
    assert_eq!(outcome(&mut gate, 0, 102), (GossipOutcome::WrongSigner, Verdict::Ignore));
}

mod properties;
