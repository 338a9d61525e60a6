//! The boundaries of Karst, and of the headers since Jovian.
//!
//! No block of a network after Karst is recorded, so these are the specification's numbers.

use std::collections::BTreeMap;

use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_primitives::{address, hex};

use super::*;

/// The most gas of one transaction (EIP-7825).
const CAP: u64 = 1 << 24;
/// When the fork of a test becomes active.
const FORK: u64 = 1_000_000;
/// Gas limit of the parent.
const LIMIT: u64 = 60_000_000;
/// Gas of the 31 upgrade deposits of Karst.
const UPGRADE_GAS: u64 = 55_370_657;

const DEPOSITOR: Address = address!("deaddeaddeaddeaddeaddeaddeaddeaddead0001");
const MODEXP: Address = address!("0000000000000000000000000000000000000005");
const PAIRING: Address = address!("0000000000000000000000000000000000000008");
const P256: Address = address!("0000000000000000000000000000000000000100");
/// `SSTORE(0, GAS)`.
const GAS_LEFT: Address = Address::repeat_byte(0xa1);
/// `SSTORE(0, CLZ(1))`.
const CLZ: Address = Address::repeat_byte(0xa2);
/// `SSTORE(0, BLOBBASEFEE)`.
const BLOB_FEE: Address = Address::repeat_byte(0xa3);
/// `INVALID`: uses all gas.
const BURN: Address = Address::repeat_byte(0xa4);

/// Version 1, denominator 250, elasticity 6, minimum base fee.
fn extra(least: u64) -> Bytes {
    let mut extra = vec![1, 0, 0, 0, 250, 0, 0, 0, 6];
    extra.extend(least.to_be_bytes());
    extra.into()
}

/// A chain of which `last` is the last fork, active from [`FORK`] on; the others always were.
struct Ground {
    spec: Arc<ChainSpec>,
    source: Arc<dyn StateSource>,
    parent: Parent,
}

impl Ground {
    /// `parent_at`: the time of the parent, two seconds before the block of the test.
    fn new(last: &str, parent_at: u64) -> Self {
        let forks = ["canyon", "ecotone", "fjord", "granite", "holocene", "isthmus", "jovian"];
        let mut times = BTreeMap::new();
        for fork in forks.into_iter().chain(["karst"]) {
            times.insert(fork.to_owned(), if fork == last { FORK } else { 0 });
            if fork == last {
                break;
            }
        }
        let spec = ChainSpec::op_with_times("test", 901, &times).unwrap();
        let mut state = MemoryState::default();
        let rich = account_key(0, 0).address();
        let nothing = Bytes::new();
        state.insert(rich, 0, U256::from(u128::MAX), &nothing, std::iter::empty());
        for (address, code) in [
            (GAS_LEFT, &hex!("5a5f5500")[..]),
            (CLZ, &hex!("60011e5f5500")),
            (BLOB_FEE, &hex!("4a5f5500")),
            (BURN, &hex!("fe")),
        ] {
            let code = Bytes::copy_from_slice(code);
            state.insert(address, 1, U256::ZERO, &code, std::iter::empty());
        }
        // The L1Block contract: a DA footprint of 400 gas a byte, and STOP as its code.
        let scalar = U256::from(400) << 96;
        let slots = [(U256::from(8), scalar)].into_iter();
        state.insert(L1_BLOCK, 1, U256::ZERO, &Bytes::from_static(&[0]), slots);
        let jovian = spec.is_jovian_active_at_timestamp(parent_at);
        let holocene = Bytes::from_static(&[0, 0, 0, 0, 250, 0, 0, 0, 6]);
        let header = Header {
            state_root: state.trie().unwrap().root(),
            number: 10,
            gas_limit: LIMIT,
            timestamp: parent_at,
            extra_data: if jovian { extra(0) } else { holocene },
            base_fee_per_gas: Some(1_000_000_000),
            excess_blob_gas: Some(0),
            blob_gas_used: Some(0),
            withdrawals_root: Some(alloy_trie::EMPTY_ROOT_HASH),
            ..Header::default()
        };
        let source = MemorySource::new(header, state).unwrap();
        let parent = source.anchor().clone().into();
        Self { spec: Arc::new(spec), source: Arc::new(source), parent }
    }

    /// A block of a chain at Karst for long.
    fn karst() -> Self {
        Self::new("karst", FORK + 100)
    }

    /// A block of a chain at Jovian, for comparison.
    fn jovian() -> Self {
        Self::new("jovian", FORK + 100)
    }

