//! What op-revm 20 and alloy-op-evm 0.32 lack of Karst.
//!
//! Two things, which every EVM of an OP chain needs that is made anywhere in this project: the
//! pairing on bn254 takes at most 57,600 bytes of input, and a deposit is not bound by the gas of
//! one transaction (EIP-7825). The crates keep Jovian's 81,984 bytes, and they refuse no deposit
//! above the cap but give its first frame no more than the cap.

use std::sync::OnceLock;

use alloy_evm::precompiles::PrecompilesMap;
use op_revm::{OpSpecId, precompiles};
use revm::precompile::{
    EthPrecompileResult, Precompile, PrecompileHalt, PrecompileId, PrecompileResult, Precompiles,
    bn254, call_eth_precompile,
};

/// The longest input of the pairing on bn254 from Karst on: 300 pairs.
const PAIRING_INPUT: usize = 57_600;

fn pairing_of(input: &[u8], gas_limit: u64) -> EthPrecompileResult {
    if input.len() > PAIRING_INPUT {
        return Err(PrecompileHalt::Bn254PairLength);
    }
    let (point, base) = (bn254::pair::ISTANBUL_PAIR_PER_POINT, bn254::pair::ISTANBUL_PAIR_BASE);
    bn254::run_pair(input, point, base, gas_limit)
}

fn pairing(input: &[u8], gas_limit: u64, reservoir: u64) -> PrecompileResult {
    Ok(call_eth_precompile(pairing_of, input, gas_limit, reservoir))
}

fn karst() -> &'static Precompiles {
    static KARST: OnceLock<Precompiles> = OnceLock::new();
    KARST.get_or_init(|| {
        let mut all = precompiles::karst().clone();
        let id = PrecompileId::Bn254Pairing;
        all.extend([Precompile::new(id, bn254::pair::ADDRESS, pairing)]);
        all
    })
}

/// Puts the precompiles of a new EVM right; to be called before any of them is moved.
pub fn mend_precompiles(precompiles: &mut PrecompilesMap, spec: OpSpecId) {
    if spec.is_enabled_in(OpSpecId::KARST) {
        *precompiles = PrecompilesMap::from_static(karst());
    }
}

/// `tx_gas_limit_cap` of the EVM's configuration for the next transaction: none for a deposit,
/// which L1 has included already; for others what the fork says.
pub const fn gas_cap(deposit: bool) -> Option<u64> {
    if deposit { Some(u64::MAX) } else { None }
}
