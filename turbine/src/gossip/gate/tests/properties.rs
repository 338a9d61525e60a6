//! Whatever comes: no panic, and nothing passes that the scheduled gateway did not sign. The
//! signature is checked by another way than the gate's: verified against the gateway's public
//! key, where the gate recovers an address.

use secp256k1::{PublicKey, SECP256K1, SecretKey, ecdsa};

use super::*;

fn is_signed(place: u8, root: &B256, signature: &[u8]) -> bool {
    let secret = SecretKey::from_byte_array([0x11 + place; 32]).unwrap();
    let key = PublicKey::from_secret_key(SECP256K1, &secret);
    let Ok(signature) = ecdsa::Signature::from_compact(signature) else { return false };
    let digest = secp256k1::Message::from_digest(root.0);
    SECP256K1.verify_ecdsa(digest, &signature, &key).is_ok()
}

/// Checks a message and what comes of it.
fn judge(gate: &mut Gate, kind: Kind, dialect: Dialect, data: &Bytes) -> GossipOutcome {
    let got = outcome(gate, kind, data);
    // What was known is neither forwarded nor handed on, whoever signed.
    if got.verdict() == Verdict::Accept || got == GossipOutcome::OtherV {
        let signed = SignedMessage::from_wire(kind, dialect, data).unwrap();
        let place = signed.message.block() / 30 % 2;
        assert!(is_signed(place as u8, &signed.root(), &data[..64]));
        assert_eq!(signed.signature.is_canonical(), got != GossipOutcome::OtherV);
    }
    got
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Env), Just(Kind::Frag), Just(Kind::Seal)]
}

fn dialects() -> impl Strategy<Value = Dialect> {
    prop_oneof![Just(Dialect::V0), Just(Dialect::V0Blob)]
}

proptest! {
    #[test]
    fn random_bytes_pass_nowhere(
        kind in kinds(),
        dialect in dialects(),
        data in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut gate = gate_of(dialect);
        let got = judge(&mut gate, kind, dialect, &data.into());
        let refused = got.convicts_sender()
            || matches!(got, GossipOutcome::HighS | GossipOutcome::Dialect);
        prop_assert!(refused, "{:?}", got);
        prop_assert_eq!(gate.remembered(), 0);
    }

    #[test]
    fn a_valid_message_with_changes_passes_only_where_nothing_changed(
        vector in 0..8usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        known in any::<bool>(),
    ) {
        let (kind, dialect, body, root) = vectors().swap_remove(vector);
        let dialect = dialect.unwrap_or_default();
        let good = signed_by(&gateway_at(0), &root, &body);
        let mut gate = gate_of(dialect);
        if known {
            prop_assert_eq!(outcome(&mut gate, kind, &good), GossipOutcome::Accepted);
        }
        let bad = with(&good, |bytes| {
            for (at, value) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
        });
        let got = judge(&mut gate, kind, dialect, &bad);
        if bad == good {
            let expected =
                if known { GossipOutcome::Duplicate } else { GossipOutcome::Accepted };
            prop_assert_eq!(got, expected);
        } else if bad != other_v(&good) {
            let nobodys = matches!(got, GossipOutcome::HighS | GossipOutcome::WrongSigner);
            let refused = got.convicts_sender() || nobodys;
            prop_assert!(refused, "{:?}", got);
            prop_assert_eq!(gate.remembered(), usize::from(known));
        }
    }

    /// Any order of honest messages, replays, other forms and windows: each message is handed
    /// on once and forwarded once, and nothing that nobody signed ever is.
    #[test]
    fn each_message_is_handed_on_and_forwarded_once(
        ops in proptest::collection::vec((0..5u8, 0..40u64, 0..3u64, 0..3u8), 1..60),
    ) {
        let mut gate = gate();
        let (mut handed_on, mut forwarded) = (Vec::new(), Vec::new());
        for (op, block, seq, tx) in ops {
            let data = wire(frag(block, seq, tx));
            let data = match op {
                0 | 1 => data,
                2 => other_v(&data),
                3 => high_s(&data),
                _ => Bytes::from(gateway_at(2).sign(frag(block, seq, tx)).to_wire()),
            };
            let got = judge(&mut gate, Kind::Frag, Dialect::V0, &data);
            prop_assert_eq!(op == 3, got == GossipOutcome::HighS);
            prop_assert_eq!(op > 3, got == GossipOutcome::WrongSigner);
            prop_assert!(!got.convicts_sender());
            if matches!(got, GossipOutcome::Accepted | GossipOutcome::OtherV) {
                handed_on.push((block, seq, tx));
            }
            if got.verdict() == Verdict::Accept {
                forwarded.push((block, seq, tx));
            }
        }
        for mut list in [handed_on, forwarded] {
            let all = list.len();
            list.sort_unstable();
            list.dedup();
            prop_assert_eq!(list.len(), all);
        }
    }
}
