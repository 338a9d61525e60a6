//! Chains that are known by name: fork times, base fee parameters, block times.
//!
//! OP chains are those of the superchain registry (read in August 2026) and Base, which has left
//! it. Ethereum's networks are here with their blob schedules (EIP-7892). Times of forks that this
//! build lacks belong into the table too: blocks from then on are not verified, but never rejected.

use alloy_eips::eip1559::BaseFeeParams;
use alloy_eips::eip7840::BlobParams;
use alloy_genesis::ChainConfig;
use alloy_hardforks::ForkCondition;
use alloy_hardforks::ethereum::{holesky, hoodi, mainnet, sepolia};
use alloy_op_hardforks::{OpChainHardforks, OpHardfork};
use alloy_primitives::{Address, U256, address};

use super::parse::{ethereum, schedule};
use super::{ChainSpec, OpFees, OpRules};

/// The first block of Bedrock on OP Mainnet; on all other chains it is block 0.
const OP_MAINNET_BEDROCK: u64 = 105_235_063;

/// Times of Canyon, Delta, Ecotone, Fjord, Granite, Holocene, Isthmus, Jovian and Karst. Regolith
/// is there from the beginning.
type Times = [u64; 9];

/// The superchain's mainnets, unless a chain has a time of its own.
const MAINNET: Times = [
    1_704_992_401,
    1_708_560_000,
    1_710_374_401,
    1_720_627_201,
    1_726_070_401,
    1_736_445_601,
    1_746_806_401,
    1_764_691_201,
    1_783_526_401,
];

/// The superchain's test networks on Sepolia, unless a chain has a time of its own.
const SEPOLIA: Times = [
    1_699_981_200,
    1_703_203_200,
    1_708_534_800,
    1_716_998_400,
    1_723_478_400,
    1_732_633_200,
    1_744_905_600,
    1_763_568_001,
    1_781_712_001,
];

/// `of` with other times for the first forks.
const fn since<const N: usize>(first: [u64; N], of: Times) -> Times {
    let mut times = of;
    let mut i = 0;
    while i < N {
        times[i] = first[i];
        i += 1;
    }
    times
}

/// An OP chain.
struct OpPreset {
    /// Its name, then others that are taken too.
    names: &'static [&'static str],
    id: u64,
    times: Times,
    /// Elasticity, denominator, denominator from Canyon.
    fees: [u128; 3],
    /// Seconds from block to block.
    block_time: u64,
    /// Whether Karst's time is known. If not, blocks from the time in `times` on are not verified:
    /// another fork may be active by then.
    karst: bool,
}

const FEES: [u128; 3] = [6, 50, 250];
/// Of World Chain and of Base's test network.
const FEES_10: [u128; 3] = [10, 50, 250];

const OP_MAINNET: OpPreset = OpPreset {
    names: &["op-mainnet", "op", "optimism", "optimism-mainnet"],
    id: 10,
    times: MAINNET,
    fees: FEES,
    block_time: 2,
    karst: true,
};

const OP_SEPOLIA: OpPreset = OpPreset {
    names: &["op-sepolia", "optimism-sepolia"],
    id: 11_155_420,
    times: SEPOLIA,
    fees: FEES,
    block_time: 2,
    karst: true,
};