    fn env(&self, gas_limit: u64) -> Env {
        let timestamp = self.parent.header.timestamp + 2;
        let jovian = self.spec.is_jovian_active_at_timestamp(timestamp);
        Env {
            number: 11,
            parent_hash: self.parent.hash,
            beneficiary: Address::repeat_byte(0xfe),
            timestamp,
            gas_limit,
            basefee: self.spec.next_base_fee(&self.parent.header, timestamp).unwrap(),
            difficulty: U256::ZERO,
            prevrandao: B256::ZERO,
            extra_data: if jovian { extra(0) } else { self.parent.header.extra_data.clone() },
            parent_beacon_block_root: B256::ZERO,
        }
    }

    fn open(&self, env: &Env) -> Result<OpenBlock, BlockError> {
        OpenBlock::open(&self.spec, env, 0, self.parent.clone(), &self.source, None)
    }

    /// Executes a block of the attributes deposit and `txs`, and seals and checks it.
    fn block(&self, gas_limit: u64, txs: &[Bytes]) -> Result<Arc<Snapshot>, BlockError> {
        let mut block = self.open(&self.env(gas_limit))?;
        let all = [&[attributes()], txs].concat();
        let all = all.iter().map(|tx| Tx::decode(tx, true)).collect();
        block.execute(all, true, OnInvalid::Fail)?;
        let seal = block.make_seal(false)?;
        assert_eq!(block.check(&seal), Verdict::Verified);
        Ok(block.sealed().unwrap().snapshot)
    }

    /// Whether a deposit that calls `to` succeeds.
    fn succeeds(&self, to: Address, gas: u64, input: Vec<u8>) -> bool {
        let snapshot = self.block(LIMIT, &[deposit(to, gas, input.into())]).unwrap();
        snapshot.txs().last().unwrap().executed.receipt.success
    }

    /// Slot 0 of `to` after a deposit that calls it with `gas`.
    fn stores(&self, to: Address, gas: u64) -> U256 {
        let snapshot = self.block(LIMIT, &[deposit(to, gas, Bytes::new())]).unwrap();
        snapshot.state.storage(to, U256::ZERO).unwrap()
    }
}

fn deposit_of(from: Address, to: Address, gas_limit: u64, input: Bytes) -> Bytes {
    let deposit = TxDeposit {
        source_hash: B256::repeat_byte(0x11),
        from,
        to: TxKind::Call(to),
        mint: 0,
        value: U256::ZERO,
        gas_limit,
        is_system_transaction: false,
        input,
    };
    deposit.encoded_2718().into()
}

fn attributes() -> Bytes {
    deposit_of(DEPOSITOR, L1_BLOCK, 1_000_000, Bytes::new())
}

fn deposit(to: Address, gas_limit: u64, input: Bytes) -> Bytes {
    deposit_of(Address::repeat_byte(3), to, gas_limit, input)
}

fn transfer(nonce: u64, gas_limit: u64) -> Bytes {
    signed(nonce, 901, 100_000_000_000, gas_limit)
}

