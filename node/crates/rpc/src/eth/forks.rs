//! `eth_config` (EIP-7910): the fork in force, the next and the last that is known, with what each has.

use std::collections::{BTreeMap, BTreeSet};

use alloy_eips::eip2124::ForkHash;
use alloy_eips::eip7840::BlobParams;
use alloy_eips::eip7910::{EthConfig, EthForkConfig, SystemContract};
use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
use alloy_genesis::{ChainConfig, Genesis};
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{Address, B256, Bytes};
use fragcast_execution::chain::{BlockEnv, ChainSpec, genesis_header};
use revm::handler::EthPrecompiles;

use super::{Answer, EthContext, Failure, answer};
use crate::params::Params;

/// Names of precompiles by their addresses, as the EIPs have them.
const PRECOMPILES: [(u16, &str); 18] = [
    (0x01, "ECREC"),
    (0x02, "SHA256"),
    (0x03, "RIPEMD160"),
    (0x04, "ID"),
    (0x05, "MODEXP"),
    (0x06, "BN254_ADD"),
    (0x07, "BN254_MUL"),
    (0x08, "BN254_PAIRING"),
    (0x09, "BLAKE2F"),
    (0x0a, "KZG_POINT_EVALUATION"),
    (0x0b, "BLS12_G1ADD"),
    (0x0c, "BLS12_G1MSM"),
    (0x0d, "BLS12_G2ADD"),
    (0x0e, "BLS12_G2MSM"),
    (0x0f, "BLS12_PAIRING_CHECK"),
    (0x10, "BLS12_MAP_FP_TO_G1"),
    (0x11, "BLS12_MAP_FP2_TO_G2"),
    (0x100, "P256VERIFY"),
];

pub(super) fn config(ctx: &EthContext, _: &Params<'_>) -> Result<Answer, Failure> {
    let spec = &*ctx.spec;
    let Some(genesis) = spec.genesis.as_deref().filter(|_| !spec.is_op()) else {
        let what = "the configuration of forks (EIP-7910) is that of an Ethereum chain with a \
                    genesis file; this chain has none";
        return Err(Failure::unavailable(what));
    };
    let now = ctx.blocks.heads()?.latest.snapshot.header.timestamp;
    let times = times(genesis);
    let hash = genesis_header(spec, genesis).hash_slow();
    // From Cancun on; forks before have no configuration.
    let described = |time: u64| describe(spec, genesis, hash, time);
    let past: Vec<u64> = times.iter().copied().filter(|time| *time <= now).collect();
    let current = past.last().and_then(|time| described(*time));
    let what = "the chain's fork is before Cancun, which has no configuration (EIP-7910)";
    let current = current.ok_or_else(|| Failure::unavailable(what))?;
    let mut ahead = times.range(now.saturating_add(1)..);
    let next = ahead.next().and_then(|time| described(*time));
    // The one that is the furthest ahead, which may be the next.
    let last = times.last().filter(|_| next.is_some()).and_then(|time| described(*time));
    answer(&EthConfig { current, next, last })
}

/// Times at which a fork begins, with that of the genesis.
fn times(genesis: &Genesis) -> BTreeSet<u64> {
    let config = &genesis.config;
    let forks = [
        config.shanghai_time,
        config.cancun_time,
        config.prague_time,
        config.osaka_time,
        config.bpo1_time,
        config.bpo2_time,
        config.bpo3_time,
        config.bpo4_time,
        config.bpo5_time,
        config.amsterdam_time,
        config.bogota_time,
    ];
    let begun = genesis.timestamp;
    forks
        .into_iter()
        .flatten()
        .map(|time| if time <= begun { 0 } else { time })
        .chain([0])
        .collect()
}

/// Blocks at which a fork begins.
fn blocks(config: &ChainConfig) -> BTreeSet<u64> {
    let forks = [
        config.homestead_block,
        config.dao_fork_block,
        config.eip150_block,
        config.eip155_block,
        config.eip158_block,
        config.byzantium_block,
        config.constantinople_block,
        config.petersburg_block,
        config.istanbul_block,
        config.muir_glacier_block,
        config.berlin_block,
        config.london_block,
        config.arrow_glacier_block,
        config.gray_glacier_block,
        config.merge_netsplit_block,
    ];
    forks.into_iter().flatten().filter(|block| *block > 0).collect()
}

/// The fork that begins at a time.
fn describe(
    spec: &ChainSpec,
    genesis: &Genesis,
    genesis_hash: B256,
    time: u64,
) -> Option<EthForkConfig> {
    let at = time.max(genesis.timestamp);
    let blob_schedule: BlobParams = spec.blob_params(at)?;
    let mut fork_id = ForkHash::from(genesis_hash);
    for block in blocks(&genesis.config) {
        fork_id += block;
    }
    for begun in times(genesis).into_iter().filter(|begun| *begun > 0 && *begun <= time) {
        fork_id += begun;
    }
    let header = alloy_consensus::Header { timestamp: at, ..Default::default() };
    let BlockEnv::Eth(env) = spec.block_env(&header) else { return None };
    let there = EthPrecompiles::new(env.cfg_env.spec);
    let precompiles: BTreeMap<String, Address> = PRECOMPILES
        .iter()
        .map(|(number, name)| {
            let [high, low] = number.to_be_bytes();
            let mut address = Address::with_last_byte(low);
            address.0[18] = high;
            ((*name).to_owned(), address)
        })
        .filter(|(_, address)| there.contains(address))
        .collect();
    let mut contracts = BTreeMap::new();
    contracts.insert(SystemContract::BeaconRoots, eip4788::BEACON_ROOTS_ADDRESS);
    if spec.is_prague_active_at_timestamp(at) {
        contracts.extend([
            (SystemContract::HistoryStorage, eip2935::HISTORY_STORAGE_ADDRESS),
            (
                SystemContract::WithdrawalRequestPredeploy,
                eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS,
            ),
            (
                SystemContract::ConsolidationRequestPredeploy,
                eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
            ),
        ]);
        let deposits = genesis.config.deposit_contract_address;
        contracts.extend(deposits.map(|address| (SystemContract::DepositContract, address)));
    }
    Some(EthForkConfig {
        activation_time: time,
        blob_schedule,
        chain_id: spec.chain_id,
        fork_id: Bytes::from(fork_id.0.to_vec()),
        precompiles,
        system_contracts: contracts,
    })
}
