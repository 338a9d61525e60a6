//! The header of block 0 of any genesis, as geth (`Genesis.ToBlock`) and op-geth make it.

use alloy_consensus::Header;
use alloy_consensus::constants::{EMPTY_ROOT_HASH, EMPTY_WITHDRAWALS, KECCAK_EMPTY};
use alloy_consensus::proofs::{state_root_unhashed, storage_root_unhashed};
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_genesis::{Genesis, GenesisAccount};
use alloy_hardforks::EthereumHardforks;
use alloy_op_hardforks::OpHardforks;
use alloy_primitives::{Address, B64, B256, U256, address, keccak256};
use alloy_trie::TrieAccount;

use super::ChainSpec;

/// The L2ToL1MessagePasser predeploy, whose storage root is in the header from Isthmus on.
pub(crate) const MESSAGE_PASSER: Address = address!("4200000000000000000000000000000000000016");
/// geth's `params.GenesisGasLimit`, for a genesis that says 0.
const DEFAULT_GAS_LIMIT: u64 = 4_712_388;
/// geth's `params.InitialBaseFee`, for a genesis that says nothing.
const INITIAL_BASE_FEE: u64 = 1_000_000_000;

/// Slots of value zero do not exist.
fn storage_root(account: &GenesisAccount) -> B256 {
    let slots = account.storage.iter().flatten().filter(|(_, value)| !value.is_zero());
    storage_root_unhashed(slots.map(|(slot, value)| (*slot, U256::from_be_bytes(value.0))))
}

fn trie_account(account: &GenesisAccount) -> TrieAccount {
    let code = account.code.as_ref().filter(|code| !code.is_empty());
    let code_hash = code.map_or(KECCAK_EMPTY, keccak256);
    TrieAccount::new(account.nonce.unwrap_or(0), account.balance, storage_root(account), code_hash)
}

