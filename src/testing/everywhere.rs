//! The grid that contract C1 quantifies over: every instruction set of this CPU × several thread counts.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{kernels::Context, simd::Isa};

/// One thread, an even split, and two counts that divide no usual shape.
pub const THREAD_COUNTS: [usize; 4] = [1, 2, 3, 5];

/// Runs `work` in a rayon pool of `threads` threads. Pools are kept: property tests come here thousands of times.
///
/// # Panics
/// If the pool cannot be started, or if `work` panics.
pub fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    static POOLS: Mutex<BTreeMap<usize, Arc<ThreadPool>>> = Mutex::new(BTreeMap::new());
    let pool = {
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || ThreadPoolBuilder::new().num_threads(threads).build().expect("threads for a test");
        Arc::clone(pools.entry(threads).or_insert_with(|| Arc::new(start())))
    };
    pool.install(work)
}

/// Runs `check` for every available instruction set on 1, 2, 3 and 5 threads. It gets a fresh context and a
/// label for its messages, such as `avx2, 3 threads`.
pub fn everywhere(check: impl Fn(&Context, &str) + Sync) {
    for isa in Isa::available() {
        for threads in THREAD_COUNTS {
            let label = format!("{isa}, {threads} threads");
            on_threads(threads, || check(&Context::new(isa), &label));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_in_a_pool_of_the_asked_size() {
        for threads in THREAD_COUNTS {
            assert_eq!(on_threads(threads, rayon::current_num_threads), threads);
        }
    }

    #[test]
    fn the_grid_is_complete() {
        let seen = Mutex::new(Vec::new());
        everywhere(|cx, _| seen.lock().unwrap().push((cx.isa, rayon::current_num_threads())));
        assert_eq!(seen.into_inner().unwrap().len(), Isa::available().len() * THREAD_COUNTS.len());
    }
}