/// Why transaction `index` makes the block invalid.
fn refusal(outcome: Result<Arc<Snapshot>, BlockError>, index: usize) -> String {
    match outcome.map(|_| ()) {
        Err(BlockError::Invalid(Invalid::Tx { frag: 0, index: at, reason })) => {
            assert_eq!(at, index, "{reason}");
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn karst_prices_modexp_and_p256_as_osaka_does() {
    let (jovian, karst) = (Ground::jovian(), Ground::karst());
    // 21,000 and the floor: 200 gas before, 500 from Karst on.
    assert!(jovian.succeeds(MODEXP, 21_300, Vec::new()));
    assert!(!karst.succeeds(MODEXP, 21_300, Vec::new()));
    assert!(karst.succeeds(MODEXP, 21_600, Vec::new()));
    // 3,450 gas before, 6,900 from Karst on.
    assert!(jovian.succeeds(P256, 24_500, Vec::new()));
    assert!(!karst.succeeds(P256, 24_500, Vec::new()));
    assert!(karst.succeeds(P256, 28_000, Vec::new()));
}

#[test]
fn karst_bounds_the_operands_of_modexp() {
    // A base of so many bytes of zero, no exponent, a modulus of one byte (EIP-7823).
    let input = |base: u64| {
        let mut input = B256::from(U256::from(base)).to_vec();
        input.extend([B256::ZERO.0, B256::with_last_byte(1).0].concat());
        input.extend(vec![0; base as usize]);
        input.push(7);
        input
    };
    assert!(Ground::jovian().succeeds(MODEXP, 2_000_000, input(1_025)));
    assert!(Ground::karst().succeeds(MODEXP, 2_000_000, input(1_024)));
    assert!(!Ground::karst().succeeds(MODEXP, 2_000_000, input(1_025)));
}

#[test]
fn a_pairing_of_bn254_takes_300_pairs_from_karst_on() {
    let gas = 16_000_000;
    let pairs = |n: usize| vec![0; n * 192];
    assert!(Ground::karst().succeeds(PAIRING, gas, pairs(300)));
    assert!(!Ground::karst().succeeds(PAIRING, gas, pairs(301)));
    assert!(Ground::jovian().succeeds(PAIRING, gas, pairs(301)));
    // 427 pairs are Jovian's most.
    assert!(Ground::jovian().succeeds(PAIRING, 20_000_000, pairs(427)));
    assert!(!Ground::jovian().succeeds(PAIRING, 20_000_000, pairs(428)));
}

#[test]
fn the_limits_of_bls_precompiles_are_jovians() {
    let (g1_msm, g2_msm, pairing) = (0x0c, 0x0e, 0x0f);
    for (precompile, most, step) in
        [(g1_msm, 288_960, 160), (g2_msm, 278_784, 288), (pairing, 156_672, 384)]
    {
        let address = Address::with_last_byte(precompile);
        // Points at infinity; the gas is more than any of them costs.
        assert!(Ground::karst().succeeds(address, 55_000_000, vec![0; most]), "{precompile}");
        let more = vec![0; most + step];
        assert!(!Ground::karst().succeeds(address, 55_000_000, more), "{precompile}");
    }
}

#[test]
fn clz_is_an_instruction_from_karst_on_and_blobs_cost_1() {
    assert_eq!(Ground::karst().stores(CLZ, 100_000), U256::from(255));
    assert!(!Ground::jovian().succeeds(CLZ, 100_000, Vec::new()));
    assert_eq!(Ground::karst().stores(BLOB_FEE, 100_000), U256::from(1));
}

#[test]
fn the_gas_of_a_transaction_is_capped_at_karst_and_that_of_a_deposit_is_not() {
    let karst = Ground::karst();
    assert!(karst.succeeds(GAS_LEFT, CAP + 1, Vec::new()));
    // The frame has all of it, less 21,000 and 2 for GAS itself: nothing is clipped.
    let gas = 40_000_000;
    assert_eq!(karst.stores(GAS_LEFT, gas), U256::from(gas - 21_002));
    let whole = karst.block(LIMIT, &[transfer(0, CAP)]).unwrap();
    assert!(whole.txs().last().unwrap().executed.receipt.success);
    let reason = refusal(karst.block(LIMIT, &[transfer(0, CAP + 1)]), 1);
    assert!(reason.contains("cap"), "{reason}");
    // After a deposit without a cap there is one again for the transactions that follow.
    let both = [deposit(GAS_LEFT, CAP + 1, Bytes::new()), transfer(0, CAP + 1)];
    let reason = refusal(karst.block(LIMIT, &both), 2);
    assert!(reason.contains("cap"), "{reason}");
    assert!(Ground::jovian().block(LIMIT, &[transfer(0, CAP + 1)]).is_ok());
}

#[test]
fn the_first_block_of_a_fork_holds_deposits_only_from_jovian_on() {
    for fork in ["jovian", "karst"] {
        let other = deposit(GAS_LEFT, 100_000, Bytes::new());
        // The parent is the last block before the fork.
        for before in [1, 2] {
            let first = Ground::new(fork, FORK - before);
            assert!(first.block(LIMIT, std::slice::from_ref(&other)).is_ok());
            let reason = refusal(first.block(LIMIT, &[other.clone(), transfer(0, 21_000)]), 2);
            assert!(reason.contains("deposits only"), "{reason}");
        }
        // Neither before nor after it.
        for parent in [FORK - 3, FORK] {
            let ground = Ground::new(fork, parent);
            assert!(ground.block(LIMIT, &[transfer(0, 21_000)]).is_ok(), "{fork} {parent}");
        }
    }
    // Not of older forks.
    assert!(Ground::new("isthmus", FORK - 2).block(LIMIT, &[transfer(0, 21_000)]).is_ok());
}

#[test]
fn the_first_block_of_karst_has_the_upgrades_gas_above_its_limit() {
    let first = Ground::new("karst", FORK - 2);
    // 31 deposits that use all of their gas, behind a user's that leaves no room for them.
    let each = UPGRADE_GAS / 31;
    let mut txs = vec![deposit(BURN, LIMIT - 1_000_000, Bytes::new())];
    txs.extend((0..30).map(|_| deposit(BURN, each, Bytes::new())));
    txs.push(deposit(BURN, UPGRADE_GAS - 30 * each, Bytes::new()));
    assert_eq!(txs.len(), 32);
    let snapshot = first.block(LIMIT + UPGRADE_GAS, &txs).unwrap();
    assert_eq!(snapshot.txs().count(), 33);
    let attributes = snapshot.txs().next().unwrap().executed.gas_used;
    let header = &snapshot.header;
    assert_eq!(header.gas_used, attributes + LIMIT - 1_000_000 + UPGRADE_GAS);
    assert_eq!(header.gas_limit, LIMIT + UPGRADE_GAS);
    let reason = refusal(first.block(LIMIT, &txs), 2);
    assert!(reason.contains("gas"), "{reason}");
    // The next block goes back; its base fee comes of the header as it is.
    let (used, target) = (u128::from(header.gas_used), u128::from(header.gas_limit / 6));
    let fee = u128::from(header.base_fee_per_gas.unwrap());
    let next = fee + fee * (used - target) / target / 250;
    let env = Env {
        number: 12,
        parent_hash: snapshot.hash,
        timestamp: header.timestamp + 2,
        basefee: u64::try_from(next).unwrap(),
        ..first.env(LIMIT)
    };
    first.spec.check_env(&env, header).unwrap();
}

#[test]
fn a_block_of_karst_may_be_longer_than_one_of_osaka() {
    // EIP-7934 is off: this one has more than the 8 MiB that Ethereum's may have.
    let long = deposit(GAS_LEFT, 150_000_000, vec![0; (8 << 20) + 1].into());
    let snapshot = Ground::karst().block(200_000_000, &[long]).unwrap();
    assert!(snapshot.txs().last().unwrap().executed.receipt.success);
}

#[test]
fn a_post_execution_transaction_is_refused_before_lagoon() {
    for bytes in [&hex!("7dc101")[..], &hex!("7dc0")] {
        let reason = refusal(Ground::karst().block(LIMIT, &[Bytes::from(bytes.to_vec())]), 1);
        assert!(reason.contains("decode"), "{reason}");
    }
}

#[test]
fn headers_since_jovian_have_what_they_should() {
    for ground in [Ground::jovian(), Ground::karst()] {
        let snapshot = ground.block(LIMIT, &[transfer(0, 21_000), transfer(1, 21_000)]).unwrap();
        let header = &snapshot.header;
        // The estimate of a small transaction is 100 bytes, times the scalar of 400.
        assert_eq!(header.blob_gas_used, Some(2 * 100 * 400));
        assert_eq!(header.excess_blob_gas, Some(0));
        assert_eq!(header.requests_hash, Some(EMPTY_REQUESTS_HASH));
        // Nothing was ever withdrawn: the storage of the message passer is empty.
        assert_eq!(header.withdrawals_root, Some(alloy_trie::EMPTY_ROOT_HASH));
        assert_eq!(header.extra_data.len(), 17);
        // The footprint counts where it is more than the gas.
        let full = Header { gas_used: 0, blob_gas_used: Some(LIMIT / 3), ..header.clone() };
        let by_gas = Header { gas_used: LIMIT / 3, blob_gas_used: Some(0), ..header.clone() };
        let next = |parent: &Header| ground.spec.next_base_fee(parent, parent.timestamp + 2);
        assert_eq!(next(&full).unwrap(), next(&by_gas).unwrap());
        assert!(next(&full).unwrap() > header.base_fee_per_gas.unwrap());
        // And the fee never falls below the least.
        let least = Header { extra_data: extra(1 << 40), ..full };
        assert_eq!(next(&least).unwrap(), 1 << 40);
        for bad in [&extra(0)[..9], &extra(0)[..16], &[&extra(0)[..], &[0]].concat()] {
            let env = Env { extra_data: bad.to_vec().into(), ..ground.env(LIMIT) };
            match ground.open(&env).map(|_| ()) {
                Err(BlockError::Invalid(Invalid::Env(error))) => {
                    assert_eq!(error.field, "extra_data");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn blocks_from_lagoon_on_are_not_verified_and_never_rejected() {
    for name in ["lagoon", "interop"] {
        let forks = ["canyon", "ecotone", "fjord", "granite", "holocene", "isthmus", "jovian"];
        let mut times: BTreeMap<String, u64> = forks.map(|fork| (fork.into(), 0)).into();
        times.insert("karst".into(), FORK);
        times.insert(name.into(), FORK + 102);
        let mut ground = Ground::karst();
        assert!(ground.open(&ground.env(LIMIT)).is_ok());
        ground.spec = Arc::new(ChainSpec::op_with_times("test", 901, &times).unwrap());
        let env = ground.env(LIMIT);
        match ground.open(&env).map(|_| ()) {
            Err(error @ BlockError::Unverified(_)) => {
                assert!(error.to_string().contains(name), "{error}");
                assert_eq!(Verdict::from(error).name(), "unverified");
            }
            other => panic!("{other:?}"),
        }
    }
}
