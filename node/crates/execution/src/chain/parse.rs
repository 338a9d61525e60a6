//! A chain from its genesis file or its name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alloy_eips::eip1559::BaseFeeParams;
use alloy_eips::eip7840::BlobParams;
use alloy_eips::{eip7594, eip7840};
use alloy_genesis::{ChainConfig, Genesis};
use alloy_hardforks::{EthereumChainHardforks, EthereumHardfork, ForkCondition};
use alloy_op_hardforks::{OpChainHardforks, OpHardfork};
use alloy_primitives::U256;

use super::presets::named;
use super::{BlobSchedule, ChainSpec, OpFees, OpRules};

/// Why a chain cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// Neither a name nor a file.
    #[error(
        "`{0}` is neither a chain's name or id (dev, op-mainnet, op-sepolia and what `fragcast \
         chains` prints) nor a file that can be read: {1}; give a geth genesis JSON"
    )]
    Unknown(String, std::io::Error),
    /// The file is no genesis.
    #[error("{path} is no geth genesis: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        reason: serde_json::Error,
    },
    /// A fork is missing or out of order.
    #[error("{chain}: {problem}")]
    Forks {
        /// The chain.
        chain: String,
        /// The problem.
        problem: String,
    },
}

/// OP's forks in their order, by the key of their time in the genesis file.
const OP_FORKS: [(&str, OpHardfork); 9] = [
    ("regolithTime", OpHardfork::Regolith),
    ("canyonTime", OpHardfork::Canyon),
    ("ecotoneTime", OpHardfork::Ecotone),
    ("fjordTime", OpHardfork::Fjord),
    ("graniteTime", OpHardfork::Granite),
    ("holoceneTime", OpHardfork::Holocene),
    ("isthmusTime", OpHardfork::Isthmus),
    ("jovianTime", OpHardfork::Jovian),
    ("karstTime", OpHardfork::Karst),
];

/// A time in a genesis file that changes nothing here: the Pectra blob schedule is about the fee
/// of L1.
const HARMLESS: &str = "pectraBlobScheduleTime";

pub(super) fn schedule(config: &ChainConfig) -> BlobSchedule {
    let given = |name: &str| config.blob_schedule.get(name).copied();
    let modern = |params: BlobParams| {
        params
            .with_blob_base_cost(eip7840::BLOB_BASE_COST)
            .with_max_blobs_per_tx(eip7594::MAX_BLOBS_PER_TX_FUSAKA)
    };
    let mut scheduled: Vec<_> = blob_forks(config)
        .into_iter()
        .filter_map(|(name, time)| Some((time?, name, modern(given(name)?))))
        .collect();
    scheduled.sort_by_key(|(time, ..)| *time);
    BlobSchedule {
        cancun: given("cancun").unwrap_or_else(BlobParams::cancun),
        prague: given("prague").unwrap_or_else(BlobParams::prague),
        osaka: given("osaka").map_or_else(BlobParams::osaka, modern),
        scheduled,
    }
}