const OP_PRESETS: [OpPreset; 14] = [
    OP_MAINNET,
    OpPreset {
        names: &["unichain", "unichain-mainnet"],
        id: 130,
        times: since([0; 5], MAINNET),
        fees: FEES,
        block_time: 1,
        karst: true,
    },
    OpPreset {
        names: &["ink", "ink-mainnet"],
        id: 57_073,
        times: since([0, 0, 0, 0, 0, 1_742_396_400], MAINNET),
        fees: [6, 250, 250],
        block_time: 1,
        karst: true,
    },
    OpPreset {
        names: &["soneium", "soneium-mainnet"],
        id: 1_868,
        times: since([0, 0, 0, 0, 0, 1_738_573_200], MAINNET),
        fees: FEES,
        block_time: 2,
        karst: true,
    },
    OpPreset {
        names: &["mode", "mode-mainnet"],
        id: 34_443,
        times: MAINNET,
        fees: FEES,
        block_time: 2,
        karst: true,
    },
    OpPreset {
        names: &["world", "world-mainnet", "worldchain", "worldchain-mainnet"],
        id: 480,
        times: [
            0,
            0,
            0,
            1_721_826_000,
            1_727_780_400,
            1_738_238_400,
            1_764_072_000,
            1_777_593_600,
            1_789_992_000,
        ],
        fees: FEES_10,
        block_time: 2,
        karst: true,
    },
    OpPreset {
        names: &["base", "base-mainnet"],
        id: 8_453,
        times: MAINNET,
        fees: FEES,
        block_time: 2,
        karst: false,
    },
    OP_SEPOLIA,
    OpPreset {
        names: &["unichain-sepolia"],
        id: 1_301,
        times: since([0, 0, 0, 0, 0, 1_734_559_200], SEPOLIA),
        fees: FEES,
        block_time: 1,
        karst: true,
    },
    OpPreset {
        names: &["ink-sepolia"],
        id: 763_373,
        times: SEPOLIA,
        fees: FEES,
        block_time: 1,
        karst: true,
    },
    OpPreset {
        names: &["minato", "soneium-minato", "soneium-sepolia"],
        id: 1_946,
        times: since([0, 0, 0, 1_730_106_000, 1_730_106_000, 1_734_685_200], SEPOLIA),
        fees: FEES,
        block_time: 2,
        karst: true,
    },
    OpPreset {
        names: &["mode-sepolia"],
        id: 919,
        times: since([1_703_203_200, 1_703_203_200], SEPOLIA),
        fees: FEES,
        block_time: 2,
        karst: true,
    },
    OpPreset {
        names: &["world-sepolia", "worldchain-sepolia"],
        id: 4_801,
        times: [
            0,
            0,
            0,
            1_721_739_600,
            1_726_570_800,
            1_737_633_600,
            1_761_825_600,
            1_777_161_600,
            1_788_868_800,
        ],
        fees: FEES_10,
        block_time: 2,
        karst: true,
    },
    OpPreset {
        names: &["base-sepolia"],
        id: 84_532,
        times: SEPOLIA,
        fees: FEES_10,
        block_time: 2,
        karst: false,
    },
];

impl OpPreset {
    fn spec(&self) -> ChainSpec {
        use OpHardfork as F;
        let time = ForkCondition::Timestamp;
        let [canyon, delta, ecotone, fjord, granite, holocene, isthmus, jovian, karst] = self.times;
        let bedrock = if self.id == OP_MAINNET.id { OP_MAINNET_BEDROCK } else { 0 };
        // Without a gap: the crate looks forks up by their position.
        let forks = OpChainHardforks::new([
            (F::Bedrock, ForkCondition::Block(bedrock)),
            (F::Regolith, time(0)),
            (F::Canyon, time(canyon)),
            (F::Ecotone, time(ecotone)),
            (F::Fjord, time(fjord)),
            (F::Granite, time(granite)),
            (F::Holocene, time(holocene)),
            (F::Isthmus, time(isthmus)),
            (F::Jovian, time(jovian)),
            (F::Karst, if self.karst { time(karst) } else { ForkCondition::Never }),
            (F::Interop, ForkCondition::Never),
        ]);
        let [elasticity, denominator, from_canyon] = self.fees;
        let fees = OpFees {
            before_canyon: BaseFeeParams::new(denominator, elasticity),
            from_canyon: BaseFeeParams::new(from_canyon, elasticity),
        };
        let lacking = (!self.karst).then(|| (karst, "after-jovian".to_owned()));
        ChainSpec {
            name: self.names.first().copied().unwrap_or_default().to_owned(),
            chain_id: self.id,
            eth: ethereum(&ChainConfig::default()),
            op: Some(OpRules { forks, fees, delta: Some(delta) }),
            blobs: schedule(&ChainConfig::default()),
            deposit_contract: None,
            lacking: lacking.into_iter().collect(),
            block_time: Some(self.block_time),
            genesis: None,
        }
    }
}

