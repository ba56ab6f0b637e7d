//! How many worker threads: the flag, else `RAYON_NUM_THREADS`, else one per physical core.
//!
//! A second hardware thread of a core adds nothing to code that keeps both FMA pipes busy.

use std::{collections::BTreeSet, fs, num::NonZeroUsize, thread};

use rayon::ThreadPoolBuilder;

use super::Failure;

/// Starts rayon's global pool.
pub(super) fn start(flag: Option<NonZeroUsize>) -> Result<(), Failure> {
    let named = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse::<NonZeroUsize>().ok());
    let threads = flag.or(named).map_or_else(physical_cores, NonZeroUsize::get);
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("zofo-{i}"))
        .build_global()
        .map_err(|source| Failure::Threads { threads, source })
}

/// Physical cores this process may run on; where the system does not tell, its hardware threads.
fn physical_cores() -> usize {
    // Respects the affinity mask and, on Linux, the cgroup's CPU quota.
    let hardware_threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    linux_cores().map_or(hardware_threads, |cores| cores.min(hardware_threads))
}

/// Linux: the number of different sibling sets among the CPUs of the affinity mask.
fn linux_cores() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let siblings = |cpu| fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"));
    let cores: BTreeSet<String> = cpu_list(allowed.trim())?.into_iter().map(siblings).collect::<Result<_, _>>().ok()?;
    (!cores.is_empty()).then_some(cores.len())
}

/// The kernel's list format: `0-3,8` is 0, 1, 2, 3, 8.
fn cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_cpu_lists_are_read() {
        assert_eq!(cpu_list("0-3,8"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cpu_list("5"), Some(vec![5]));
        assert_eq!(cpu_list("0-"), None);
    }

    #[test]
    fn there_is_a_physical_core_and_not_more_than_hardware_threads() {
        let hardware_threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        assert!((1..=hardware_threads).contains(&physical_cores()));
    }
}
