//! Measures how busy the machine was, from Linux's `/proc`. On other systems it is unknown.

use std::time::Duration;
#[cfg(target_os = "linux")]
use std::time::Instant;

/// Use of the machine over a period.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MachineUse {
    /// Number of processors.
    pub cores: usize,
    /// Share of all processors that was busy, with any process.
    pub busy: f64,
    /// Number of processors that the nodes kept busy.
    pub nodes: f64,
    /// Number of processors that this process, with relay and measurement, kept busy.
    pub relay: f64,
    /// UDP packets that the system dropped because the buffer of any socket was full. The links did
    /// not decide these losses.
    pub full_sockets: u64,
    /// Length of the period.
    pub over: Duration,
}

impl MachineUse {
    /// Above this share, packets wait for a processor more than for their links.
    pub const SATURATED: f64 = 0.8;

    /// Whether the processors, rather than the links, may have determined the times.
    pub fn saturated(&self) -> bool {
        self.busy > Self::SATURATED
    }
}

impl std::fmt::Display for MachineUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cores, busy, nodes, relay, full_sockets, .. } = self;
        write!(
            f,
            "{:.0} % of {cores} cores busy (nodes {nodes:.2} cores, relay and measurement \
             {relay:.2}), {full_sockets} packets dropped by full sockets",
            busy * 100.0
        )
    }
}

/// The counters at one time.
#[derive(Debug)]
pub(super) struct Counters {
    #[cfg(target_os = "linux")]
    read: Read,
}

#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Read {
    at: Instant,
    busy: u64,
    all: u64,
    nodes: u64,
    own: u64,
    full_sockets: u64,
}

impl Counters {
    /// Reads the counters for these processes.
    #[cfg(target_os = "linux")]
    pub(super) fn read(pids: &[u32]) -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let snmp = std::fs::read_to_string("/proc/net/snmp").ok()?;
        let (busy, all) = machine_ticks(&stat)?;
        let ticks = |pid: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            process_ticks(&stat)
        };
        let nodes = pids.iter().filter_map(|pid| ticks(&pid.to_string())).sum();
        let own = ticks("self")?;
        let full_sockets = udp_counter(&snmp, "RcvbufErrors")?;
        let at = Instant::now();
        Some(Self { read: Read { at, busy, all, nodes, own, full_sockets } })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn read(_pids: &[u32]) -> Option<Self> {
        None
    }

    /// The use from `self` until `later`.
    #[cfg(target_os = "linux")]
    pub(super) fn until(&self, later: &Self) -> MachineUse {
        let (from, to) = (&self.read, &later.read);
        let over = to.at.duration_since(from.at);
        let tick = rustix::param::clock_ticks_per_second().max(1) as f64;
        let cores = |ticks: u64| ticks as f64 / tick / over.as_secs_f64().max(1e-3);
        MachineUse {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            // Linux's counter of waiting for disks may go back, so that more was busy than passed.
            busy: (to.busy.saturating_sub(from.busy) as f64
                / to.all.saturating_sub(from.all).max(1) as f64)
                .min(1.0),
            nodes: cores(to.nodes.saturating_sub(from.nodes)),
            relay: cores(to.own.saturating_sub(from.own)),
            full_sockets: to.full_sockets.saturating_sub(from.full_sockets),
            over,
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn until(&self, _later: &Self) -> MachineUse {
        let (cores, over) = (1, Duration::ZERO);
        MachineUse { cores, busy: 0.0, nodes: 0.0, relay: 0.0, full_sockets: 0, over }
    }
}

/// Busy ticks and all ticks of the line `cpu`: user nice system idle iowait irq softirq steal.
#[cfg(target_os = "linux")]
fn machine_ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // Guest time, which follows, is part of user time.
    let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|t| t.parse().ok()).collect();
    let all: u64 = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((all.saturating_sub(idle), all))
}

/// User and system ticks of a process: the 14th and 15th field. The second is a name in
/// brackets, which may itself have spaces and brackets.
#[cfg(target_os = "linux")]
fn process_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// A counter of the two lines `Udp:`, names and values.
#[cfg(target_os = "linux")]
fn udp_counter(snmp: &str, name: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let at = lines.next()?.split_whitespace().position(|field| field == name)?;
    lines.next()?.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_proc_are_read() {
        let stat = "cpu  10 1 5 80 4 0 2 3 9 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(machine_ticks(stat), Some((21, 105)));
        assert_eq!(machine_ticks("intr 5"), None);
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 31 11 0 0 20 0 4 0 99 1 1";
        assert_eq!(process_ticks(stat), Some(42));
        assert_eq!(process_ticks("7 nonsense"), None);
        let snmp = "Tcp: a\nTcp: 5\nUdp: InDatagrams RcvbufErrors X\nUdp: 7 8 9\nUdpLite: a\n";
        assert_eq!(udp_counter(snmp, "RcvbufErrors"), Some(8));
        assert_eq!(udp_counter(snmp, "Other"), None);
    }

    #[test]
    fn what_this_process_uses_is_seen() {
        let before = Counters::read(&[std::process::id()]).unwrap();
        // Two ticks at least, however slow the machine: until the counters show them.
        let mut after = Counters::read(&[std::process::id()]).unwrap();
        while after.read.own < before.read.own + 2 {
            std::hint::black_box(blake3::hash(&[7; 4096]));
            after = Counters::read(&[std::process::id()]).unwrap();
        }
        let used = before.until(&after);
        // The machine's counters may lag behind the process's.
        assert!(used.relay > 0.0 && used.nodes > 0.0, "{used}");
        assert!((0.0..=1.0).contains(&used.busy) && used.cores >= 1, "{used}");
    }
}
