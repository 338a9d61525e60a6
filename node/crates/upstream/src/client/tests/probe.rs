//! What `check-config` reports.

use super::*;
use crate::client::probe::{Proofs, probe};
use crate::client::{ClientError, ProbeReport};
use crate::testing::Fault;

async fn probed(server: &Server) -> Result<ProbeReport, ClientError> {
    probe(&client_with(server, |config| config.timeout = Duration::from_secs(10))).await
}

#[tokio::test]
async fn a_client_is_described() {
    let mut chain = TestChain::with_trie(&config());
    let blocks = blocks(&mut chain, 20, 1);
    let server = Server::up(config().chain_id, blocks);
    server.state().safe = Some(3);

    let report = probed(&server).await.unwrap();
    assert_eq!(report.chain_id, config().chain_id);
    assert_eq!(report.heads.latest.0, 20);
    assert_eq!((report.block.clone(), report.raw_blocks, report.traces), (Ok(1), true, false));
    // All there is: block 0.
    assert_eq!(report.proofs, Proofs::Back(20));
    assert_eq!(report.problem(config().chain_id, true), None);
    assert!(report.problem(1, false).unwrap().contains("chain id"));
    let text = report.to_string();
    for line in ["latest            20 0x", "safe              3 0x", "finalized         none"] {
        assert!(text.contains(line), "{text}");
    }

    for back in [0, 1, 2, 7, 13, 19] {
        server.state().proofs_back = Some(back);
        assert_eq!(probed(&server).await.unwrap().proofs, Proofs::Back(back));
    }
    server.state().fault = Some(Fault::Truncated);
    assert!(matches!(probed(&server).await, Err(ClientError::Corrupt(_))));
}

#[tokio::test]
async fn a_client_without_proofs_serves_no_state() {
    let mut chain = TestChain::new(&config());
    let blocks = blocks(&mut chain, 2, 1);
    let server = Server::up(config().chain_id, blocks);
    server.state().raw_blocks = false;
    let report = probed(&server).await.unwrap();
    assert!(matches!(report.proofs, Proofs::None(_)));
    assert_eq!(report.problem(config().chain_id, false), None);
    assert!(report.problem(config().chain_id, true).unwrap().contains("eth_getProof"));
    assert!(!report.raw_blocks);
}
