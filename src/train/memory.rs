//! What the process holds in memory, as the system counts it.

use std::fs;

/// Resident bytes now and at their peak; zeros where the system does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Now.
    pub now: u64,
    /// At most so far.
    pub peak: u64,
}

impl Resident {
    /// What `/proc/self/status` says (proc(5)): `VmRSS` and `VmHWM`, in kB.
    pub fn measure() -> Resident {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Resident { now: kilobytes(&status, "VmRSS:") << 10, peak: kilobytes(&status, "VmHWM:") << 10 }
    }
}

fn kilobytes(status: &str, field: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(field));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_by_name() {
        let status = "Name:\tzofo\nVmHWM:\t  2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!((kilobytes(status, "VmRSS:"), kilobytes(status, "VmHWM:")), (1024, 2048));
        assert_eq!(kilobytes(status, "VmSwap:"), 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_is_not_below_what_there_is() {
        let resident = Resident::measure();
        assert!(resident.now > 0 && resident.peak >= resident.now, "{resident:?}");
    }
}
