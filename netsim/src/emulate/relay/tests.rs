//! Tests with plain sockets instead of nodes. Times have lower bounds only, since the lateness of a
//! packet depends on the machine.

use super::*;
use crate::link::Loss;
use crate::world::sample::line;

const GUARD: Duration = Duration::from_secs(120);

struct Net {
    relay: Relay,
    nodes: Vec<UdpSocket>,
}

fn links() -> LinkConfig {
    LinkConfig { loss: Loss::Independent(0.0), ..LinkConfig::default() }
}

fn net(world: &World, links: LinkConfig) -> Net {
    let relay = Relay::start(world, links, 1).unwrap();
    let nodes: Vec<UdpSocket> = (0..world.len())
        .map(|i| {
            let node = UdpSocket::bind("127.0.0.1:0").unwrap();
            node.set_read_timeout(Some(GUARD)).unwrap();
            relay.attach(i as NodeId, node.local_addr().unwrap());
            node
        })
        .collect();
    Net { relay, nodes }
}

impl Net {
    fn send(&self, from: usize, to: usize, payload: &[u8]) {
        let to = self.relay.advertised(to as NodeId);
        self.nodes[from].send_to(payload, to).unwrap();
    }

    fn recv(&self, at: usize) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2048];
        let (len, source) = self.nodes[at].recv_from(&mut buffer).expect("a packet");
        (buffer[..len].to_vec(), source)
    }

    /// Waits until the sums of the counters fulfil a condition.
    fn until(&self, done: impl Fn(&RelayStats) -> bool) -> RelayStats {
        let start = Instant::now();
        let mut all = RelayStats::new(self.nodes.len());
        loop {
            let new = self.relay.take_stats();
            all.packets += new.packets;
            all.delivered += new.delivered;
            all.lost += new.lost;
            all.dropped_uplink += new.dropped_uplink;
            all.unknown += new.unknown;
            all.sent.iter_mut().zip(&new.sent).for_each(|(sum, more)| *sum += more);
            if done(&all) {
                return all;
            }
            assert!(start.elapsed() < GUARD, "{all:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn packets_take_the_delay_of_their_pair_and_show_the_advertised_address() {
    // 30 ms from place to place, 0.1 ms within one.
    let world = line(3, 3, 30_000_000);
    let net = net(&world, links());
    for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 1)] {
        let start = Instant::now();
        net.send(from, to, b"hello");
        let (payload, source) = net.recv(to);
        let took = start.elapsed().as_nanos() as u64;
        let delay = world.delay(from as NodeId, to as NodeId);
        assert!(took >= delay, "{from} to {to}: {took} ns, the model says {delay}");
        assert_eq!(payload, b"hello");
        assert_eq!(source, net.relay.advertised(from as NodeId), "as its record says");
        // The answer goes to the address that was seen.
        net.nodes[to].send_to(b"yes", source).unwrap();
        assert_eq!(net.recv(from), (b"yes".to_vec(), net.relay.advertised(to as NodeId)));
    }
    let stats = net.until(|stats| stats.delivered == 8);
    assert_eq!((stats.packets, stats.lost, stats.unknown), (8, 0, 0));
    assert_eq!(stats.sent.iter().sum::<u64>(), 4 * (5 + HEADERS) + 4 * (3 + HEADERS));
}

#[test]
fn a_slow_uplink_paces_and_keeps_the_order() {
    let world = line(2, 2, 0);
    // 972 + 28 bytes at 0.8 Mbit/s: 10 ms each.
    let net = net(&world, LinkConfig { uplink_bps: 800_000, ..links() });
    let start = Instant::now();
    for i in 0..20u8 {
        net.send(0, 1, &[i; 972]);
    }
    for i in 0..20 {
        assert_eq!(net.recv(1).0, [i; 972]);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(10) * u32::from(i + 1), "packet {i}: {took:?}");
    }
}

#[test]
fn what_overflows_a_queue_is_dropped_and_counted() {
    let world = line(2, 2, 0);
    // Each packet takes a hundred seconds, and the queue has room for two.
    let config = LinkConfig { uplink_bps: 80, uplink_queue: 2_000, ..links() };
    let net = net(&world, config);
    for _ in 0..50 {
        net.send(0, 1, &[0; 972]);
    }
    let stats = net.until(|stats| stats.packets == 50 && stats.dropped_uplink >= 40);
    assert!(stats.delivered <= 10, "{stats:?}");
}

#[test]
fn losses_have_their_share() {
    let world = line(2, 1, 0);
    let net = net(&world, LinkConfig { loss: Loss::Independent(0.3), ..links() });
    // Fifty at a time, of which each has its fate before the next: so no socket overflows.
    let (mut delivered, mut lost) = (0, 0);
    for _ in 0..40 {
        for _ in 0..50 {
            net.send(0, 1, b"x");
        }
        let stats = net.until(|stats| stats.delivered + stats.lost == 50);
        (0..stats.delivered).for_each(|_| drop(net.recv(1)));
        delivered += stats.delivered;
        lost += stats.lost;
    }
    assert_eq!(delivered + lost, 2_000);
    // Five standard deviations.
    assert!((497..=703).contains(&lost), "{lost} of 2,000");
}

#[test]
fn strangers_are_counted_and_dropped() {
    let world = line(2, 1, 0);
    let net = net(&world, links());
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for len in [0, 1, 1_200, 60_000] {
        stranger.send_to(&vec![7; len], net.relay.advertised(1)).unwrap();
    }
    net.until(|stats| stats.unknown == 4);
    net.send(0, 1, b"after");
    assert_eq!(net.recv(1).0, b"after", "nothing of the stranger's came before");

    // A restarted node has another address; the old one is unknown then.
    let again = UdpSocket::bind("127.0.0.1:0").unwrap();
    again.set_read_timeout(Some(GUARD)).unwrap();
    net.relay.attach(1, again.local_addr().unwrap());
    net.send(1, 0, b"old");
    net.until(|stats| stats.unknown == 1);
    net.send(0, 1, b"new");
    let mut buffer = [0; 16];
    let (len, source) = again.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], source), (&b"new"[..], net.relay.advertised(0)));
}

#[test]
fn the_same_seed_loses_the_same_packets() {
    let world = line(2, 1, 0);
    let survivors = || {
        let net = net(&world, LinkConfig { loss: Loss::Independent(0.5), ..links() });
        for i in 0..40u8 {
            net.send(0, 1, &[i]);
        }
        let stats = net.until(|stats| stats.delivered + stats.lost == 40);
        (0..stats.delivered).map(|_| net.recv(1).0[0]).collect::<Vec<_>>()
    };
    let first = survivors();
    assert!(!first.is_empty() && first.len() < 40);
    assert_eq!(first, survivors());
}

#[test]
fn packets_on_their_way_do_not_hold_up_the_end() {
    // A packet due in an hour does not delay the end, and the sockets are free afterwards.
    let world = line(2, 2, 3_600_000_000_000);
    let net = net(&world, links());
    net.send(0, 1, b"never");
    net.until(|stats| stats.packets == 1);
    let address = net.relay.advertised(1);
    drop(net);
    // Another test may have its port by now, for a while.
    let start = Instant::now();
    while let Err(error) = UdpSocket::bind(address) {
        assert!(start.elapsed() < GUARD, "the socket is not closed: {error}");
        thread::sleep(Duration::from_millis(5));
    }
}
