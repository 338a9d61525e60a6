//! Processes whose network files are of different versions, side by side: an old file and a new one.
//!
//! The three ways in which honest relays were once barred are each a test here, over real processes:
//! another list of gateways, data under a delegation that is not known yet, and two delegations with
//! one sequence.

use ed25519_dalek::SigningKey;
use fragcast::gateway::keys;
use fragcast::network::NetworkFile;
use fragcast_shredder::{BlockBuilder, GatewayKey, Message};
use fragcast_turbine::{Delegation, PeerId};
use serde_json::Value;

use crate::common::post_signed;
use crate::processes::{Network, Process};

/// A delegation of `gateway` to a process' leader key, as text.
pub(crate) fn delegate(
    chain_id: u64,
    gateway: &GatewayKey,
    to: &Process,
    first: u64,
    sequence: u64,
) -> String {
    let key = |file: &str| -> SigningKey { keys::read_ed25519(&to.dir.join(file)).unwrap() };
    let delegation = Delegation {
        chain_id,
        first,
        last: u64::MAX,
        sequence,
        peer: PeerId(key("identity.key").verifying_key().to_bytes()),
        key: key("leader.key").verifying_key().to_bytes(),
    };
    delegation.sign(gateway).to_string()
}

/// Changes a process' network file.
pub(crate) fn change(process: &Process, change: impl FnOnce(&mut NetworkFile)) {
    let path = process.dir.join("network.toml");
    let mut file: NetworkFile = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut file);
    std::fs::write(&path, toml::to_string(&file).unwrap()).unwrap();
}

/// Posts a block to a process; the last answer that is not `"OK"`, if there is one.
async fn post(to: &Process, gateway: &GatewayKey, number: u64) -> Option<Value> {
    let mut block = BlockBuilder::new(number);
    let messages: [Message; 3] =
        [block.env().into(), block.frag([vec![7; 20_000]]).into(), block.seal().into()];
    for message in messages {
        let answer = post_signed(&to.ingest_url(), gateway, message).await;
        if answer["result"] != "OK" {
            return Some(answer);
        }
    }
    None
}

async fn assert_peace(net: &Network) {
    net.all_connected().await;
    for process in &net.processes {
        process.assert_peace().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_an_old_file_and_of_a_new_one_with_another_gateway_bar_nobody() {
    let mut net = Network::new(5);
    let first = net.take_gateway_key();
    let second = GatewayKey::from_bytes([0x22; 32]).unwrap();
    let ours = delegate(5, &second, &net.processes[1], 0, 1);
    for (number, process) in net.processes.iter().enumerate() {
        change(process, |file| {
            file.blocks_per_term = 4;
            // The last two have the file of before.
            if number < 3 {
                file.gateways.push(second.address());
                file.delegations.push(ours.clone());
            }
        });
    }
    net.processes.iter_mut().for_each(Process::start);
    net.all_connected().await;
    for number in 1..=20 {
        let is_second = (number / 4) % 2 == 1;
        let (leader, gateway) = if is_second { (1, &second) } else { (0, &first) };
        assert_eq!(post(&net.processes[leader], gateway, number).await, None);
        for (of, process) in net.processes.iter().enumerate() {
            // What the new gateway sends is nothing to nodes of the old file, and no offence of those
            // that hand it on; the first gateway's blocks they take as ever.
            if of < 3 || !is_second {
                process.until("sealed", number).await;
            }
        }
    }
    assert_peace(&net).await;
    // The new gateway's shreds were handed on to it.
    net.processes[3].until_counted("fragcast_datagrams_total{outcome=\"unproven\"} ").await;
    // With the new file they are as the others.
    for process in &mut net.processes[3..] {
        change(process, |file| {
            file.gateways.push(second.address());
            file.delegations.push(ours.clone());
        });
        process.kill();
        process.start();
    }
    net.all_connected().await;
    for number in 21..=23 {
        assert_eq!(post(&net.processes[1], &second, number).await, None);
        for process in &net.processes {
            process.until("sealed", number).await;
        }
    }
    assert_peace(&net).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delegation_that_only_a_new_file_has_travels_ahead_of_its_data_and_bars_nobody() {
    let mut net = Network::new(4);
    let gateway = net.take_gateway_key();
    net.processes.iter_mut().for_each(Process::start);
    net.all_connected().await;
    for number in 1..=2 {
        assert_eq!(post(&net.processes[0], &gateway, number).await, None);
    }
    // The second node has another file from now on: its key leads from block 5 on.
    let rotated = delegate(5, &gateway, &net.processes[1], 5, 2);
    change(&net.processes[1], |file| file.delegations.push(rotated));
    net.processes[1].kill();
    net.processes[1].start();
    net.all_connected().await;
    for number in 3..=12 {
        let leader = usize::from(number >= 5);
        assert_eq!(post(&net.processes[leader], &gateway, number).await, None);
        for process in &net.processes {
            process.until("sealed", number).await;
        }
    }
    let refused = post(&net.processes[0], &gateway, 13).await.unwrap();
    assert_eq!(refused["error"]["code"], -32003, "{refused}");
    assert_peace(&net).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_files_with_two_delegations_of_one_sequence_end_in_one_leader_and_bar_nobody() {
    let mut net = Network::new(4);
    let gateway = net.take_gateway_key();
    for (number, process) in net.processes.iter().enumerate() {
        let theirs = delegate(5, &gateway, &net.processes[number % 2], 0, 1);
        change(process, |file| file.delegations = vec![theirs]);
    }
    net.processes.iter_mut().for_each(Process::start);
    net.all_connected().await;
    for process in &net.processes {
        process.until_metric("fragcast_events_total{kind=\"delegated_twice\"} ", 1.0).await;
    }
    // All agree on one of the two; the other's node says that it does not lead.
    let refused =
        [post(&net.processes[0], &gateway, 1).await, post(&net.processes[1], &gateway, 1).await];
    let leaders: Vec<usize> = (0..2).filter(|number| refused[*number].is_none()).collect();
    assert_eq!(leaders.len(), 1, "{refused:?}");
    assert_eq!(refused[1 - leaders[0]].as_ref().unwrap()["error"]["code"], -32003);
    for number in 1..=6 {
        if number > 1 {
            assert_eq!(post(&net.processes[leaders[0]], &gateway, number).await, None);
        }
        for process in &net.processes {
            process.until("sealed", number).await;
        }
    }
    assert_peace(&net).await;
}