/// Times of the forks that change blob parameters alone (EIP-7892).
const fn blob_forks(config: &ChainConfig) -> [(&'static str, Option<u64>); 5] {
    [
        ("bpo1", config.bpo1_time),
        ("bpo2", config.bpo2_time),
        ("bpo3", config.bpo3_time),
        ("bpo4", config.bpo4_time),
        ("bpo5", config.bpo5_time),
    ]
}

pub(super) fn ethereum(config: &ChainConfig) -> EthereumChainHardforks {
    use EthereumHardfork as F;
    let block = |at: Option<u64>| at.map_or(ForkCondition::Never, ForkCondition::Block);
    let time = |at: Option<u64>| at.map_or(ForkCondition::Never, ForkCondition::Timestamp);
    EthereumChainHardforks::new([
        (F::Frontier, ForkCondition::Block(0)),
        (F::Homestead, block(config.homestead_block)),
        (F::Dao, block(config.dao_fork_block)),
        (F::Tangerine, block(config.eip150_block)),
        (F::SpuriousDragon, block(config.eip155_block)),
        (F::Byzantium, block(config.byzantium_block)),
        (F::Constantinople, block(config.constantinople_block)),
        (F::Petersburg, block(config.petersburg_block)),
        (F::Istanbul, block(config.istanbul_block)),
        (F::Berlin, block(config.berlin_block)),
        (F::London, block(config.london_block)),
        // Only blocks after the merge are executed here; `merged` checks that.
        (
            F::Paris,
            ForkCondition::TTD {
                activation_block_number: 0,
                fork_block: Some(0),
                total_difficulty: U256::ZERO,
            },
        ),
        (F::Shanghai, time(config.shanghai_time)),
        (F::Cancun, time(config.cancun_time)),
        (F::Prague, time(config.prague_time)),
        (F::Osaka, time(config.osaka_time)),
    ])
}

/// Optimism's `optimism` section: base fee parameters.
fn op_fees(config: &ChainConfig) -> Option<OpFees> {
    let section = config.extra_fields.get("optimism")?;
    let number = |key: &str, default: u64| {
        u128::from(section.get(key).and_then(serde_json::Value::as_u64).unwrap_or(default)).max(1)
    };
    let elasticity = number("eip1559Elasticity", 6);
    Some(OpFees {
        before_canyon: BaseFeeParams::new(number("eip1559Denominator", 50), elasticity),
        from_canyon: BaseFeeParams::new(number("eip1559DenominatorCanyon", 250), elasticity),
    })
}

/// Every key of the file that ends in `Time`, by name, that has a number.
fn times(config: &ChainConfig) -> BTreeMap<String, u64> {
    let extra = config.extra_fields.iter().filter(|(key, _)| key.ends_with("Time"));
    let mut times: BTreeMap<String, u64> =
        extra.filter_map(|(key, value)| Some((key.clone(), value.as_u64()?))).collect();
    let known = [("amsterdamTime", config.amsterdam_time), ("bogotaTime", config.bogota_time)];
    times.extend(known.into_iter().filter_map(|(key, time)| Some((key.to_owned(), time?))));
    times
}

impl ChainSpec {
    /// Loads a chain by its name or id ([`presets`](super::presets)) or from a genesis file.
    /// [`devnet::load_chain`](crate::devnet::load_chain) has the devnet's.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn load(chain: &str) -> Result<Self, ChainError> {
        if let Some(spec) = named(chain) {
            return Ok(spec);
        }
        let path = Path::new(chain);
        let text = std::fs::read(path).map_err(|e| ChainError::Unknown(chain.to_owned(), e))?;
        let genesis: Genesis = serde_json::from_slice(&text)
            .map_err(|reason| ChainError::Json { path: path.to_owned(), reason })?;
        Self::from_genesis(chain, genesis)
    }

    /// A chain whose OP forks are those of `times` (name of the fork, or its key in a rollup
    /// configuration, which ends in `_time` → Unix seconds), with the fee parameters of the OP
    /// chains.
    ///
    /// # Errors
    /// A fork is missing before one that is present.
    pub fn op_with_times(
        name: &str,
        chain_id: u64,
        times: &BTreeMap<String, u64>,
    ) -> Result<Self, ChainError> {
        let mut config = ChainConfig { chain_id, ..ChainConfig::default() };
        config.extra_fields.insert("optimism".into(), serde_json::json!({}));
        // The forks of before the first that is named were there from the start.
        config.extra_fields.insert("regolithTime".into(), 0.into());
        for (fork, time) in times {
            let words = fork.trim_end_matches("_time").split('_').enumerate().map(|(i, word)| {
                match word.split_at_checked(1) {
                    Some((first, rest)) if i > 0 => first.to_uppercase() + rest,
                    _ => word.to_owned(),
                }
            });
            let key = words.collect::<String>() + "Time";
            config.extra_fields.insert(key, (*time).into());
        }
        Self::from_config(name, &config)
    }

    /// A chain from its genesis.
    ///
    /// # Errors
    /// Forks are missing, out of order, or from before the merge.
    pub fn from_genesis(name: &str, genesis: Genesis) -> Result<Self, ChainError> {
        let spec = Self::from_config(name, &genesis.config)?;
        let merged = genesis.config.terminal_total_difficulty == Some(U256::ZERO)
            || genesis.config.terminal_total_difficulty_passed;
        if !merged && !spec.is_op() {
            return Err(ChainError::Forks {
                chain: name.to_owned(),
                problem: "blocks from before the merge cannot be executed: \
                          terminalTotalDifficulty must be 0"
                    .into(),
            });
        }
        Ok(Self { genesis: Some(Arc::new(genesis)), ..spec })
    }

    fn from_config(name: &str, config: &ChainConfig) -> Result<Self, ChainError> {
        let error = |problem: String| ChainError::Forks { chain: name.to_owned(), problem };
        let mut times = times(config);
        times.remove(HARMLESS);
        for (fork, time) in blob_forks(config) {
            if time.is_some() && !config.blob_schedule.contains_key(fork) {
                return Err(error(format!("{fork}Time needs its entry in blobSchedule")));
            }
        }
        let op = match op_fees(config) {
            None => None,
            Some(fees) => {
                let mut forks = vec![(OpHardfork::Bedrock, ForkCondition::Block(0))];
                let mut before = Some(0);
                for (key, fork) in OP_FORKS {
                    let time = times.remove(key);
                    if time.is_some_and(|time| before.is_none_or(|before| time < before)) {
                        return Err(error(format!("{key} comes before the fork it builds on")));
                    }
                    before = time;
                    forks.push((fork, time.map_or(ForkCondition::Never, ForkCondition::Timestamp)));
                }
                // Without a gap: the crate looks forks up by their position.
                forks.push((OpHardfork::Interop, ForkCondition::Never));
                let delta = times.remove("deltaTime");
                Some(OpRules { forks: OpChainHardforks::new(forks), fees, delta })
            }
        };
        let mut lacking: Vec<(u64, String)> = times
            .into_iter()
            .map(|(key, time)| (time, key.trim_end_matches("Time").to_owned()))
            .collect();
        lacking.sort();
        let order =
            [config.shanghai_time, config.cancun_time, config.prague_time, config.osaka_time];
        for pair in order.windows(2) {
            if pair[1].is_some_and(|later| pair[0].is_none_or(|earlier| later < earlier)) {
                return Err(error(
                    "shanghai, cancun, prague and osaka must come in this order".into(),
                ));
            }
        }
        Ok(Self {
            name: name.to_owned(),
            chain_id: config.chain_id,
            eth: ethereum(config),
            op,
            blobs: schedule(config),
            deposit_contract: config.deposit_contract_address,
            lacking,
            block_time: None,
            genesis: None,
        })
    }
}
