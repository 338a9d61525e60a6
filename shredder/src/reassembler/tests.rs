//! Reassembly: any k of n, bounds, attempts, and dishonest leaders.

use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::merkle::{self, Tree};
use crate::rate::{CodeRate, LossTarget};
use crate::shred::tests::{cut, params, payload, shredder};
use crate::shred::{HashedShred, Shred, shard_range, write_frame};
use crate::{MessageParams, ShreddedMessage, Shredder, Validator};
use alloy_primitives::Address;

fn validated(cut: &ShreddedMessage) -> Vec<Vec<ValidatedShred>> {
    validated_by(cut, &shredder().verifying_key())
}

fn validated_by(
    cut: &ShreddedMessage,
    key: &ed25519_dalek::VerifyingKey,
) -> Vec<Vec<ValidatedShred>> {
    let mut validator = Validator::new(42, 1000);
    let mut validate = |bytes: &Bytes| {
        let shred = HashedShred::new(Shred::parse(bytes.clone()).unwrap());
        validator.validate(shred, key).unwrap()
    };
    cut.sets.iter().map(|set| set.shreds.iter().map(&mut validate).collect()).collect()
}

fn message_of(push: Push) -> Option<Assembled> {
    match push {
        Push::Complete { message, .. } => message,
        _ => None,
    }
}

#[test]
fn a_message_comes_out_as_it_went_in() {
    for len in [1, 64, 832, 833, 30_000, 300_000] {
        let cut = cut(len, &params(7, 0, 1));
        let mut reassembler = Reassembler::new(Limits::default());
        let mut out = Vec::new();
        for set in validated(&cut) {
            for shred in set {
                out.extend(message_of(reassembler.push(&shred).unwrap()));
            }
        }
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].wire, payload(len));
        assert_eq!(out[0].signer, shredder().verifying_key().to_bytes());
        // Every set arrived whole, so every one is checked afterwards, and memory is released.
        let mut checked = 0;
        while let Some(result) = reassembler.check_next() {
            result.unwrap();
            checked += 1;
        }
        assert_eq!(checked, cut.sets.len());
        assert_eq!(reassembler.bytes(), 0);
    }
}

#[test]
fn a_recovered_set_makes_every_shred_again() {
    let cut = cut(30_000, &params(7, 0, 1));
    for (set, original) in validated(&cut).into_iter().zip(&cut.sets) {
        let mut reassembler = Reassembler::new(Limits::default());
        let (k, n) = (usize::from(original.header.k), set.len());
        let mut done = None;
        for shred in &set[n - k..] {
            if let Push::Complete { recovered, .. } = reassembler.push(shred).unwrap() {
                done = recovered;
            }
        }
        let recovered = done.expect("complete with k shreds");
        assert_eq!(recovered.missing().count(), n - k);
        for (i, bytes) in original.shreds.iter().enumerate() {
            assert_eq!(recovered.shred(i as u8), bytes);
        }
    }
}

#[test]
fn duplicates_and_late_shreds_change_nothing() {
    let cut = cut(5_000, &params(7, 0, 1));
    let set = validated(&cut).remove(0);
    let mut reassembler = Reassembler::new(Limits::default());
    assert!(matches!(reassembler.push(&set[0]), Ok(Push::Stored)));
    assert!(matches!(reassembler.push(&set[0]), Ok(Push::Duplicate)));
    let complete = set.iter().filter_map(|s| message_of(reassembler.push(s).unwrap())).count();
    assert_eq!(complete, 1);
    for shred in &set {
        assert!(matches!(reassembler.push(shred), Ok(Push::Late)));
    }
}

/// Signs over shards that are no code word: coding shard `k` is garbage.
fn bad_parity(len: usize, params: &MessageParams) -> ShreddedMessage {
    resigned(len, params, |set| {
        let start = shard_range(&set.header).start;
        usize::from(set.header.k) * set.header.shred_len() + start
    })
}

