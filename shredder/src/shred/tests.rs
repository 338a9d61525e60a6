//! The shred format: pinned bytes, and inputs that must be refused.

use alloy_primitives::hex;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::equivocation::ProofError;
use crate::rate::{CodeRate, LossTarget};
use crate::validator::{ValidateError, Validator};
use crate::{EquivocationProof, MessageParams, ShreddedMessage, Shredder};

const CHAIN: u64 = 42;

pub(crate) fn params(block: u64, attempt: u8, message: u16) -> MessageParams {
    MessageParams {
        key: MessageKey { block, attempt, message },
        kind: if message == 0 { Kind::Env } else { Kind::Frag },
        plan: 0x0807_0605_0403_0201,
        route: 1,
        route_param: 200,
        sent_at: Timestamp::from_micros(1_700_000_000_000_000),
    }
}

pub(crate) fn shredder() -> Shredder {
    Shredder::new(CHAIN, SigningKey::from_bytes(&[9; 32]))
}

pub(crate) fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 256) as u8).collect()
}

pub(crate) fn cut(len: usize, params: &MessageParams) -> ShreddedMessage {
    let rate = CodeRate::new(len, LossTarget::default());
    shredder().shred(&payload(len), params, rate).unwrap()
}

fn hashed(bytes: &[u8]) -> Result<HashedShred, ShredError> {
    Shred::parse(bytes.to_vec().into()).map(HashedShred::new)
}

#[test]
fn header_bytes_are_pinned() {
    let cut = cut(40_000, &params(0x1122_3344_5566_7788, 2, 5));
    assert_eq!(
        hex::encode(cut.sets[1].header.to_bytes()),
        "02010201d998c9498877665544332211010203040506070800401e18240a0600409c00000500010002008e03160ac800"
    );
    assert_eq!(ChainTag::new(42).0, 0x49c9_98d9);
}

#[test]
fn shreds_are_pinned() {
    let mut hasher = blake3::Hasher::new();
    for len in [1, 100, 1_000, 40_000] {
        for set in cut(len, &params(7, 0, 1)).sets {
            set.shreds.iter().for_each(|shred| {
                hasher.update(shred);
            });
        }
    }
    assert_eq!(
        hasher.finalize().to_hex().as_str(),
        "2767c07da84aa7291d6758962ed2deedd433aa3448d693f1472744f27d4bee49",
        "the bytes on the wire changed: that needs a new version byte"
    );
}

#[test]
fn every_shred_fits_a_datagram_and_validates() {
    let key = shredder().verifying_key();
    for len in [1, 65, 832, 833, 26_624, 26_625, 100_000] {
        let mut validator = Validator::new(CHAIN, 100);
        for set in cut(len, &params(7, 0, 1)).sets {
            for bytes in &set.shreds {
                assert!(bytes.len() <= MAX_SHRED_LEN);
                let valid = validator.validate(hashed(bytes).unwrap(), &key).unwrap();
                assert_eq!(valid.root(), set.root);
            }
        }
    }
}

#[test]
fn any_flipped_bit_is_refused_or_without_effect() {
    let set = &cut(3_000, &params(7, 0, 1)).sets[0];
    let key = shredder().verifying_key();
    for known in [false, true] {
        let mut validator = Validator::new(CHAIN, 100);
        if known {
            for bytes in &set.shreds {
                validator.validate(hashed(bytes).unwrap(), &key).unwrap();
            }
        }
        let bytes = &set.shreds[2];
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1 << (at % 8);
            if let Ok(shred) = hashed(&bad) {
                match validator.validate(shred, &key) {
                    // In the form in which it is known.
                    Ok(valid) => assert!(known && valid.shred().bytes() == bytes, "byte {at}"),
                    Err(
                        ValidateError::Signature | ValidateError::Altered | ValidateError::Chain,
                    ) => {}
                    Err(error) => panic!("byte {at}: {error}"),
                }
            }
        }
    }
}

