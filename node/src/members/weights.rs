//! Weights of members: from a JSON file, a URL, or a contract.
//!
//! A source is read again and again. While it fails, what it gave last holds, and how old that is is
//! told. An answer is bounded, and one that is not understood changes nothing.
//!
//! A contract is asked through the execution client, by one `eth_call` at the block that the client
//! calls finalized: a reorganisation must not make nodes differ. Weights are `uint256`; if their sum
//! exceeds 2^63, all are shifted right alike until it does not, and none becomes zero that was not.
//! So a stake in wei is a weight, and every node that reads the same block shifts alike.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alloy_primitives::{Address, U256, hex};
use fragcast_turbine::PeerId;
use fragcast_turbine::net::Handle;
use fragcast_turbine::tables::Weights;
use fragcast_upstream::http::{HttpClient, HttpError, get_json, shown};
use fragcast_upstream::jsonrpc::{Reply, Request};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::serve::Reader;

/// Bytes of a file or an answer, at most: 65,536 members.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Members that have a weight, at most.
const MAX_WEIGHTS: usize = 65_536;
/// The longest pause while a source fails.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// Why weights could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The server does not answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The server answers something else.
    #[error("answered HTTP {0}")]
    Status(u16),
    /// There is too much of it.
    #[error("has more than {MAX_BYTES} bytes, or {MAX_WEIGHTS} weights")]
    TooLong,
    /// What is there is not what it should be.
    #[error(
        "is no JSON of the form {{\"<peer id>\": weight, …}}: see line {line}, column {column}"
    )]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// The client's error.
    #[error("the execution client answers error {0}")]
    Rpc(i64),
    /// What the contract returns.
    #[error("the contract does not return (bytes32[] peers, uint256[] weights)")]
    Abi,
}

impl From<serde_json::Error> for WeightsError {
    /// Without the parser's text, which may quote what it found.
    fn from(error: serde_json::Error) -> Self {
        Self::Json { line: error.line(), column: error.column() }
    }
}

/// Where weights come from.
#[derive(Clone, PartialEq, Eq)]
pub enum WeightsSource {
    /// A JSON file.
    File(PathBuf),
    /// The URL of one.
    Url(String),
    /// A contract, by way of an execution client.
    Contract {
        /// The client's JSON-RPC.
        client: String,
        /// The contract.
        address: Address,
        /// The method, which has no arguments.
        selector: [u8; 4],
    },
}

impl fmt::Debug for WeightsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WeightsSource").field(&self.name()).finish()
    }
}

/// Weights, and the block at which they were read; 0: at none.
pub type Read = (Weights, u64);

#[derive(Deserialize)]
struct Header {
    number: alloy_primitives::U64,
}

impl WeightsSource {
    /// Its name in the log and the operator's status.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Url(url) => shown(url),
            Self::Contract { address, .. } => format!("contract {address}"),
        }
    }

    /// Its name where everybody may read it.
    pub fn public_name(&self) -> String {
        match self {
            Self::File(_) => "file".to_owned(),
            other => other.name(),
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`WeightsError`].
    pub async fn read(&self, timeout: Duration) -> Result<Read, WeightsError> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
                let bytes = read.unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))?;
                Ok((parse(&bytes)?, 0))
            }
            Self::Url(url) => {
                let (status, bytes) = get_json(url, timeout, MAX_BYTES).await?;
                match status {
                    200 => Ok((parse(&bytes)?, 0)),
                    other => Err(WeightsError::Status(other)),
                }
            }
            Self::Contract { client, address, selector } => {
                ask_contract(client, *address, *selector, timeout).await
            }
        }
    }
}

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads `{ "<peer id>": weight, … }`.
fn parse(bytes: &[u8]) -> Result<Weights, WeightsError> {
    if bytes.len() > MAX_BYTES {
        return Err(WeightsError::TooLong);
    }
    let weights: Weights = serde_json::from_slice(bytes)?;
    match weights.len() <= MAX_WEIGHTS {
        true => Ok(weights),
        false => Err(WeightsError::TooLong),
    }
}

async fn call<T: serde::de::DeserializeOwned>(
    http: HttpClient,
    url: &str,
    method: &str,
    params: Value,
) -> Result<T, WeightsError> {
    let body = Request::new(method, params).to_vec()?;
    let (status, answer) = http.post_json(url, None, body).await?;
    if status != 200 {
        return Err(WeightsError::Status(status));
    }
    let reply: Reply<T> = serde_json::from_slice(&answer)?;
    let result = reply.into_result().map_err(|error| WeightsError::Rpc(error.code))?;
    result.ok_or(WeightsError::Abi)
}

