//! Bodies of the fuzz targets. `cargo fuzz` runs them on the inputs it finds, a test on bytes of a
//! seeded generator, so that they stay correct between fuzzing runs.
//!
//! Each target takes any bytes and panics if an invariant does not hold.

use alloy_primitives::Bytes;
use ed25519_dalek::SigningKey;

use crate::equivocation::EquivocationProof;
use crate::messages::{Dialect, Kind};
use crate::rate::{CodeRate, LossTarget};
use crate::shred::{HashedShred, MessageKey, Shred};
use crate::signature::SignedMessage;
use crate::time::Timestamp;
use crate::{Limits, MessageParams, Reassembler, Shredder, Validator};

/// A named fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("message_wire", message_wire),
    ("message_json", message_json),
    ("shred", shred),
    ("proof", proof),
    ("reassembly", reassembly),
];

/// If a wire body decodes, encoding it gives the same bytes.
pub fn message_wire(data: &[u8]) {
    let Some((&selector, body)) = data.split_first() else { return };
    let Some(kind) = Kind::from_byte(selector & 3) else { return };
    let dialect = if selector & 4 == 0 { Dialect::V0 } else { Dialect::V0Blob };
    let wire = Bytes::copy_from_slice(body);
    if let Ok(message) = SignedMessage::from_wire(kind, dialect, &wire) {
        assert_eq!(message.to_wire(), body, "decode ∘ encode");
        let _ = message.message.index();
        let _ = message.verify(alloy_primitives::Address::ZERO);
    }
}

/// Any JSON is a message or an error, never a panic.
pub fn message_json(data: &[u8]) {
    use crate::messages::json::{EnvJson, FragJson, SealJson};
    let _ = serde_json::from_slice::<EnvJson>(data).map(EnvJson::into_message);
    let _ = serde_json::from_slice::<FragJson>(data).map(|m| m.into_message(Dialect::V0));
    let _ = serde_json::from_slice::<SealJson>(data).map(|m| m.into_message(Dialect::V0Blob));
}

/// If a shred parses, its accessors do not panic and its header encodes to the same bytes.
pub fn shred(data: &[u8]) {
    let Ok(shred) = Shred::parse(Bytes::copy_from_slice(data).into()) else { return };
    assert_eq!(shred.header().to_bytes(), data[..48]);
    assert_eq!(shred.shard().len(), usize::from(shred.header().shard_len));
    let _ = (shred.path().len(), shred.signature(), shred.header().message_kind());
    let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
    let mut validator = Validator::new(1, 4);
    for hashed in HashedShred::batch(vec![shred.clone(), shred]) {
        assert!(validator.validate(hashed, &key).is_err(), "nobody signed this");
    }
}

/// If a proof decodes, it encodes to the same bytes, and verifying it does not panic.
pub fn proof(data: &[u8]) {
    if let Ok(proof) = EquivocationProof::from_bytes(data) {
        assert_eq!(proof.to_bytes(), data);
        let _ = proof.verify();
    }
}

/// After any sequence of operations the memory of a reassembler is within its bound, and every
/// message that it completes is one that was shredded.
pub fn reassembly(data: &[u8]) {
    let limits = Limits { memory: 64 * 1024 };
    let mut shredder = Shredder::new(1, SigningKey::from_bytes(&[7; 32]));
    let key = shredder.verifying_key();
    let mut validator = Validator::new(1, 32);
    let mut reassembler = Reassembler::new(limits);
    let mut sent = Vec::new();
    for op in data.chunks_exact(3).take(400) {
        let (code, a, b) = (op[0], op[1], op[2]);
        match code % 4 {
            0 => {
                let wire = vec![b; 1 + usize::from(a) * 40];
                let params = MessageParams {
                    key: MessageKey {
                        block: u64::from(b % 12),
                        attempt: a % 3,
                        message: 1 + u16::from(b % 5),
                    },
                    kind: Kind::Frag,
                    plan: 0,
                    route: 0,
                    route_param: 0,
                    sent_at: Timestamp::default(),
                };
                let rate = CodeRate::new(wire.len(), LossTarget::default());
                sent.push((shredder.shred(&wire, &params, rate).expect("valid"), wire));
            }
            1 => reassembler.set_window(u64::from(a % 6), u64::from(a % 6) + u64::from(b % 12)),
            2 => reassembler.supersede(u64::from(a % 12), b % 4),
            _ => {
                let Some((cut, wire)) = sent.get(usize::from(a) % sent.len().max(1)) else {
                    continue;
                };
                let set = &cut.sets[usize::from(b) % cut.sets.len()];
                for bytes in
                    set.shreds.iter().skip(usize::from(b) % 7).step_by(1 + code as usize % 3)
                {
                    let shred = Shred::parse(bytes.clone()).expect("ours");
                    let Ok(valid) = validator.validate(HashedShred::new(shred), &key) else {
                        continue;
                    };
                    if let Ok(crate::Push::Complete { message: Some(message), .. }) =
                        reassembler.push(&valid)
                    {
                        assert_eq!(message.wire, wire[..]);
                    }
                }
                while let Some(checked) = reassembler.check_next() {
                    assert!(checked.is_ok(), "an honest leader's parity");
                }
            }
        }
        assert!(reassembler.bytes() <= limits.memory);
        assert!(validator.len() <= validator.capacity());
    }
}

/// Runs every target `rounds` times on bytes of a generator seeded with `seed`, at most `longest`
/// of them. `shape` may bring some close to valid input.
///
/// # Panics
/// If a target does.
pub fn run_on_seeded_bytes(
    targets: &[Target],
    seed: &str,
    (rounds, longest): (usize, usize),
    shape: impl Fn(usize, &mut Vec<u8>),
) {
    let mut stream = blake3::Hasher::new().update(seed.as_bytes()).finalize_xof();
    for (name, target) in targets {
        for round in 0..rounds {
            let mut data = vec![0; (round * 7) % longest];
            stream.fill(&mut data);
            shape(round, &mut data);
            let result = std::panic::catch_unwind(|| target(&data));
            assert!(result.is_ok(), "{name} panicked in round {round}");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn targets_hold_on_seeded_bytes() {
        super::run_on_seeded_bytes(super::TARGETS, "fuzz", (200, 1400), |round, data| {
            if data.len() > 60 && round % 2 == 0 {
                data[..4].copy_from_slice(&[1, 1, 0, 0]);
            }
        });
    }
}