/// Seconds from slot to slot.
const ETH_BLOCK_TIME: u64 = 12;

/// An Ethereum network.
struct EthPreset {
    names: &'static [&'static str],
    id: u64,
    /// Homestead, the DAO, EIP-150, EIP-155, Byzantium, Constantinople and Petersburg, Istanbul,
    /// Berlin, London.
    blocks: [u64; 9],
    /// Shanghai, Cancun, Prague, Osaka, and the two forks of blob parameters after it.
    times: [u64; 6],
    /// Amsterdam, which this build lacks, where it has a time.
    amsterdam: Option<u64>,
    deposit_contract: Address,
}

const ETH_PRESETS: [EthPreset; 4] = [
    EthPreset {
        names: &["mainnet", "ethereum"],
        id: 1,
        blocks: [
            mainnet::MAINNET_HOMESTEAD_BLOCK,
            mainnet::MAINNET_DAO_BLOCK,
            mainnet::MAINNET_TANGERINE_BLOCK,
            mainnet::MAINNET_SPURIOUS_DRAGON_BLOCK,
            mainnet::MAINNET_BYZANTIUM_BLOCK,
            mainnet::MAINNET_CONSTANTINOPLE_BLOCK,
            mainnet::MAINNET_ISTANBUL_BLOCK,
            mainnet::MAINNET_BERLIN_BLOCK,
            mainnet::MAINNET_LONDON_BLOCK,
        ],
        times: [
            mainnet::MAINNET_SHANGHAI_TIMESTAMP,
            mainnet::MAINNET_CANCUN_TIMESTAMP,
            mainnet::MAINNET_PRAGUE_TIMESTAMP,
            mainnet::MAINNET_OSAKA_TIMESTAMP,
            mainnet::MAINNET_BPO1_TIMESTAMP,
            mainnet::MAINNET_BPO2_TIMESTAMP,
        ],
        amsterdam: None,
        deposit_contract: address!("00000000219ab540356cbb839cbe05303d7705fa"),
    },
    EthPreset {
        names: &["sepolia"],
        id: 11_155_111,
        blocks: [0; 9],
        times: [
            sepolia::SEPOLIA_SHANGHAI_TIMESTAMP,
            sepolia::SEPOLIA_CANCUN_TIMESTAMP,
            sepolia::SEPOLIA_PRAGUE_TIMESTAMP,
            sepolia::SEPOLIA_OSAKA_TIMESTAMP,
            sepolia::SEPOLIA_BPO1_TIMESTAMP,
            sepolia::SEPOLIA_BPO2_TIMESTAMP,
        ],
        amsterdam: Some(sepolia::SEPOLIA_AMSTERDAM_TIMESTAMP),
        deposit_contract: address!("7f02c3e3c98b133055b8b348b2ac625669ed295d"),
    },
    EthPreset {
        names: &["holesky"],
        id: 17_000,
        blocks: [0; 9],
        times: [
            holesky::HOLESKY_SHANGHAI_TIMESTAMP,
            holesky::HOLESKY_CANCUN_TIMESTAMP,
            holesky::HOLESKY_PRAGUE_TIMESTAMP,
            holesky::HOLESKY_OSAKA_TIMESTAMP,
            holesky::HOLESKY_BPO1_TIMESTAMP,
            holesky::HOLESKY_BPO2_TIMESTAMP,
        ],
        amsterdam: None,
        deposit_contract: address!("4242424242424242424242424242424242424242"),
    },
    EthPreset {
        names: &["hoodi"],
        id: 560_048,
        blocks: [0; 9],
        times: [
            0,
            0,
            hoodi::HOODI_PRAGUE_TIMESTAMP,
            hoodi::HOODI_OSAKA_TIMESTAMP,
            hoodi::HOODI_BPO1_TIMESTAMP,
            hoodi::HOODI_BPO2_TIMESTAMP,
        ],
        amsterdam: None,
        deposit_contract: address!("00000000219ab540356cbb839cbe05303d7705fa"),
    },
];