#[test]
fn truncated_and_padded_shreds_are_refused() {
    let set = &cut(3_000, &params(7, 0, 1)).sets[0];
    let bytes = &set.shreds[0];
    for len in 0..bytes.len() {
        assert!(Shred::parse(bytes.slice(..len)).is_err());
    }
    let mut long = bytes.to_vec();
    long.push(0);
    assert!(Shred::parse(long.into()).is_err());
    assert!(Shred::parse(vec![1; 2000].into()).is_err());
}

#[test]
fn impossible_headers_are_refused() {
    let good = cut(3_000, &params(7, 0, 1)).sets[0].header;
    type Change = fn(&mut SetHeader);
    let broken: [(&str, Change); 13] = [
        ("version", |h| h.version = 1),
        ("kind", |h| h.kind = 3),
        ("attempt", |h| h.attempt = 8),
        ("message index", |h| h.message = 0),
        ("message index", |h| h.kind = 0),
        ("k and m", |h| h.k = 0),
        ("k and m", |h| h.m = 61),
        ("shard length", |h| h.shard_len = 0),
        ("shard length", |h| h.shard_len = 1000),
        ("set", |h| h.set = 1),
        ("message length", |h| h.message_len = 0),
        ("message length", |h| h.message_len = u32::MAX),
        ("message length", |h| h.sets = 2),
    ];
    assert_eq!(good.check(), Ok(()));
    for (name, change) in broken {
        let mut header = good;
        change(&mut header);
        match header.check() {
            Err(ShredError::Header(what)) => assert_eq!(what, name),
            Err(ShredError::Version(1)) => assert_eq!(name, "version"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_lone_shard_longer_than_a_leaf_is_refused_and_panics_nowhere() {
    let good = cut(100, &params(7, 0, 1)).sets[0].header;
    for shard_len in 1020..=1039u16 {
        let header = SetHeader { k: 1, m: 0, shard_len, message_len: shard_len.into(), ..good };
        let mut bytes = header.to_bytes().to_vec();
        bytes.resize(header.shred_len(), 0);
        match Shred::parse(bytes.into()) {
            Ok(shred) => {
                assert!(shard_len <= 1024);
                assert_eq!(HashedShred::batch(vec![shred.clone(), shred]).len(), 2);
            }
            Err(error) => assert_eq!(error, ShredError::Header("shard length")),
        }
    }
}

#[test]
fn another_key_or_chain_validates_nothing() {
    let set = &cut(3_000, &params(7, 0, 1)).sets[0];
    let stranger = SigningKey::from_bytes(&[1; 32]).verifying_key();
    let shred = hashed(&set.shreds[0]).unwrap();
    let mut validator = Validator::new(CHAIN, 10);
    assert_eq!(validator.validate(shred.clone(), &stranger).unwrap_err(), ValidateError::Signature);
    let key = shredder().verifying_key();
    let mut other = Validator::new(CHAIN + 1, 10);
    assert_eq!(other.validate(shred, &key).unwrap_err(), ValidateError::Chain);
}

/// The proof of equivocation that a node finds in `a` and then `b`, or why it finds none.
fn proof_of(a: &ShreddedMessage, b: &ShreddedMessage) -> Result<EquivocationProof, ValidateError> {
    let key = shredder().verifying_key();
    let mut validator = Validator::new(CHAIN, 10);
    validator.validate(hashed(&a.sets[0].shreds[0]).unwrap(), &key).unwrap();
    let last = b.sets.last().unwrap();
    match validator.validate(hashed(&last.shreds[0]).unwrap(), &key) {
        Err(ValidateError::Equivocation(proof)) => {
            // The first commitment stays.
            validator.validate(hashed(&a.sets[0].shreds[1]).unwrap(), &key).unwrap();
            Ok(*proof)
        }
        Err(other) => Err(other),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn two_roots_for_a_set_and_two_lengths_are_proven() {
    let one = cut(3_000, &params(7, 0, 1));
    let rate = CodeRate::new(3_000, LossTarget::default());
    let other_root = shredder().shred(&[0xee; 3_000], &params(7, 0, 1), rate).unwrap();
    let other_len = cut(100_000, &params(7, 0, 1));
    for other in [&other_root, &other_len] {
        let proof = proof_of(&one, other).unwrap();
        assert_eq!(proof.verify(), Ok(()));
        let bytes = proof.to_bytes();
        assert_eq!(bytes.len(), EquivocationProof::ENCODED_LEN);
        let decoded = EquivocationProof::from_bytes(&bytes).unwrap();
        assert_eq!(decoded, proof);
        // With any byte changed it is no proof.
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            if let Ok(bad) = EquivocationProof::from_bytes(&bad) {
                assert!(bad.verify().is_err(), "byte {at}");
            }
        }
    }
}

#[test]
fn a_rebuilt_block_accuses_nobody() {
    let key = shredder().verifying_key();
    let rate = CodeRate::new(3_000, LossTarget::default());
    let first = cut(3_000, &params(7, 0, 1));
    let rebuilt = shredder().shred(&[0xee; 3_000], &params(7, 1, 1), rate).unwrap();
    let mut validator = Validator::new(CHAIN, 10);
    for set in first.sets.iter().chain(&rebuilt.sets) {
        validator.validate(hashed(&set.shreds[0]).unwrap(), &key).unwrap();
    }
    let commitment = |m: &ShreddedMessage| {
        let shred = Shred::parse(m.sets[0].shreds[0].clone()).unwrap();
        crate::Commitment::of(&shred, m.sets[0].root)
    };
    let forged = EquivocationProof {
        chain_id: CHAIN,
        key: key.to_bytes(),
        first: commitment(&first),
        second: commitment(&rebuilt),
    };
    assert_eq!(forged.verify(), Err(ProofError::Compatible));
}

/// A signature that is as good as that of `key.sign`, which always chooses the same nonce.
pub(crate) fn sign_with_nonce(key: &SigningKey, nonce: u8, message: &[u8]) -> [u8; 64] {
    use sha2::Digest;
    let nonce = SigningKey::from_bytes(&[nonce; 32]);
    let r = nonce.verifying_key().to_bytes();
    let hash = sha2::Sha512::new().chain_update(r);
    let hash = hash.chain_update(key.verifying_key().as_bytes()).chain_update(message).finalize();
    let challenge = curve25519_dalek::Scalar::from_bytes_mod_order_wide(&hash.into());
    let s = nonce.to_scalar() + challenge * key.to_scalar();
    [r, s.to_bytes()].concat().try_into().expect("64 bytes")
}

/// A set as its leader signs it anew, with a signature that differs though all else is the same:
/// ed25519 lets whoever has the key choose the nonce.
fn signed_anew(cut: &ShreddedMessage, header: SetHeader, nonce: u8) -> Vec<HashedShred> {
    let set = &cut.sets[usize::from(header.set)];
    let key = SigningKey::from_bytes(&[9; 32]);
    let digest = header.digest(CHAIN, &set.root);
    let signature = sign_with_nonce(&key, nonce, &digest);
    let forms = set.shreds.iter().map(|bytes| {
        let shred = Shred::parse(bytes.clone()).unwrap();
        HashedShred::new(shred.in_form_of(&header, &signature))
    });
    forms.collect()
}

#[test]
fn all_forms_of_one_content_are_one_set() {
    let cut = cut(3_000, &params(7, 0, 1));
    let header = cut.sets[0].header;
    let forms = [
        SetHeader { sent_at_micros: header.sent_at_micros + 5, ..header },
        SetHeader { plan: 77, ..header },
        SetHeader { route: 2, route_param: 9, ..header },
        header,
    ];
    for (n, form) in (1u8..).zip(forms) {
        let key = shredder().verifying_key();
        let mut validator = Validator::new(CHAIN, 10);
        let first = &cut.sets[0].shreds[0];
        validator.validate(hashed(first).unwrap(), &key).unwrap();
        let other = signed_anew(&cut, form, n);
        // Each is valid by itself, and none is in the form that is known.
        let alone = Validator::new(CHAIN, 10).validate(other[1].clone(), &key).unwrap();
        assert_ne!(alone.shred().bytes(), &cut.sets[0].shreds[1]);
        for (shred, known) in other.iter().zip(&cut.sets[0].shreds) {
            let valid = validator.validate(shred.clone(), &key).unwrap();
            assert_eq!(valid.shred().bytes(), known, "as the first form has it");
            assert_eq!(valid.header(), &header);
        }
        assert_eq!(validator.len(), 1);
    }
}

#[test]
fn what_has_the_frame_of_a_known_set_and_another_content_was_altered() {
    let cut = cut(3_000, &params(7, 0, 1));
    let key = shredder().verifying_key();
    let shreds = &cut.sets[0].shreds;
    let mut validator = Validator::new(CHAIN, 10);
    let shard = 49;
    let path = shreds[0].len() - 64 - 1;
    let change = |at: usize| {
        let mut bytes = shreds[1].to_vec();
        bytes[at] ^= 1;
        hashed(&bytes).unwrap()
    };
    for at in [shard, path] {
        let unknown = validator.validate(change(at), &key).unwrap_err();
        assert_eq!(unknown, ValidateError::Signature, "nothing is known of the set");
    }
    validator.validate(hashed(&shreds[0]).unwrap(), &key).unwrap();
    for at in [shard, path] {
        assert_eq!(validator.validate(change(at), &key).unwrap_err(), ValidateError::Altered);
        // To another view nothing is proven.
        let stranger = SigningKey::from_bytes(&[1; 32]).verifying_key();
        let other = validator.validate(change(at), &stranger).unwrap_err();
        assert_eq!(other, ValidateError::Signature);
    }
    // Content of the set under a header that nobody signed: the content is what counts.
    let mut sent = cut.sets[0].header;
    sent.sent_at_micros += 1;
    let shred = Shred::parse(shreds[1].clone()).unwrap();
    let signature = *shred.signature();
    let odd = HashedShred::new(shred.in_form_of(&sent, &signature));
    let valid = validator.validate(odd, &key).unwrap();
    assert_eq!(valid.shred().bytes(), &shreds[1]);
}

#[test]
fn who_may_have_no_signature_verified_has_what_the_tree_proves() {
    let cut = cut(3_000, &params(7, 0, 1));
    let key = shredder().verifying_key();
    let shreds = &cut.sets[0].shreds;
    let mut validator = Validator::new(CHAIN, 10);
    let mut validate = |bytes: &[u8], may_verify| {
        let valid = validator.validate_for(hashed(bytes).unwrap(), &key, (&key).into(), may_verify);
        valid.map(|_| ())
    };
    assert_eq!(validate(&shreds[0], false), Err(ValidateError::Unverified));
    assert_eq!(validate(&shreds[0], true), Ok(()));
    assert!(shreds.iter().all(|shred| validate(shred, false).is_ok()));
    let mut junk = shreds[1].to_vec();
    junk[49] ^= 1;
    assert_eq!(validate(&junk, false), Err(ValidateError::Altered), "no signature says so");
    let end = junk.len();
    junk[end - 1] ^= 1;
    assert_eq!(validate(&junk, false), Err(ValidateError::Unverified));
    assert_eq!(validate(&junk, true), Err(ValidateError::Signature));
}

#[test]
fn two_keys_of_one_gateway_accuse_nobody() {
    let rate = CodeRate::new(3_000, LossTarget::default());
    let other = SigningKey::from_bytes(&[3; 32]);
    let second =
        Shredder::new(CHAIN, other.clone()).shred(&[0xee; 3_000], &params(7, 0, 1), rate).unwrap();
    let first = cut(3_000, &params(7, 0, 1));
    let mut validator = Validator::new(CHAIN, 10);
    let key = shredder().verifying_key();
    validator.validate(hashed(&first.sets[0].shreds[0]).unwrap(), &key).unwrap();
    let shred = hashed(&second.sets[0].shreds[0]).unwrap();
    validator.validate(shred, &other.verifying_key()).unwrap();
}

#[test]
fn a_full_table_evicts_the_farthest_future() {
    let key = shredder().verifying_key();
    let mut validator = Validator::new(CHAIN, 6);
    let push = |validator: &mut Validator, block| {
        let cut = cut(100, &params(block, 0, 1));
        validator.validate(hashed(&cut.sets[0].shreds[0]).unwrap(), &key).map(|_| ())
    };
    for block in [10, 20, 30] {
        push(&mut validator, block).unwrap();
    }
    assert_eq!(push(&mut validator, 40), Err(ValidateError::Full));
    push(&mut validator, 5).unwrap();
    assert_eq!(push(&mut validator, 30), Err(ValidateError::Full), "30 made room for 5");
    validator.forget_below(20);
    assert_eq!(validator.len(), 1);
    validator.supersede(20, 1);
    assert!(validator.is_empty());
}

/// What finds no room is sent again by anybody, as often as he likes: no signature is verified
/// for it.
#[test]
fn what_finds_no_room_costs_no_signature() {
    let key = shredder().verifying_key();
    let mut validator = Validator::new(CHAIN, 2);
    let first = |block: u64| cut(100, &params(block, 0, 1)).sets[0].shreds[0].clone();
    validator.validate(hashed(&first(10)).unwrap(), &key).unwrap();
    let mut forged = first(40).to_vec();
    let end = forged.len();
    forged[end - 1] ^= 1;
    let forged = hashed(&forged).unwrap();
    // A signature would have told.
    assert_eq!(validator.validate(forged.clone(), &key).unwrap_err(), ValidateError::Full);
    validator.forget_below(20);
    assert_eq!(validator.validate(forged, &key).unwrap_err(), ValidateError::Signature);
    assert!(validator.validate(hashed(&first(40)).unwrap(), &key).is_ok());
}

/// Peers of a later version are no liars, however long their shreds are.
#[test]
fn another_version_has_any_length() {
    for len in [1, 10, 500, 1_152, 1_153, 9_000] {
        let mut bytes = vec![7; len];
        assert_eq!(Shred::parse(bytes.clone().into()).unwrap_err(), ShredError::Version(7));
        bytes[0] = VERSION;
        assert!(!matches!(Shred::parse(bytes.into()), Err(ShredError::Version(_)) | Ok(_)));
    }
    assert_eq!(Shred::parse(Vec::new().into()).unwrap_err(), ShredError::Length(0));
}

#[test]
fn finished_and_old_sets_make_room_for_the_open_block() {
    let key = shredder().verifying_key();
    let mut validator = Validator::new(CHAIN, 20);
    let push = |validator: &mut Validator, block, message| {
        let cut = cut(100, &params(block, 0, message));
        validator.validate(hashed(&cut.sets[0].shreds[0]).unwrap(), &key).map(|_| ())
    };
    for block in 100..200 {
        validator.set_open(block, block);
        // Three messages, of which one is never whole: the gateway has ten places.
        for message in 1..4 {
            push(&mut validator, block, message).unwrap();
            if message < 3 {
                validator.finish(&params(block, 0, message).key);
            }
        }
        push(&mut validator, block + 1, 1).unwrap();
        assert!(validator.len() <= 10);
        assert!(validator.knows(&SetKey { message: params(block, 0, 3).key, set: 0 }));
    }
}

proptest! {
    #[test]
    fn parsing_is_the_inverse_of_cutting(len in 1usize..60_000, block: u64, attempt in 0u8..8, message in 1u16..) {
        let params = params(block, attempt, message);
        for set in cut(len, &params).sets {
            for (i, bytes) in set.shreds.iter().enumerate() {
                let shred = Shred::parse(bytes.clone()).unwrap();
                prop_assert_eq!(shred.header(), &set.header);
                prop_assert_eq!(usize::from(shred.index()), i);
                prop_assert_eq!(shred.header().message_key(), params.key);
            }
        }
    }

    #[test]
    fn a_batch_hashes_as_singles(lens in proptest::collection::vec(1usize..5_000, 1..6)) {
        let shreds: Vec<Shred> = lens
            .iter()
            .flat_map(|len| cut(*len, &params(1, 0, 1)).sets)
            .flat_map(|set| set.shreds)
            .map(|bytes| Shred::parse(bytes).unwrap())
            .collect();
        for (single, batched) in shreds.clone().into_iter().zip(HashedShred::batch(shreds)) {
            prop_assert_eq!(HashedShred::new(single).leaf, batched.leaf);
        }
    }
}
