//! Every order in which a gateway may post.

use fragcast_turbine::testing::{env, env_at, frag, frag_with, seal};

use super::*;

/// Checks and, if it is to be sent, commits under `attempt`.
fn offer(
    leading: &mut Leading,
    message: &VerifiedMessage,
    attempt: u8,
) -> Result<Step, OrderError> {
    let step = leading.check(message)?;
    let block = message.message().block();
    match step {
        Step::Open => leading.commit(MessageKey { block, attempt, message: 0 }, message),
        Step::Send(key) => leading.commit(key, message),
        Step::Again => {}
    }
    Ok(step)
}

fn key(block: u64, attempt: u8, message: u16) -> Step {
    Step::Send(MessageKey { block, attempt, message })
}

#[test]
fn a_block_in_order_goes_out_and_the_same_again_is_idempotent() {
    let mut leading = Leading::default();
    assert_eq!(offer(&mut leading, &env(7), 0), Ok(Step::Open));
    assert_eq!(offer(&mut leading, &env(7), 0), Ok(Step::Again));
    assert_eq!(offer(&mut leading, &frag(7, 0), 0), Ok(key(7, 0, 1)));
    assert_eq!(offer(&mut leading, &frag(7, 0), 0), Ok(Step::Again));
    let last = frag_with(7, 1, true, 1);
    assert_eq!(offer(&mut leading, &last, 0), Ok(key(7, 0, 2)));
    assert_eq!(offer(&mut leading, &frag(7, 2), 0), Err(OrderError::AfterLast(7)));
    let counted = OrderError::Count { block: 7, found: 3, sent: 2 };
    assert_eq!(offer(&mut leading, &seal(7, 3), 0), Err(counted));
    assert_eq!(offer(&mut leading, &seal(7, 2), 0), Ok(key(7, 0, 3)));
    assert_eq!(offer(&mut leading, &seal(7, 2), 0), Ok(Step::Again));
    assert_eq!(offer(&mut leading, &frag(7, 2), 0), Err(OrderError::Sealed(7)));
    assert_eq!(offer(&mut leading, &frag(7, 0), 0), Ok(Step::Again));
}

#[test]
fn gaps_conflicts_and_closed_blocks_are_told() {
    let mut leading = Leading::default();
    assert_eq!(offer(&mut leading, &frag(7, 0), 0), Err(OrderError::NotOpen(7)));
    assert_eq!(offer(&mut leading, &seal(7, 0), 0), Err(OrderError::NotOpen(7)));
    offer(&mut leading, &env(7), 0).unwrap();
    let gap = OrderError::Gap { block: 7, expected: 0, found: 2 };
    assert_eq!(offer(&mut leading, &frag(7, 2), 0), Err(gap));
    offer(&mut leading, &frag(7, 0), 0).unwrap();
    let conflict = OrderError::Conflict { block: 7, seq: 0 };
    assert_eq!(offer(&mut leading, &frag_with(7, 0, false, 9), 0), Err(conflict));
    assert_eq!(
        offer(&mut leading, &frag(7, u64::MAX), 0),
        Err(OrderError::TooMany(7)),
        "no index for it"
    );
}

#[test]
fn another_env_for_an_open_block_is_a_new_attempt() {
    let mut leading = Leading::default();
    offer(&mut leading, &env(7), 0).unwrap();
    offer(&mut leading, &frag(7, 0), 0).unwrap();
    assert_eq!(offer(&mut leading, &env_at(7, 99), 1), Ok(Step::Open));
    // Sequence starts anew, under the new attempt, with whatever content.
    assert_eq!(offer(&mut leading, &frag_with(7, 0, false, 9), 1), Ok(key(7, 1, 1)));
    assert_eq!(offer(&mut leading, &seal(7, 1), 1), Ok(key(7, 1, 2)));
    // And a sealed block can be rebuilt.
    assert_eq!(offer(&mut leading, &env_at(7, 100), 2), Ok(Step::Open));
}

#[test]
fn several_blocks_are_open_at_once_and_memory_is_bounded() {
    let mut leading = Leading::default();
    for block in 1..=200 {
        offer(&mut leading, &env(block), 0).unwrap();
    }
    assert_eq!(leading.blocks.len(), MAX_BLOCKS);
    assert_eq!(offer(&mut leading, &frag(200, 0), 0), Ok(key(200, 0, 1)));
    assert_eq!(offer(&mut leading, &frag(199, 0), 0), Ok(key(199, 0, 1)));
    assert_eq!(offer(&mut leading, &env(3), 0), Err(OrderError::TooOld(3)));
}
