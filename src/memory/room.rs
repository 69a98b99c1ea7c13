//! How much memory the process has and may still take, from what Linux writes in /proc and /sys/fs/cgroup.

use std::fs;

/// Memory of the process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Resident now.
    pub(crate) resident: u64,
    /// The most that was resident since [`forget_peak`].
    pub(crate) peak: u64,
    /// What it may still take: the least of the machine's, the control group's and the process' own limit.
    pub(crate) available: u64,
}

/// None where the system does not say it.
pub(crate) fn read() -> Option<Reading> {
    let text = |path: &str| fs::read_to_string(path).ok();
    let status = text("/proc/self/status")?;
    let of_machine = kilobytes(&text("/proc/meminfo")?, "MemAvailable:")?;
    // Of version 2, then of version 1: a container sees its own group in these places.
    let groups = [
        ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"],
        [
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
            "/sys/fs/cgroup/memory/memory.stat",
        ],
    ];
    let of_groups = groups.into_iter().filter_map(|[limit, used, statistics]| {
        of_group(&text(limit)?, &text(used)?, &text(statistics).unwrap_or_default())
    });
    let of_process = text("/proc/self/limits").and_then(|limits| of_limits(&limits, &status));
    Some(Reading {
        resident: kilobytes(&status, "VmRSS:")?,
        peak: kilobytes(&status, "VmHWM:")?,
        available: of_groups.chain(of_process).fold(of_machine, u64::min),
    })
}

/// Bytes of the process that no file backs: pages of mapped files are given up when memory is short. None where the system does not say it.
pub(crate) fn private() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    // Linux before 4.5 has no such line.
    kilobytes(&status, "RssAnon:").or_else(|| kilobytes(&status, "VmRSS:"))
}

/// The peak of the process begins anew with what is resident now.
pub(crate) fn forget_peak() {
    // Where it cannot be forgotten the peak stays too high, which makes estimates larger and never smaller.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The line of `name` in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// What a control group leaves. Files that were not read lately are given up for it, so they are not counted. None without a limit.
fn of_group(limit: &str, used: &str, statistics: &str) -> Option<u64> {
    let limit: u64 = limit.trim().parse().ok()?;
    let used: u64 = used.trim().parse().ok()?;
    let idle = ["total_inactive_file ", "inactive_file "].into_iter().find_map(|name| {
        statistics.lines().find_map(|line| line.strip_prefix(name))?.trim().parse::<u64>().ok()
    });
    Some(limit.saturating_sub(used.saturating_sub(idle.unwrap_or_default())))
}

/// What the soft limits of the process' address space and data leave.
fn of_limits(limits: &str, status: &str) -> Option<u64> {
    let left = |limit: &str, used: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(limit))?;
        let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(limit.saturating_sub(kilobytes(status, used)?))
    };
    [("Max address space", "VmSize:"), ("Max data size", "VmData:")]
        .into_iter()
        .filter_map(|(limit, used)| left(limit, used))
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_leaves_its_limit_less_what_is_in_use() {
        assert_eq!(of_group("1000\n", "700\n", "anon 1\ninactive_file 200\n"), Some(500));
        assert_eq!(of_group("1000\n", "700\n", "inactive_file 1\ntotal_inactive_file 100\n"), Some(400));
        assert_eq!(of_group("1000\n", "1700\n", ""), Some(0));
        assert_eq!(of_group("max\n", "700\n", ""), None, "no limit");
    }

    #[test]
    fn the_nearest_limit_of_the_process_counts() {
        let status = "VmSize:\t 3 kB\nVmData:\t 2 kB\n";
        let limits = |space: &str, data: &str| {
            format!(
                "Max data size             {data}  unlimited  bytes\nMax address space         {space}  unlimited  bytes\n"
            )
        };
        assert_eq!(of_limits(&limits("unlimited", "unlimited"), status), None);
        assert_eq!(of_limits(&limits("10240", "unlimited"), status), Some(7 * 1024));
        assert_eq!(of_limits(&limits("10240", "4096"), status), Some(2 * 1024));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_may_take_more() {
        let reading = read().unwrap();
        assert!(reading.resident > 0 && reading.available > 0);
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        // Not against a reading before it: tests beside this one free memory meanwhile.
        assert!(private().unwrap() >= held.len() as u64);
    }
}
