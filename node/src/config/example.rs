//! The commented example that `fragcast init` writes, made from the defaults.

use fragcast_rpc::eth::EthConfig;

use super::Config;

impl Config {
    /// The commented example.
    pub fn example(&self) -> String {
        let Self {
            p2p,
            gossip,
            registry,
            members,
            leader,
            ingest,
            execution,
            client,
            admin,
            http,
            rpc,
            calls,
            flashblocks,
            metrics,
            engine,
            log,
            ..
        } = self;
        format!(
            r#"# Configuration of a Fragcast node. Relative paths are relative to this file.

# What all nodes agree on: chain, gateways, members.
network = {network:?}
# This node's identity, an ed25519 key. Keep it secret.
identity = {identity:?}

[p2p]
# UDP address for QUIC.
listen = "{p2p_listen}"
# What this node sends at most, Mbit/s. Sending is paced to it.
uplink_mbit = {uplink}
max_connections = {max_connections}
max_connections_per_address = {per_address}
max_handshakes = {handshakes}
# Guests, nodes that are no members, that a member lets in; 0: none. What it sends to all of them
# together at most, Mbit/s; 0: a quarter of the uplink.
max_guests = {max_guests}
guests_mbps = {guests_mbps}
# Memory for messages in the making, MiB.
reassembly_mib = {reassembly}
# Ask other nodes for what is lost on the way, and answer those that ask.
repair = {repair}
# Memory for recent messages with which it answers, MiB.
repair_mib = {repair_mib}
# Memory for whole messages of recent blocks, for nodes that were away, MiB, and the most blocks that
# are kept. With 0 MiB this node neither answers them nor asks for what it missed itself.
catch_up_mib = {catch_up_mib}
catch_up_blocks = {catch_up_blocks}
# What this node sends to all of them together at most, Mbit/s: behind everything else, and no more
# than a quarter of the uplink. One of them gets half.
catch_up_mbit = {catch_up_mbit}

[gossip]
# libp2p gossip on based-op's topics: the fallback, and the door to nodes that know nothing else.
# off: none of it. standby: connected, in a mesh only while the overlay fails. always: both ways.
policy = "{gossip_policy}"
# auto: the overlay, and gossip where that fails. turbine, gossip: one of them alone.
mode = "{gossip_mode}"
# TCP address, as a multiaddr. Empty: connections are only made.
listen = "{gossip_listen}"
# Peers beside the members, such as "/ip4/192.0.2.1/tcp/9222/p2p/16Uiu2…".
peers = {gossip_peers:?}
max_connections = {gossip_connections}
max_connections_per_address = {gossip_per_address}
# Memory for recent messages, for those who listen or ask, MiB.
memory_mib = {gossip_mib}

[registry]
# Where the list of gateways comes from: a gateways.json with rows [url, address, jwt] or without
# jwt, or the URL of a registry or portal, such as "http://127.0.0.1:8081"; several are asked, and
# most of them count. JWTs are neither kept nor logged. Empty: the network file has the list.
sources = {registry_sources:?}
# How often each is asked, and how long a request may take, milliseconds.
poll_ms = {registry_poll}
timeout_ms = {registry_timeout}
# While no source answers the last list holds. When it is older than this, seconds, /readyz says that
# the node is not ready, three times poll_ms at least; 0: it stays ready, and says how old the list is.
max_age_s = {registry_age}
# The schedule in force, for the next start.
saved = {registry_saved:?}

[members]
# Whether this node follows members who come and go, in tables that leaders name. auto: if the
# network file has bootstrap addresses; off: it stays with the members of the network file.
live = "{members_live}"
# UDP addresses under which others reach this node, such as "203.0.113.1:9300", four at most, all
# public or all private. It is called at those at which a leader has reached it.
# Empty: those of its record in the network file; without any it follows and is no member.
advertise = {members_advertise:?}
# Members of a table, 4096 at most.
max = {members_max}
# How often this node renews its record, and after how long without that others are taken as gone.
renew_s = {members_renew}
life_s = {members_life}
# How often it asks another node for records, milliseconds; nobody answers sooner than after 500.
pull_ms = {members_pull}
# Weights of members by peer id: a JSON file or a URL of one, {{"<peer id>": weight, …}}. Empty: those
# of the network file count, and without members there those of the tables.
weights = {members_weights:?}
# Or a contract, which is asked through [client] at the finalized block: its address, and the selector
# of a method without arguments that returns (bytes32[] peers, uint256[] weights).
contract = {members_contract:?}
selector = {members_selector:?}
# How often weights are read.
poll_s = {members_poll}

[leader]
# The ed25519 key that a gateway delegated to. Without this file the node only follows.
key = {key:?}
# Which attempts were opened. Never copy or restore it without the key, nor the key without it.
journal = {journal:?}
# auto, direct, turbine, rotor or regional (the regional tree wherever a plan was made, also where
# sending directly would be faster); the fanout is turbine's.
route = "{route}"
# Over the regional tree, lean sends at most 2.3 bytes for each byte and node, fast at most 3.
profile = "{profile}"
fanout = {fanout}
# Loss per hop that the code rate is made for.
loss_per_hop = {loss}
# How long this node's own subscribers wait for the next leader to have what they are to see,
# milliseconds, at most 20. 0: they do not wait. What is sent to peers never waits.
hand_over_ms = {hand_over}
# Where the network file has `substitutes`: how long this node, as a substitute, waits for an Env of
# each gateway that comes before it, milliseconds.
substitute_after_ms = {substitute_after}
# When nobody is connected: refuse the gateway's messages (-32005), or tell with every answer how
# many peers a message was handed to.
unreached = "{unreached}"
# A signer that has the gateway's key, such as "http://127.0.0.1:9000": it is asked to sign the
# delegation to this node, so that key need not be on this machine. Empty: there is none.
signer = {signer:?}
# web3signer, clef or eth_sign; and how long an answer may take, milliseconds.
signer_api = "{signer_api}"
signer_timeout_ms = {signer_timeout}
# The gateway that delegates, an address.
gateway = {gateway:?}
# Blocks of a delegation, renewed in its last quarter; 0: all blocks.
delegation_blocks = {delegation_blocks}
# The delegation, for the next start. Without this file it is asked for anew.
delegation = {delegation:?}

[ingest]
# Where the gateway posts based_env, based_newFrag and based_sealFrag. Keep it on loopback.
listen = "{ingest_listen}"
max_body_mib = {max_body}

[execution]
# A chain's name or id (`fragcast chains` prints them), dev, or a geth genesis JSON with fork times.
# Empty: the node carries messages and executes nothing.
chain = "{chain}"
# genesis: a database that starts from the chain's genesis
# client: the state is read from the execution client, with proofs
source = "{source}"
db = {db:?}
# Memory for the database's pages, MiB.
cache_mib = {db_cache}
# Blocks that can be taken back, and of which the state can be read.
reorg_depth = {reorg_depth}
# Messages that may wait for the executor.
queue = {execution_queue}
# How long a block may be executed before it is left unverified, milliseconds; 0: four times the
# time between it and its parent.
time_limit_ms = {execution_limit}

[client]
# Ethereum JSON-RPC of an execution client, such as "http://127.0.0.1:8545", whose canonical chain
# is followed and which answers for older blocks. Empty: there is none.
url = "{client_url}"
# How often it is asked for its head, and how long a request may take, milliseconds.
poll_ms = {poll_ms}
timeout_ms = {client_timeout}
# Memory for trie nodes read from it, MiB.
cache_mib = {client_cache}

[admin]
# The operator's JSON-RPC. Keep it on loopback.
listen = "{admin_listen}"
# File with a token that requests must show (Authorization: Bearer …), 16 characters or more, which
# only its owner may read. Empty: none is needed.
token = {admin_token:?}

[http]
# Public JSON-RPC over HTTP and WebSocket: fragcast_* and, with a chain to execute, eth_*.
listen = "{http_listen}"
# A page in the browser that shows the node live, at /.
page = {page}
# Messages and events that wait for a slow subscriber before it is dropped.
subscriber_queue = {queue}
# Names of this host that requests may ask for, on every TCP port, against DNS rebinding. localhost
# and IP addresses always may; "*": all.
vhosts = {vhosts:?}
# Origins of web pages that may read answers and open WebSockets, such as "https://app.example" or
# "https://*.app.example"; "*": all. Pages on this machine may open WebSockets in any case.
cors = {cors:?}

[rpc]
{rpc}
[calls]
# Threads that eth_call and its kin run on; 0: one less than there are cores.
threads = {call_threads}
# Calls that may wait for a thread.
queue = {call_queue}
# Gas that a call may have; 0: as much as a block.
gas_cap = {gas_cap}
# Time that a call may run, milliseconds.
time_limit_ms = {time_limit}
# EVM memory of a call, MiB.
memory_mib = {call_memory}
# What the traces of one request (debug_trace…, trace_…) may keep, MiB, about what they are as JSON.
trace_mib = {call_trace}
# How long connecting to a gateway may take, and again its answer, milliseconds.
gateway_timeout_ms = {gateway_timeout}
# How long eth_sendRawTransactionSync waits if it does not say, and at most, milliseconds.
sync_timeout_ms = {sync_timeout}
max_sync_timeout_ms = {max_sync_timeout}

[flashblocks]
# A WebSocket for op-reth (--flashblocks-url), Base's node and other consumers of Flashblocks,
# such as "127.0.0.1:9350". Empty: there is none.
listen = "{flashblocks_listen}"
# Subscribers in all, and from one IP address.
max_subscribers = {flashblocks_most}
max_subscribers_per_address = {flashblocks_per_address}
# Memory for flashblocks that slow subscribers have not taken yet, MiB.
buffer_mib = {flashblocks_buffer}
# A subscriber that does not take a flashblock within this is dropped, milliseconds.
slow_subscriber_ms = {flashblocks_slow}
# A subscriber of which nothing is heard for this long, not even answers to pings, is dropped, seconds.
idle_s = {flashblocks_idle}

[metrics]
# /metrics for Prometheus, /healthz, /readyz.
listen = "{metrics_listen}"

[engine]
# Engine API of an execution client that takes engine_envV0, engine_newFragV0 and
# engine_sealFragV0, such as "http://127.0.0.1:8551". Empty: nothing is forwarded.
url = "{url}"
# File with the shared secret, 64 hex digits.
jwt_secret = {jwt:?}
# How long a request may take, milliseconds; 0 means two seconds.
timeout_ms = {timeout}

[log]
# text or json
format = "{format}"
# As in RUST_LOG.
filter = "{filter}"
"#,
            network = self.network,
            identity = self.identity,
            p2p_listen = p2p.listen,
            uplink = p2p.uplink_mbit,
            max_connections = p2p.max_connections,
            per_address = p2p.max_connections_per_address,
            handshakes = p2p.max_handshakes,
            max_guests = p2p.max_guests,
            guests_mbps = p2p.guests_mbps,
            reassembly = p2p.reassembly_mib,
            repair = p2p.repair,
            repair_mib = p2p.repair_mib,
            catch_up_mib = p2p.catch_up_mib,
            catch_up_blocks = p2p.catch_up_blocks,
            catch_up_mbit = p2p.catch_up_mbit,
            gossip_policy = gossip.policy,
            gossip_mode = gossip.mode,
            gossip_listen = gossip.listen,
            gossip_peers = gossip.peers,
            gossip_connections = gossip.max_connections,
            gossip_per_address = gossip.max_connections_per_address,
            gossip_mib = gossip.memory_mib,
            registry_sources = registry.sources,
            registry_poll = registry.poll_ms,
            registry_timeout = registry.timeout_ms,
            registry_age = registry.max_age_s,
            registry_saved = registry.saved,
            members_live = members.live,
            members_advertise =
                members.advertise.iter().map(ToString::to_string).collect::<Vec<_>>(),
            members_max = members.max,
            members_renew = members.renew_s,
            members_life = members.life_s,
            members_pull = members.pull_ms,
            members_weights = members.weights,
            members_contract = members.contract,
            members_selector = members.selector,
            members_poll = members.poll_s,
            key = leader.key,
            journal = leader.journal,
            route = leader.route,
            profile = leader.profile,
            fanout = leader.fanout,
            loss = leader.loss_per_hop,
            hand_over = leader.hand_over_ms,
            substitute_after = leader.substitute_after_ms,
            unreached = <&str>::from(leader.unreached),
            signer = leader.signer,
            signer_api = leader.signer_api,
            signer_timeout = leader.signer_timeout_ms,
            gateway = leader.gateway,
            delegation_blocks = leader.delegation_blocks,
            delegation = leader.delegation,
            ingest_listen = ingest.listen,
            max_body = ingest.max_body_mib,
            chain = execution.chain,
            source = execution.source,
            db = execution.db,
            db_cache = execution.cache_mib,
            reorg_depth = execution.reorg_depth,
            execution_queue = execution.queue,
            execution_limit = execution.time_limit_ms,
            client_url = client.url,
            poll_ms = client.poll_ms,
            client_timeout = client.timeout_ms,
            client_cache = client.cache_mib,
            admin_listen = admin.listen,
            admin_token = admin.token,
            http_listen = http.listen,
            page = http.page,
            queue = http.subscriber_queue,
            vhosts = http.vhosts,
            cors = http.cors,
            rpc = rpc_lines(rpc),
            call_threads = calls.threads,
            call_queue = calls.queue,
            gas_cap = calls.gas_cap,
            time_limit = calls.time_limit_ms,
            call_memory = calls.memory_mib,
            call_trace = calls.trace_mib,
            gateway_timeout = calls.gateway_timeout_ms,
            sync_timeout = calls.sync_timeout_ms,
            max_sync_timeout = calls.max_sync_timeout_ms,
            flashblocks_listen = flashblocks.listen,
            flashblocks_most = flashblocks.max_subscribers,
            flashblocks_per_address = flashblocks.max_subscribers_per_address,
            flashblocks_buffer = flashblocks.buffer_mib,
            flashblocks_slow = flashblocks.slow_subscriber_ms,
            flashblocks_idle = flashblocks.idle_s,
            metrics_listen = metrics.listen,
            url = engine.url,
            jwt = engine.jwt_secret,
            timeout = engine.timeout_ms,
            format = log.format,
            filter = log.filter,
        )
    }
}

