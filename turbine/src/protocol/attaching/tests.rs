use super::*;

#[test]
fn what_is_remembered_is_bounded() {
    let mut attaching = Attaching::default();
    for n in 0..10_000u32 {
        let key = MessageKey { block: n.into(), attempt: 0, message: 0 };
        attaching.seen(key).came += 1;
        attaching.avoid(Timestamp::from_nanos(n.into()), PeerKey::from(n), AVOID.0, true);
    }
    assert_eq!((attaching.seen.len(), attaching.avoided.len()), (SEEN, AVOIDED));
    // The newest stay.
    assert!(attaching.seen.keys().all(|key| key.block >= 10_000 - SEEN as u64));
}

#[test]
fn who_was_left_is_avoided_longer_each_time_and_who_was_full_is_not() {
    let (mut attaching, now) = (Attaching::default(), Timestamp::from_nanos(1));
    let [late, full] = [1, 2].map(PeerKey::from);
    for times in 0..9 {
        attaching.avoid(now, late, AVOID.0, true);
        attaching.avoid(now, full, FULL, false);
        let until = now + AVOID.0 * (1 << times.min(AVOID.1));
        assert_eq!(attaching.avoided[&late].until, until);
        assert_eq!(attaching.avoided[&full].until, now + FULL);
    }
    assert!(attaching.is_avoided(now, late) && !attaching.is_avoided(now + FULL, full));
}
