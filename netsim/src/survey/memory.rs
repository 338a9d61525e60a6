//! The memory that a run takes, and what the machine has.

/// Bytes that the program takes beside its nodes.
const PROGRAM: u64 = 16 << 20;

/// The bytes that a run of a message of `bytes` takes, measured with one thread on 50 to 3,000
/// nodes and 4 to 1,000 kB.
///
/// A node of fragcast is the real protocol: 64 KiB of tables, 32 bytes of what it knows of each
/// other node, and 4¼ bytes of shreds and message for each byte. Nodes of the models have no
/// content: what counts are packets on the way, at most an eighth of a byte for each byte.
pub fn of_run(nodes: usize, bytes: u32, has_fragcast: bool) -> u64 {
    let (nodes, bytes) = (nodes as u64, u64::from(bytes));
    let node = match has_fragcast {
        true => (64 << 10) + 32 * nodes + bytes * 17 / 4,
        false => (4 << 10) + bytes / 8,
    };
    PROGRAM + nodes * node
}

/// The bytes that this process may still take: what the system has and, in a container, what that
/// has left. `None` where the system does not tell.
pub fn free() -> Option<u64> {
    let system = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text))?;
    let of = |name: &str| {
        let path = format!("/sys/fs/cgroup/memory.{name}");
        std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    };
    // A container without a bound has the word `max` there.
    let container = of("max").zip(of("current")).map(|(max, used)| max.saturating_sub(used));
    Some(container.map_or(system, |left| left.min(system)))
}

/// What `/proc/meminfo` says is available, in bytes.
fn available(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_proc_is_read() {
        let text = "MemTotal:       24607788 kB\nMemAvailable:   23010020 kB\nBuffers: 0 kB\n";
        assert_eq!(available(text), Some(23_010_020 * 1_024));
        assert_eq!(available("MemTotal: 5 kB\n"), None);
        assert_eq!(available("MemAvailable: much\n"), None);
    }

    #[test]
    fn more_nodes_and_longer_messages_take_more() {
        assert!(of_run(1_000, 36_000, true) < of_run(5_000, 36_000, true));
        assert!(of_run(1_000, 36_000, true) < of_run(1_000, 1_000_000, true));
        assert!(of_run(1_000, 1_000_000, false) < of_run(1_000, 1_000_000, true) / 10);
    }
}