async fn ask_contract(
    url: &str,
    address: Address,
    selector: [u8; 4],
    timeout: Duration,
) -> Result<Read, WeightsError> {
    // Two digits a byte.
    let http = HttpClient { timeout, max_response: 2 * MAX_BYTES };
    let header: Header =
        call(http, url, "eth_getBlockByNumber", json!(["finalized", false])).await?;
    let block = header.number.to::<u64>();
    let asked = json!({ "to": address, "data": hex::encode_prefixed(selector) });
    let params = json!([asked, format!("0x{block:x}")]);
    let answer: String = call(http, url, "eth_call", params).await?;
    let bytes = hex::decode(answer).map_err(|_| WeightsError::Abi)?;
    Ok((decode_abi(&bytes)?, block))
}

/// Decodes `(bytes32[] peers, uint256[] weights)`.
fn decode_abi(bytes: &[u8]) -> Result<Weights, WeightsError> {
    let word = |at: usize| -> Result<[u8; 32], WeightsError> {
        let end = at.checked_add(32).ok_or(WeightsError::Abi)?;
        let word = bytes.get(at..end).ok_or(WeightsError::Abi)?;
        word.try_into().map_err(|_| WeightsError::Abi)
    };
    let number = |at: usize| -> Result<usize, WeightsError> {
        U256::from_be_bytes(word(at)?).try_into().map_err(|_| WeightsError::Abi)
    };
    let list = |head: usize| -> Result<(usize, usize), WeightsError> {
        let at = number(head)?;
        let len = number(at)?;
        let first = at.checked_add(32).ok_or(WeightsError::Abi)?;
        match len <= MAX_WEIGHTS
            && len
                .checked_mul(32)
                .and_then(|n| n.checked_add(first))
                .is_some_and(|end| end <= bytes.len())
        {
            true => Ok((first, len)),
            false => Err(WeightsError::Abi),
        }
    };
    let ((peers, count), (weights, other)) = (list(0)?, list(32)?);
    if count != other {
        return Err(WeightsError::Abi);
    }
    let mut all: Vec<(PeerId, U256)> = Vec::with_capacity(count);
    for n in 0..count {
        all.push((PeerId(word(peers + 32 * n)?), U256::from_be_bytes(word(weights + 32 * n)?)));
    }
    Ok(scale(&all))
}

/// Shifts weights so that their sum is below 2^63; none that was positive becomes zero.
fn scale(all: &[(PeerId, U256)]) -> Weights {
    // A sum that is too large for a word is too large for 63 bits as well.
    let sum = |shift: usize| {
        all.iter().fold(U256::ZERO, |sum, (_, weight)| sum.saturating_add(*weight >> shift))
    };
    let shift = (0..256).find(|shift| sum(*shift) < U256::from(1u64 << 63)).unwrap_or(255);
    let one = |weight: &U256| match weight.is_zero() {
        true => 0,
        false => (*weight >> shift).saturating_to::<u64>().max(1),
    };
    let mut weights = Weights::new();
    for (peer, weight) in all {
        let known = weights.entry(*peer).or_insert(0u64);
        *known = known.saturating_add(one(weight));
    }
    weights
}

/// What is known of a source, for the operator.
#[derive(Debug, Default)]
pub struct WeightsStatus {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    name: String,
    public_name: String,
    read_at: Option<Instant>,
    count: usize,
    block: u64,
    error: Option<String>,
}

