//! Bodies of the fuzz targets; see `fragcast_shredder::fuzzing`.

use std::sync::Arc;

use bytes::Bytes;

use crate::control::Control;
use crate::delegation::SignedDelegation;
use crate::membership::{MemberRecord, sample};
use crate::plan::SignedPlan;
use crate::protocol::{Config, Protocol};
use crate::schedule::Schedule;
use crate::time::Timestamp;

/// A named fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] =
    &[("control", control), ("records", records), ("datagrams", datagrams)];

/// A control frame that decodes encodes to the same bytes.
pub fn control(data: &[u8]) {
    if let Ok(control) = Control::from_bytes(data) {
        assert_eq!(control.to_bytes(), data);
        if let Control::Evidence(evidence) = control {
            let _ = evidence.verify();
        }
    }
}

/// Records, plans and delegations likewise.
pub fn records(data: &[u8]) {
    if let Ok(record) = MemberRecord::from_bytes(data) {
        assert_eq!(record.to_bytes(), data);
        let _ = (record.verify(1), record.addresses().count());
    }
    if let Ok(signed) = SignedDelegation::from_bytes(data) {
        assert_eq!(signed.to_bytes(), data);
        let _ = signed.gateway();
    }
    if let Ok(plan) = SignedPlan::from_bytes(data) {
        let _ = (plan.verify(), plan.plan.id());
    }
}

/// A protocol that is fed anything neither panics nor delivers anything.
pub fn datagrams(data: &[u8]) {
    let (members, _) = sample(1, &[1, 1, 1]);
    let schedule = Schedule::new(vec![alloy_primitives::Address::ZERO], 30).expect("one gateway");
    let me = members.members()[0].peer();
    let mut protocol = Protocol::new(Config::new(1), &me, Arc::new(members), schedule, [], None)
        .expect("a member");
    let mut now = Timestamp::from_nanos(1);
    (1..3).for_each(|peer| protocol.handle_connected(peer));
    let mut rest = data;
    while let [op, len, tail @ ..] = rest {
        let len = (usize::from(*len) * 5).min(tail.len());
        let (bytes, tail) = tail.split_at(len);
        rest = tail;
        let peer = u32::from(op % 4);
        match op / 4 % 4 {
            0 | 1 => protocol.handle_datagrams(now, [(peer, Bytes::copy_from_slice(bytes))]),
            2 => protocol.handle_control(now, peer, bytes),
            _ => protocol.handle_disconnected(peer),
        }
        now = now + std::time::Duration::from_millis(u64::from(*op));
        protocol.handle_timeout(now);
        while let Some(event) = protocol.poll_event() {
            assert!(!matches!(event, crate::protocol::Event::Message(_)), "nobody signed");
        }
        while protocol.poll_transmit(now).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    /// Runs every target on bytes of a fixed generator.
    #[test]
    fn targets_hold_on_seeded_bytes() {
        let mut stream = blake3::Hasher::new().update(b"fuzz turbine").finalize_xof();
        for (name, target) in super::TARGETS {
            for round in 0..200 {
                let mut data = vec![0; (round * 7) % 1400];
                stream.fill(&mut data);
                if let Some(first) = data.first_mut() {
                    *first %= 5;
                }
                let result = std::panic::catch_unwind(|| target(&data));
                assert!(result.is_ok(), "{name} panicked in round {round}");
            }
        }
    }
}
