//! Numbers of the process, of the disk, and of the build.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::serve::state::NodeState;

impl NodeState {
    /// Copies them.
    pub(super) fn host_metrics(&self) {
        let metrics = &self.metrics;
        let chain = self.network.chain_id.to_string();
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("chain_id", &*chain)];
        metrics.info("fragcast_build_info", &labels);
        let ready = f64::from(u8::from(self.not_ready().is_none()));
        metrics.gauge("fragcast_ready", None, ready);
        let unix = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        metrics.gauge("fragcast_start_timestamp_seconds", None, unix(self.started));
        if self.chain.is_some() {
            let lacking = self.lacking_forks();
            metrics.gauge("fragcast_forks_lacking", None, lacking.len() as f64);
            let first = lacking.iter().min().copied().unwrap_or(0) as f64;
            metrics.gauge("fragcast_fork_lacking_timestamp_seconds", None, first);
        }
        if let Some(room) = self.disk_room() {
            metrics.gauge("fragcast_disk_free_bytes", None, room as f64);
        }
        #[cfg(target_os = "linux")]
        if let Some(process) = process::read() {
            metrics.seconds("process_cpu_seconds_total", None, process.cpu);
            metrics.gauge("process_start_time_seconds", None, process.started);
            metrics.gauge("process_resident_memory_bytes", None, process.resident as f64);
            metrics.gauge("process_open_fds", None, process.open_fds as f64);
            metrics.gauge("process_max_fds", None, process.max_fds as f64);
        }
    }

    /// When the forks begin that this build lacks, in Unix seconds.
    pub(crate) fn lacking_forks(&self) -> Vec<u64> {
        let lacking = self.chain.iter().flat_map(|chain| chain.lacking());
        lacking.map(|(time, _)| *time).chain(self.experiments.fork.get()).collect()
    }

    /// Room that is left for this process on the disk of the database.
    pub(crate) fn disk_room(&self) -> Option<u64> {
        let path = self.store.as_ref()?.path()?;
        self.experiments.room.get().or_else(|| room(path))
    }
}

#[cfg(target_os = "linux")]
fn room(path: &std::path::Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

#[cfg(not(target_os = "linux"))]
fn room(_: &std::path::Path) -> Option<u64> {
    None
}

/// What `/proc` says of this process, under the names that Prometheus' own libraries use.
#[cfg(target_os = "linux")]
mod process {
    use std::fs;
    use std::time::Duration;

    pub(super) struct Process {
        pub(super) cpu: Duration,
        /// Unix seconds.
        pub(super) started: f64,
        pub(super) resident: u64,
        pub(super) open_fds: usize,
        pub(super) max_fds: u64,
    }

    pub(super) fn read() -> Option<Process> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The program's name, in brackets, may contain anything.
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()?
            .split_ascii_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        // The third field of the manual's counting comes first here.
        let field = |number: usize| fields.get(number - 3).copied();
        let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
        let boot: f64 = boot.trim().parse().ok()?;
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        let pages = field(24)?;
        Some(Process {
            cpu: Duration::from_secs_f64((field(14)? + field(15)?) as f64 / ticks),
            started: boot + field(22)? as f64 / ticks,
            resident: pages.saturating_mul(rustix::param::page_size() as u64),
            open_fds: fs::read_dir("/proc/self/fd").ok()?.count(),
            max_fds: files.split_ascii_whitespace().next()?.parse().unwrap_or(u64::MAX),
        })
    }
}
