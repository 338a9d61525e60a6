use fragcast_shredder::SetHeader;

use super::*;
use crate::control::{Tip, Tips};
use crate::protocol::config::Config;
use crate::protocol::ctx::testing::ctx;
use crate::protocol::tests::{CHAIN, World, cut, frag};

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

#[test]
fn what_is_told_makes_late_only_what_can_be_and_only_by_who_was_right_before() {
    let world = World::new(&[1; 5], 1);
    let mut ctx = ctx(&world, 4, Config::new(CHAIN));
    ctx.is_guest = true;
    let shreds = cut(&world, &world.sign(frag(1, 0, 1_000)), 0);
    let header = |block, message| SetHeader { block, message, ..shreds.sets[0].header };
    let [primary, other] = [1, 2].map(PeerKey::from);
    [primary, other].iter().for_each(|peer| assert!(ctx.peers.connect(*peer)));
    let mut attaching = Attaching::default();
    attaching.begin(ctx.now, Some(primary));
    ctx.now = ctx.now + Duration::from_secs(1);
    let tell = |attaching: &mut Attaching, ctx: &Ctx, block, row| {
        let tips = Tips { tips: vec![Tip { block, attempt: 0, row, above: 0 }] };
        attaching.note_tips(ctx, other, &tips);
    };
    let come = |attaching: &mut Attaching, ctx: &mut Ctx, header: SetHeader| {
        ctx.now = ctx.now + Duration::from_millis(100);
        attaching.note_shred(ctx, primary, &header);
        attaching.note_whole(ctx, &header);
        *attaching.window.back().expect("judged")
    };
    assert_eq!(come(&mut attaching, &mut ctx, header(1, 0)), (Duration::ZERO, false));
    for message in 1..=u16::from(PROVED) + 1 {
        tell(&mut attaching, &ctx, 1, message + 1);
        let counts = message > u16::from(PROVED);
        let judged = come(&mut attaching, &mut ctx, header(1, message));
        assert_eq!(judged, (Duration::from_millis(100), counts), "{message}");
    }
    // The newest is message 5 of block 1.
    let known = attaching.seen.len();
    for (block, row) in [(1, 6), (1, 9), (1, 60), (2, 3), (3, 1), (9, 1), (u64::MAX, 1)] {
        tell(&mut attaching, &ctx, block, row);
        assert_eq!(attaching.seen.len(), known, "{block} {row}");
    }
    tell(&mut attaching, &ctx, 1, 8);
    tell(&mut attaching, &ctx, 2, 2);
    assert_eq!(attaching.seen.len(), known + 2);
    // Neither ever comes.
    come(&mut attaching, &mut ctx, header(4, 0));
    assert!(attaching.proved.contains_key(&other));
    attaching.settle(&ctx);
    assert!(!attaching.proved.contains_key(&other), "it has told what is not there");
    tell(&mut attaching, &ctx, 4, 2);
    assert_eq!(come(&mut attaching, &mut ctx, header(4, 1)), (Duration::from_millis(100), false));
}