/// The header of the block that `genesis` describes; computes the state root, which costs about
/// 2 µs an account and a slot.
pub fn genesis_header(spec: &ChainSpec, genesis: &Genesis) -> Header {
    let (number, time) = (genesis.number.unwrap_or(0), genesis.timestamp);
    let accounts = genesis.alloc.iter().map(|(address, a)| (*address, trie_account(a)));
    let cancun = spec.is_cancun_active_at_timestamp(time);
    let withdrawals = if spec.is_op() && spec.is_isthmus_active_at_timestamp(time) {
        Some(genesis.alloc.get(&MESSAGE_PASSER).map_or(EMPTY_ROOT_HASH, storage_root))
    } else {
        spec.is_shanghai_active_at_timestamp(time).then_some(EMPTY_WITHDRAWALS)
    };
    let base_fee = genesis.base_fee_per_gas.map_or(INITIAL_BASE_FEE, |fee| {
        // More than 2^64 wei a unit of gas cannot be paid by anybody.
        u64::try_from(fee).unwrap_or(u64::MAX)
    });
    Header {
        parent_hash: genesis.parent_hash.unwrap_or_default(),
        beneficiary: genesis.coinbase,
        state_root: state_root_unhashed(accounts),
        transactions_root: EMPTY_ROOT_HASH,
        receipts_root: EMPTY_ROOT_HASH,
        difficulty: genesis.difficulty,
        number,
        gas_limit: if genesis.gas_limit == 0 { DEFAULT_GAS_LIMIT } else { genesis.gas_limit },
        timestamp: time,
        extra_data: genesis.extra_data.clone(),
        mix_hash: genesis.mix_hash,
        nonce: B64::from(genesis.nonce.to_be_bytes()),
        base_fee_per_gas: spec.is_london_active_at_block(number).then_some(base_fee),
        withdrawals_root: withdrawals,
        blob_gas_used: cancun.then(|| genesis.blob_gas_used.unwrap_or(0)),
        excess_blob_gas: cancun.then(|| genesis.excess_blob_gas.unwrap_or(0)),
        parent_beacon_block_root: cancun.then_some(B256::ZERO),
        requests_hash: spec.is_prague_active_at_timestamp(time).then_some(EMPTY_REQUESTS_HASH),
        ..Header::default()
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::b256;
    use serde_json::json;

    use super::*;
    use crate::devnet::DevnetConfig;

    #[test]
    fn the_devnet_has_the_hash_that_geth_computes() {
        let devnet = crate::devnet::Genesis::devnet(&DevnetConfig::default());
        let spec = devnet.chain_spec("dev").unwrap();
        let header = genesis_header(&spec, spec.genesis.as_ref().unwrap());
        assert_eq!(header, devnet.header());
    }

    fn of(config: &serde_json::Value, extra: &serde_json::Value) -> Header {
        let mut config = config.clone();
        let merge = config.as_object_mut().unwrap();
        for fork in ["homestead", "eip150", "eip155", "eip158", "byzantium", "constantinople"]
            .into_iter()
            .chain(["petersburg", "istanbul", "berlin", "london"])
        {
            merge.insert(format!("{fork}Block"), 0.into());
        }
        merge.insert("chainId".into(), 7.into());
        merge.insert("terminalTotalDifficulty".into(), 0.into());
        merge.insert("terminalTotalDifficultyPassed".into(), true.into());
        let mut genesis = json!({
            "config": config, "nonce": "0x0", "timestamp": "0x0", "extraData": "0x",
            "gasLimit": "0x0", "difficulty": "0x0", "mixHash": B256::ZERO,
            "coinbase": Address::ZERO, "alloc": {},
        });
        genesis.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let genesis: Genesis = serde_json::from_value(genesis).unwrap();
        let spec = ChainSpec::from_genesis("test", genesis).unwrap();
        genesis_header(&spec, spec.genesis.as_ref().unwrap())
    }

    #[test]
    fn each_fork_adds_its_fields() {
        let merged = of(&json!({}), &json!({}));
        assert_eq!(merged.gas_limit, DEFAULT_GAS_LIMIT);
        assert_eq!(merged.base_fee_per_gas, Some(INITIAL_BASE_FEE));
        assert_eq!(merged.withdrawals_root, None);
        assert_eq!(merged.state_root, EMPTY_ROOT_HASH);
        let shanghai = of(&json!({"shanghaiTime": 0}), &json!({"baseFeePerGas": "0x7"}));
        assert_eq!(shanghai.base_fee_per_gas, Some(7));
        assert_eq!(shanghai.withdrawals_root, Some(EMPTY_WITHDRAWALS));
        assert_eq!(shanghai.blob_gas_used, None);
        let cancun = json!({"shanghaiTime": 0, "cancunTime": 0});
        let cancun = of(&cancun, &json!({"excessBlobGas": "0x20000"}));
        assert_eq!(cancun.blob_gas_used, Some(0));
        assert_eq!(cancun.excess_blob_gas, Some(0x2_0000));
        assert_eq!(cancun.parent_beacon_block_root, Some(B256::ZERO));
        assert_eq!(cancun.requests_hash, None);
        let prague = json!({"shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0});
        // geth's `EmptyRequestsHash`: SHA-256 of nothing.
        let empty = b256!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(of(&prague, &json!({})).requests_hash, Some(empty));
    }

    #[test]
    fn isthmus_has_the_storage_root_of_the_message_passer() {
        let mut config =
            json!({"optimism": {}, "shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0});
        let forks = ["regolith", "canyon", "ecotone", "fjord", "granite", "holocene", "isthmus"];
        for fork in forks {
            config.as_object_mut().unwrap().insert(format!("{fork}Time"), 0.into());
        }
        let header = of(&config, &json!({}));
        assert_eq!(header.withdrawals_root, Some(EMPTY_ROOT_HASH));
        assert!(header.requests_hash.is_some());
        let slot = B256::with_last_byte(1);
        let alloc = json!({"alloc": {
            MESSAGE_PASSER.to_string(): {"balance": "0x0", "storage": {slot.to_string(): slot}},
        }});
        let root = storage_root_unhashed([(slot, U256::from(1))]);
        assert_eq!(of(&config, &alloc).withdrawals_root, Some(root));
    }
}