impl EthPreset {
    fn spec(&self) -> ChainSpec {
        let [homestead, dao, eip150, eip155, byzantium, constantinople, istanbul, berlin, london] =
            self.blocks;
        let [shanghai, cancun, prague, osaka, bpo1, bpo2] = self.times;
        let mut config = ChainConfig {
            chain_id: self.id,
            homestead_block: Some(homestead),
            // Only Ethereum's mainnet had the DAO.
            dao_fork_block: (dao > 0).then_some(dao),
            eip150_block: Some(eip150),
            eip155_block: Some(eip155),
            eip158_block: Some(eip155),
            byzantium_block: Some(byzantium),
            constantinople_block: Some(constantinople),
            petersburg_block: Some(constantinople),
            istanbul_block: Some(istanbul),
            berlin_block: Some(berlin),
            london_block: Some(london),
            shanghai_time: Some(shanghai),
            cancun_time: Some(cancun),
            prague_time: Some(prague),
            osaka_time: Some(osaka),
            bpo1_time: Some(bpo1),
            bpo2_time: Some(bpo2),
            terminal_total_difficulty: Some(U256::ZERO),
            ..ChainConfig::default()
        };
        config.blob_schedule.insert("bpo1".into(), BlobParams::bpo1());
        config.blob_schedule.insert("bpo2".into(), BlobParams::bpo2());
        ChainSpec {
            name: self.names.first().copied().unwrap_or_default().to_owned(),
            chain_id: self.id,
            eth: ethereum(&config),
            op: None,
            blobs: schedule(&config),
            deposit_contract: Some(self.deposit_contract),
            lacking: self
                .amsterdam
                .map(|time| (time, "amsterdam".to_owned()))
                .into_iter()
                .collect(),
            block_time: Some(ETH_BLOCK_TIME),
            genesis: None,
        }
    }
}

impl ChainSpec {
    /// OP Mainnet. No genesis gives its state, which begins at Bedrock.
    pub fn op_mainnet() -> Self {
        OP_MAINNET.spec()
    }

    /// OP Sepolia.
    pub fn op_sepolia() -> Self {
        OP_SEPOLIA.spec()
    }
}

/// A chain that is known by name.
#[derive(Debug, Clone)]
pub struct Preset {
    /// Its rules; the name is the one to prefer.
    pub spec: ChainSpec,
    /// Other names that are taken for it.
    pub also: &'static [&'static str],
}

/// All chains that are known by name, OP chains first.
pub fn presets() -> Vec<Preset> {
    let also = |names: &'static [&'static str]| names.get(1..).unwrap_or_default();
    let op = OP_PRESETS.iter().map(|preset| (preset.spec(), also(preset.names)));
    let eth = ETH_PRESETS.iter().map(|preset| (preset.spec(), also(preset.names)));
    op.chain(eth).map(|(spec, also)| Preset { spec, also }).collect()
}

/// Seconds from block to block of the chain of this id, if it is known by name.
pub fn block_time(chain_id: u64) -> Option<u64> {
    let op = OP_PRESETS.iter().find(|preset| preset.id == chain_id);
    let eth = ETH_PRESETS.iter().find(|preset| preset.id == chain_id);
    op.map(|preset| preset.block_time).or_else(|| eth.map(|_| ETH_BLOCK_TIME))
}

/// The chain of this name or, in decimal digits, of this id.
pub(super) fn named(name: &str) -> Option<ChainSpec> {
    let id = name.parse::<u64>().ok();
    let is = |names: &[&str], of: u64| names.contains(&name) || id == Some(of);
    let op = OP_PRESETS.iter().find(|preset| is(preset.names, preset.id)).map(OpPreset::spec);
    op.or_else(|| {
        ETH_PRESETS.iter().find(|preset| is(preset.names, preset.id)).map(EthPreset::spec)
    })
}