/// Changes one byte of the set's buffer and signs the result, as a dishonest leader would.
fn resigned(
    len: usize,
    params: &MessageParams,
    place: impl Fn(&crate::ShreddedSet) -> usize,
) -> ShreddedMessage {
    use ed25519_dalek::Signer;
    let mut message = cut(len, params);
    for set in &mut message.sets {
        let mut buffer: Vec<u8> = set.shreds.iter().flatten().copied().collect();
        let at = place(set);
        buffer[at] ^= 0xff;
        let len = set.header.shred_len();
        let range = shard_range(&set.header);
        let shards: Vec<&[u8]> = buffer.chunks(len).map(|slot| &slot[range.clone()]).collect();
        let mut leaves = Vec::new();
        merkle::leaves(&shards, &mut leaves);
        let tree = Tree::new(&leaves);
        let digest = set.header.digest(42, &tree.root());
        let signature = SigningKey::from_bytes(&[9; 32]).sign(&digest).to_bytes();
        for (slot, i) in buffer.chunks_mut(len).zip(0u8..) {
            write_frame(slot, &set.header, i, tree.path(i.into()), &signature);
        }
        set.root = tree.root();
        set.shreds = buffer.chunks(len).map(Bytes::copy_from_slice).collect();
    }
    message
}

#[test]
fn bad_parity_is_refused_from_whichever_shreds_it_is_seen() {
    let cut = bad_parity(5_000, &params(7, 0, 1));
    let set = validated(&cut).remove(0);
    let k = usize::from(cut.sets[0].header.k);

    // Recovered from a choice with the bad shard in it.
    let mut reassembler = Reassembler::new(Limits::default());
    let results: Vec<_> = set[1..=k].iter().map(|s| reassembler.push(s)).collect();
    assert!(matches!(results.last(), Some(Err(PushError::BadParity))));
    assert!(matches!(reassembler.push(&set[0]), Ok(Push::Late)), "refused for good");

    // From a choice without it: recovery computes a parity that the root does not cover.
    let mut reassembler = Reassembler::new(Limits::default());
    let choice = set[1..k].iter().chain(&set[k + 1..k + 2]);
    let results: Vec<_> = choice.map(|s| reassembler.push(s)).collect();
    assert!(matches!(results.last(), Some(Err(PushError::BadParity))));

    // Arrived whole: delivered at once, and refused by the check that follows.
    let mut reassembler = Reassembler::new(Limits::default());
    let out: Vec<_> =
        set[..k].iter().filter_map(|s| message_of(reassembler.push(s).unwrap())).collect();
    assert_eq!(out.len(), 1);
    let key = cut.sets[0].header.message_key();
    assert_eq!(reassembler.check_next().unwrap().unwrap_err(), key);
    assert_eq!(reassembler.bytes(), 0, "nothing is kept but that it is done");
}

#[test]
fn padding_that_is_not_zero_is_refused() {
    // Re-encoded consistently, so that only the padding is wrong.
    let len = 5_001;
    let rate = CodeRate::new(len, LossTarget::default());
    let padded = usize::from(rate.k) * usize::from(rate.shard_len);
    assert!(padded > len);
    let mut wire = payload(padded);
    wire[padded - 1] = 1;
    let honest = shredder().shred(&wire, &params(7, 0, 1), rate).unwrap();
    // The same shards under a header that claims a shorter message.
    let mut message = honest.clone();
    let header = SetHeader { message_len: len as u32, ..honest.sets[0].header };
    let (root, len) = (honest.sets[0].root, header.shred_len());
    use ed25519_dalek::Signer;
    let signature = SigningKey::from_bytes(&[9; 32]).sign(&header.digest(42, &root)).to_bytes();
    for bytes in &mut message.sets[0].shreds {
        let mut slot = bytes.to_vec();
        slot[..48].copy_from_slice(&header.to_bytes());
        slot[len - 64..].copy_from_slice(&signature);
        *bytes = slot.into();
    }
    let set = validated(&message).remove(0);
    let mut reassembler = Reassembler::new(Limits::default());
    let refused = set.iter().filter(|s| matches!(reassembler.push(s), Err(PushError::BadParity)));
    assert_eq!(refused.count(), 1);
}