impl WeightsStatus {
    fn update(&self, write: impl FnOnce(&mut State)) {
        write(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// As JSON.
    pub fn json(&self, reader: Reader) -> Value {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        json!({
            "source": match reader {
                Reader::Operator => &state.name,
                Reader::Anybody => &state.public_name,
            },
            "weights": state.count,
            "block": (state.block > 0).then_some(state.block),
            "ageSeconds": state.read_at.map(|at| at.elapsed().as_secs()),
            "error": state.error,
        })
    }
}

/// Reads a source again and again, and tells the overlay. Runs until the overlay ends, or it is
/// aborted.
pub async fn follow(
    source: WeightsSource,
    poll: Duration,
    timeout: Duration,
    status: Arc<WeightsStatus>,
    net: Handle,
) {
    status.update(|state| {
        (state.name, state.public_name) = (source.name(), source.public_name());
    });
    let (mut told, mut failures) = (None, 0u32);
    loop {
        match source.read(timeout).await {
            Ok((weights, block)) => {
                failures = 0;
                status.update(|state| {
                    (state.read_at, state.error) = (Some(Instant::now()), None);
                    (state.count, state.block) = (weights.len(), block);
                });
                if told.as_ref() != Some(&weights) {
                    tracing::info!(weights = weights.len(), block, "weights of members");
                    told = Some(weights.clone());
                    net.set_weights(Arc::new(weights), block).await;
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                let text = error.to_string();
                if failures == 1 {
                    let source = source.name();
                    tracing::warn!(source, "weights cannot be read, those of before hold: {text}");
                }
                status.update(|state| state.error = Some(text));
            }
        }
        let pause = poll.saturating_mul(2u32.saturating_pow(failures.min(8)));
        tokio::time::sleep(pause.min(MAX_PAUSE).max(poll)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(n: u64) -> [u8; 32] {
        U256::from(n).to_be_bytes()
    }

    fn abi(peers: &[[u8; 32]], weights: &[U256]) -> Vec<u8> {
        let mut words = vec![word(64), word(64 + 32 * (1 + peers.len() as u64))];
        words.push(word(peers.len() as u64));
        words.extend(peers);
        words.push(word(weights.len() as u64));
        words.extend(weights.iter().map(|weight| weight.to_be_bytes::<32>()));
        words.concat()
    }

    #[test]
    fn a_file_has_weights_by_peer() {
        let peer = "07".repeat(32);
        let weights = parse(format!("{{\"{peer}\": 5}}").as_bytes()).unwrap();
        assert_eq!(weights, Weights::from([(PeerId([7; 32]), 5)]));
        for bad in ["", "[]", "{\"07\": 5}", &format!("{{\"{peer}\": -5}}"), "{}x"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(matches!(parse(&vec![b' '; MAX_BYTES + 1]), Err(WeightsError::TooLong)));
        let quoted = parse(format!("{{\"{peer}\": \"SECRET\"}}").as_bytes()).unwrap_err();
        assert!(!format!("{quoted} {quoted:?}").contains("SECRET"), "{quoted}");
    }

    #[test]
    fn no_path_of_a_source_is_told() {
        let url = WeightsSource::Url("http://h:1/SECRET?jwt=SECRET".into());
        assert_eq!(url.name(), "http://h:1/…");
        let file = WeightsSource::File("/etc/PATH/weights.json".into());
        assert_eq!(
            (file.name(), file.public_name()),
            ("/etc/PATH/weights.json".into(), "file".into())
        );
        let client = "http://h:1/SECRET".to_owned();
        let contract =
            WeightsSource::Contract { client, address: Address::repeat_byte(1), selector: [0; 4] };
        assert!(!format!("{url:?} {contract:?}").contains("SECRET"));
    }

    #[test]
    fn a_contract_returns_peers_and_weights() {
        let peers = [[1; 32], [2; 32], [3; 32]];
        let bytes = abi(&peers, &[U256::from(5), U256::ZERO, U256::from(7)]);
        let weights = decode_abi(&bytes).unwrap();
        let expected = [(PeerId([1; 32]), 5), (PeerId([2; 32]), 0), (PeerId([3; 32]), 7)];
        assert_eq!(weights, Weights::from(expected));
        for end in 0..bytes.len() {
            assert!(decode_abi(&bytes[..end]).is_err(), "{end}");
        }
        assert!(decode_abi(&abi(&peers, &[U256::from(5)])).is_err(), "two lengths");
        for at in [0, 32, 64] {
            let mut claims = bytes.clone();
            claims[at..at + 32].fill(0xff);
            assert!(decode_abi(&claims).is_err(), "a length that is not there");
        }
        assert_eq!(decode_abi(&abi(&[], &[])).unwrap(), Weights::new());
    }

    #[test]
    fn stakes_in_wei_are_scaled_alike_and_none_vanishes() {
        let ether = U256::from(10).pow(U256::from(18));
        let all = [
            (PeerId([1; 32]), ether * U256::from(32)),
            (PeerId([2; 32]), ether),
            (PeerId([3; 32]), U256::from(1)),
        ];
        let weights = scale(&all);
        let of = |n: u8| weights[&PeerId([n; 32])];
        assert!(of(1) / of(2) == 32 || of(1) / of(2) == 31, "{weights:?}");
        assert_eq!(of(3), 1);
        let most = [(PeerId([1; 32]), U256::MAX), (PeerId([2; 32]), U256::MAX)];
        let sum: u128 = scale(&most).values().map(|weight| u128::from(*weight)).sum();
        assert!(sum < 1 << 63);
    }
}
