//! The network file: what all nodes of a network agree on.
//!
//! It holds no secret and is the same on every node. `fragcast init` prints the member entry to
//! add, `fragcast delegate` the delegation.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::Address;
use fragcast_shredder::Dialect;
use fragcast_turbine::delegation::{DelegationError, ParseDelegationError};
use fragcast_turbine::membership::MembershipError;
use fragcast_turbine::schedule::{BLOCKS_PER_TERM, ScheduleError};
use fragcast_turbine::{
    Delegations, Member, MemberRecord, Membership, PeerIndex, Schedule, SignedDelegation,
};
use fragcast_upstream::http::{UrlError, check_url};
use serde::{Deserialize, Serialize};

use crate::config::{FileError, read_toml};
use crate::members::Bootstrap;
use crate::multiaddr::{self, AddressError, Multiaddr};

pub mod pace;

/// One member as the file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberEntry {
    /// The signed record, hex.
    pub record: String,
    /// Its stake.
    #[serde(default = "one")]
    pub weight: u64,
    /// Its gossip addresses, as multiaddrs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gossip: Vec<String>,
}

const fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_zero(n: &u8) -> bool {
    *n == 0
}

const fn blocks_per_term() -> u64 {
    BLOCKS_PER_TERM
}

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkFile {
    /// Chain id.
    pub chain_id: u64,
    /// `v0` or `v0-blob`.
    #[serde(default)]
    pub dialect: Dialect,
    /// Blocks a gateway leads at a time.
    #[serde(default = "blocks_per_term")]
    pub blocks_per_term: u64,
    /// How many of the gateways that come next may lead a block for which the scheduled one has sent no
    /// Env in time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub substitutes: u8,
    /// The least time between two blocks, if it is not that of a [chain that is known](pace): it
    /// bounds how far ahead of its head a node believes a block to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_time_ms: Option<u64>,
    /// The gateways, in order of rotation. None, where a registry has the list.
    #[serde(default)]
    pub gateways: Vec<Address>,
    /// Members to call first, `<peer id>@host:port`: beside [`members`](Self::members), or instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bootstrap: Vec<Bootstrap>,
    /// Signed delegations, hex.
    #[serde(default)]
    pub delegations: Vec<String>,
    /// JSON-RPC URLs at which gateways accept users' transactions, by the gateway's address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gateway_urls: BTreeMap<Address, String>,
    /// The members.
    #[serde(default)]
    pub members: Vec<MemberEntry>,
}

/// Why a network file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// It cannot be read, or is not TOML of the expected form.
    #[error(transparent)]
    File(#[from] FileError),
    /// A member's record is not valid.
    #[error("member {number}: {reason}")]
    Record {
        /// The member's number in the file, from 1.
        number: usize,
        /// What is wrong.
        reason: MembershipError,
    },
    /// Where a member listens for gossip.
    #[error("member {number}: {reason}")]
    Gossip {
        /// The member's number in the file, from 1.
        number: usize,
        /// What is wrong.
        reason: AddressError,
    },
    /// The members do not make a table.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// A delegation that does not parse.
    #[error("delegation {number}: {reason}")]
    DelegationForm {
        /// Its number in the file, from 1.
        number: usize,
        /// What is wrong.
        reason: ParseDelegationError,
    },
    /// A delegation that does not hold.
    #[error("delegation {number}: {reason}")]
    Delegation {
        /// Its number in the file, from 1.
        number: usize,
        /// What is wrong.
        reason: DelegationError,
    },
    /// A gateway's URL is not usable.
    #[error("gateway_urls: {gateway}: {reason}")]
    GatewayUrl {
        /// The gateway.
        gateway: Address,
        /// What is wrong.
        reason: UrlError,
    },
    /// No time is between two blocks.
    #[error("block_time_ms is 0: it is the least time between two blocks of the chain")]
    BlockTime,
    /// The gateways do not make a schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
}

/// A network file, checked.
#[derive(Debug, Clone)]
pub struct Network {
    /// Chain id.
    pub chain_id: u64,
    /// Dialect.
    pub dialect: Dialect,
    /// The least time between two blocks; `None`: neither the file nor the chain's id tells it.
    pub block_time: Option<Duration>,
    /// The schedule of gateways. Of a file that lists none, of nobody: a registry has them.
    pub schedule: Schedule,
    /// Whether the file lists gateways.
    pub has_gateways: bool,
    /// Members to call first.
    pub bootstrap: Vec<Bootstrap>,
    /// JSON-RPC URLs at which gateways accept users' transactions.
    pub gateway_urls: BTreeMap<Address, String>,
    /// Delegations, all signed by gateways of the schedule.
    pub delegations: Vec<SignedDelegation>,
    /// Delegations of others, who may register later; none without a registry.
    pub early: Vec<SignedDelegation>,
    /// The table.
    pub members: Arc<Membership>,
    /// Gossip addresses of the members.
    pub gossip: BTreeMap<PeerIndex, Vec<Multiaddr>>,
}