#[test]
fn blocks_outside_the_window_are_refused_and_dropped() {
    let mut reassembler = Reassembler::new(Limits::default());
    let shred = |block| validated(&cut(5_000, &params(block, 0, 1)))[0][0].clone();
    for block in [5, 10, 20] {
        assert!(matches!(reassembler.push(&shred(block)), Ok(Push::Stored)));
    }
    reassembler.set_window(8, 15);
    assert_eq!(reassembler.messages.len(), 1);
    assert!(matches!(reassembler.push(&shred(7)), Err(PushError::Past(7))));
    assert!(matches!(reassembler.push(&shred(16)), Err(PushError::Future(16))));
    assert!(matches!(reassembler.push(&shred(15)), Ok(Push::Stored)));
}

#[test]
fn a_superseded_attempt_is_dropped_and_refused() {
    let mut reassembler = Reassembler::new(Limits::default());
    let shred = |attempt| validated(&cut(5_000, &params(7, attempt, 1)))[0][0].clone();
    assert!(matches!(reassembler.push(&shred(0)), Ok(Push::Stored)));
    assert!(matches!(reassembler.push(&shred(2)), Ok(Push::Stored)));
    reassembler.supersede(7, 2);
    assert_eq!(reassembler.messages.len(), 1);
    assert!(matches!(reassembler.push(&shred(1)), Err(PushError::Superseded)));
    assert!(matches!(reassembler.push(&shred(2)), Ok(Push::Duplicate)));
    reassembler.supersede(7, 1);
    assert!(matches!(reassembler.push(&shred(1)), Err(PushError::Superseded)), "never back");
}

#[test]
fn a_flood_of_future_blocks_is_evicted_before_the_present() {
    let limits = Limits { memory: 200_000 };
    let mut reassembler = Reassembler::new(limits);
    let present = cut(20_000, &params(7, 0, 1));
    let present = validated(&present);
    for shred in &present[0][..3] {
        reassembler.push(shred).unwrap();
    }
    let evil = SigningKey::from_bytes(&[3; 32]);
    let mut flood = Shredder::new(42, evil.clone());
    let mut refused = 0;
    for block in (8..60).rev() {
        let rate = CodeRate::new(20_000, LossTarget::default());
        let cut = flood.shred(&payload(20_000), &params(block, 0, 1), rate).unwrap();
        let shreds = validated_by(&cut, &evil.verifying_key());
        refused += u32::from(reassembler.push(&shreds[0][0]).is_err());
        assert!(reassembler.bytes() <= limits.memory);
    }
    assert_eq!(refused, 0, "nearer blocks displace farther ones");
    let evil_bytes = reassembler.shares.of(&Owner::from(&evil.verifying_key()));
    assert!(evil_bytes <= limits.memory / 2, "no leader holds more than half");
    let out = present[0][3..].iter().filter_map(|s| message_of(reassembler.push(s).unwrap()));
    assert_eq!(out.count(), 1);
}

#[test]
fn a_message_over_the_quota_is_refused_without_harm() {
    let mut reassembler = Reassembler::new(Limits { memory: 100_000 });
    let cut = cut(500_000, &params(7, 0, 1));
    let results: Vec<_> =
        validated(&cut).iter().map(|set| reassembler.push(&set[0]).map(|_| ())).collect();
    assert!(results.contains(&Err(PushError::Quota)));
    assert!(reassembler.bytes() <= 100_000);
}

#[test]
fn two_keys_of_one_gateway_have_one_share() {
    let limits = Limits { memory: 1_000_000 };
    let mut reassembler = Reassembler::new(limits);
    reassembler.set_window(0, 100);
    reassembler.set_open(50, 50);
    let [evil, honest] = [1, 2].map(|n| Owner::from(Address::with_last_byte(n)));
    let mut validator = Validator::new(42, 1_000);
    let mut push = |seed: u8, owner: Owner, block: u64, message: u16, shreds: usize| {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let rate = CodeRate::new(20_000, LossTarget::default());
        let params = params(block, 0, message);
        let cut = Shredder::new(42, key.clone()).shred(&payload(20_000), &params, rate).unwrap();
        let mut results = Vec::new();
        for bytes in cut.sets[0].shreds.iter().take(shreds) {
            let shred = HashedShred::new(Shred::parse(bytes.clone()).unwrap());
            let valid = validator.validate_for(shred, &key.verifying_key(), owner, true).unwrap();
            results.push(reassembler.push(&valid).map(message_of));
        }
        (results, reassembler.shares.of(&evil), reassembler.bytes())
    };
    // One shred of each message of old blocks and of the next one, by two keys in turn.
    let mut most = 0;
    for message in 1..40 {
        for (seed, block) in [(3, 20), (4, 49), (3, 51), (4, 57)] {
            let (_, held, bytes) = push(seed, evil, block, message, 1);
            assert!(held <= limits.memory / 2 && bytes == held);
            most = most.max(held);
        }
    }
    assert!(most > limits.memory * 2 / 5, "{most}: nearly all that it may have");
    let (results, ..) = push(9, honest, 50, 1, 40);
    let whole = results.into_iter().filter_map(|result| result.unwrap()).count();
    assert_eq!(whole, 1);
}