/// The settings of `[rpc]` and their comments.
const RPC: [(&str, &str); 25] = [
    (
        "preconf_as_latest",
        "The path / shows the preconfirmed view, as /preconf always does: state at `latest` is that \
         of the newest executed frag.",
    ),
    (
        "pending_max_age_ms",
        "`pending` reads as `latest` when its newest frag is older than this; 0: never.",
    ),
    (
        "safe_behind",
        "Without an execution client: blocks that `safe` is behind `latest`. Not set: not known.",
    ),
    ("finalized_behind", "The same for `finalized`."),
    (
        "proxied",
        "Methods that are passed to the execution client; \"debug_*\" and \"trace_*\" stand for the \
         usual ones.",
    ),
    ("max_batch", "Calls in a batch."),
    ("max_request", "Bytes of a request."),
    ("max_response", "Bytes of an answer; a batch is not carried on with beyond it."),
    ("max_connections", "Connections at a time."),
    (
        "max_connections_per_address",
        "Those from one IP address; 0: an eighth of them, and loopback is not counted.",
    ),
    ("max_subscriptions_per_connection", "Subscriptions of a connection."),
    ("max_subscriptions", "Subscriptions in all."),
    ("max_concurrent", "Requests of a WebSocket that are answered at a time."),
    ("max_unsent", "Bytes that wait for a WebSocket to take them; then nothing more is read."),
    ("message_buffer", "The same in messages."),
    (
        "max_unsent_total",
        "Bytes of requests and answers in all; then those are closed that are waited for longest.",
    ),
    ("slow_subscriber_ms", "A connection that is waited for so long is closed."),
    ("max_heavy_calls", "Calls at a time that go through many blocks."),
    ("max_log_blocks", "Blocks that eth_getLogs goes through."),
    ("max_logs", "Logs that eth_getLogs gives of more than one block."),
    ("max_log_time_ms", "How long eth_getLogs goes through blocks."),
    ("max_filter_values", "Addresses in a filter of logs, and topics at each of its positions."),
    ("max_filters", "Filters that are polled, in all."),
    ("filter_timeout_s", "A filter that is not polled for so long is forgotten."),
    ("max_fee_history", "Blocks that eth_feeHistory goes through."),
];

/// The lines of `[rpc]`, each with its comment.
fn rpc_lines(rpc: &EthConfig) -> String {
    let table = toml::Table::try_from(rpc).unwrap_or_default();
    let line = |(key, meaning): &(&str, &str)| match table.get(*key) {
        Some(value) => format!("# {meaning}\n{key} = {value}\n"),
        None => format!("# {meaning}\n# {key} = 32\n"),
    };
    RPC.iter().map(line).collect()
}