impl Network {
    /// Whether two differ in anything that a node goes by.
    pub fn differs_from(&self, other: &Self) -> bool {
        let delegations = |network: &Self| -> Vec<Vec<u8>> {
            let all = network.delegations.iter().chain(&network.early);
            all.map(SignedDelegation::to_bytes).collect()
        };
        self.chain_id != other.chain_id
            || self.dialect != other.dialect
            || self.block_time != other.block_time
            || self.schedule != other.schedule
            || self.gateway_urls != other.gateway_urls
            || self.bootstrap != other.bootstrap
            || self.members.hash() != other.members.hash()
            || self.gossip != other.gossip
            || delegations(self) != delegations(other)
    }
}

impl NetworkFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn load(path: &Path) -> Result<Network, NetworkError> {
        read_toml::<Self>(path)?.check()
    }

    /// Checks every signature in it.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn check(&self) -> Result<Network, NetworkError> {
        self.checked(false)
    }

    /// The same for a node that asks a registry: gateways that are not in the list may register
    /// later, and their delegations are no mistake.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn check_with_registry(&self) -> Result<Network, NetworkError> {
        self.checked(true)
    }

    fn checked(&self, may_register: bool) -> Result<Network, NetworkError> {
        let members = (1..).zip(&self.members).map(|(number, entry)| {
            let record: MemberRecord =
                entry.record.parse().map_err(|reason| NetworkError::Record { number, reason })?;
            Ok(Member::new(record, entry.weight))
        });
        let members =
            Membership::new(self.chain_id, members.collect::<Result<_, NetworkError>>()?)?;
        let gossip = self.gossip(&members)?;
        for (gateway, url) in &self.gateway_urls {
            check_url(url)
                .map_err(|reason| NetworkError::GatewayUrl { gateway: *gateway, reason })?;
        }
        if self.block_time_ms == Some(0) {
            return Err(NetworkError::BlockTime);
        }
        let told = self.block_time_ms.map(Duration::from_millis);
        let has_gateways = !self.gateways.is_empty();
        let gateways = match has_gateways || !may_register {
            true => self.gateways.clone(),
            // Nobody has the key of this address.
            false => vec![Address::ZERO],
        };
        let schedule =
            Schedule::new(gateways, self.blocks_per_term)?.with_substitutes(self.substitutes)?;
        let mut checked = Delegations::new(self.chain_id, schedule.gateways());
        let (mut delegations, mut early) = (Vec::new(), Vec::new());
        for (number, text) in (1..).zip(&self.delegations) {
            let signed: SignedDelegation =
                text.parse().map_err(|reason| NetworkError::DelegationForm { number, reason })?;
            match checked.insert(signed) {
                Ok(_) => delegations.push(signed),
                Err(DelegationError::NotAGateway(gateway)) if may_register => {
                    let mut alone = Delegations::new(self.chain_id, &[gateway]);
                    alone
                        .insert(signed)
                        .map_err(|reason| NetworkError::Delegation { number, reason })?;
                    early.push(signed);
                }
                Err(reason) => return Err(NetworkError::Delegation { number, reason }),
            }
        }
        Ok(Network {
            chain_id: self.chain_id,
            dialect: self.dialect,
            block_time: told.or_else(|| pace::block_time(self.chain_id)),
            schedule,
            has_gateways,
            bootstrap: self.bootstrap.clone(),
            gateway_urls: self.gateway_urls.clone(),
            delegations,
            early,
            members: Arc::new(members),
            gossip,
        })
    }

    fn gossip(
        &self,
        members: &Membership,
    ) -> Result<BTreeMap<PeerIndex, Vec<Multiaddr>>, NetworkError> {
        let mut all = BTreeMap::new();
        for (number, entry) in (1..).zip(&self.members) {
            let addresses = entry.gossip.iter().map(|text| multiaddr::member_address(text));
            let addresses: Vec<Multiaddr> = addresses
                .collect::<Result<_, _>>()
                .map_err(|reason| NetworkError::Gossip { number, reason })?;
            let record: MemberRecord =
                entry.record.parse().map_err(|reason| NetworkError::Record { number, reason })?;
            if let Some(index) = members.index(&record.body.peer).filter(|_| !addresses.is_empty())
            {
                all.insert(index, addresses);
            }
        }
        Ok(all)
    }
}