#[test]
fn a_message_that_is_done_stays_done_whatever_else_comes() {
    let mut reassembler = Reassembler::new(Limits { memory: 200_000 });
    reassembler.set_window(0, 100);
    reassembler.set_open(50, 50);
    let old = validated(&cut(5_000, &params(10, 0, 1))).remove(0);
    let out = old.iter().filter_map(|shred| message_of(reassembler.push(shred).unwrap())).count();
    assert_eq!((out, reassembler.is_done(&old[0].header().message_key())), (1, true));
    for message in 1..50 {
        let flood = validated(&cut(20_000, &params(50, 0, message)));
        let _ = reassembler.push(&flood[0][0]);
    }
    // Not checked yet, and not evicted before it is.
    assert!(matches!(reassembler.check_next(), Some(Ok(_))));
    for shred in &old {
        assert!(matches!(reassembler.push(shred), Ok(Push::Late)));
    }
}

#[test]
fn a_block_that_another_key_leads_begins_anew() {
    let mut reassembler = Reassembler::new(Limits::default());
    let [first, second] = [9, 8].map(|seed| SigningKey::from_bytes(&[seed; 32]));
    let cut = |key: &SigningKey, message| {
        let rate = CodeRate::new(5_000, LossTarget::default());
        let cut =
            Shredder::new(42, key.clone()).shred(&payload(5_000), &params(7, 0, message), rate);
        validated_by(&cut.unwrap(), &key.verifying_key()).remove(0)
    };
    assert!(matches!(reassembler.push(&cut(&first, 1)[0]), Ok(Push::Stored)));
    let whole = cut(&first, 2);
    assert_eq!(whole.iter().filter_map(|s| message_of(reassembler.push(s).unwrap())).count(), 1);
    assert!(matches!(reassembler.push(&cut(&second, 1)[0]), Err(PushError::Conflict)));
    reassembler
        .keep_signers(|key, signer| key.block != 7 || *signer == second.verifying_key().to_bytes());
    let again = cut(&second, 1);
    assert_eq!(again.iter().filter_map(|s| message_of(reassembler.push(s).unwrap())).count(), 1);
    assert!(matches!(reassembler.push(&cut(&second, 2)[0]), Ok(Push::Late)), "that one is done");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_k_of_each_set_in_any_order_deliver(len in 1usize..80_000, seed: u64) {
        let cut = cut(len, &params(7, 3, 9));
        let mut xof = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        let mut chosen: Vec<ValidatedShred> = Vec::new();
        for mut set in validated(&cut) {
            let k = usize::from(set[0].header().k);
            for i in (1..set.len()).rev() {
                let mut word = [0; 8];
                xof.fill(&mut word);
                set.swap(i, u64::from_le_bytes(word) as usize % (i + 1));
            }
            chosen.extend(set.into_iter().take(k));
        }
        for i in (1..chosen.len()).rev() {
            let mut word = [0; 8];
            xof.fill(&mut word);
            chosen.swap(i, u64::from_le_bytes(word) as usize % (i + 1));
        }
        let mut reassembler = Reassembler::new(Limits::default());
        let out: Vec<_> =
            chosen.iter().filter_map(|s| message_of(reassembler.push(s).unwrap())).collect();
        prop_assert_eq!(out.len(), 1);
        prop_assert_eq!(&out[0].wire[..], &payload(len)[..]);
        while let Some(check) = reassembler.check_next() {
            prop_assert!(check.is_ok());
        }
        prop_assert_eq!(reassembler.bytes(), 0);
    }
}
