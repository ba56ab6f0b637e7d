//! `zofo verify`: this machine against the scalar definitions.
//!
//! Runs every kernel on fixed inputs, on every instruction set of this CPU, on one thread and on all,
//! and compares bits (contract C1). The digest hashes the outputs of the scalar definitions in the
//! order of the registry and no fact about the machine: two machines that both pass print the same
//! digest, and two that print different digests run different versions of zofo.
//!
//! To add a kernel is to add one [`Check`](check::Check) to its family's slice; to add a model family, one line in
//! `models`.

mod check;
mod derivatives;
mod displacements;
mod inputs;
mod kernels;
mod losses;
mod models;
mod numbers;
mod registry;
mod vector;

use std::{collections::BTreeSet, time::Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Exit, Failure, console::Console};
use crate::{
    kernels::Context,
    simd::{Isa, subnormals_survive},
};
use check::{Bits, Check, Claim};

/// The answer of `--json`.
#[derive(Debug, Serialize)]
struct Verdict {
    ok: bool,
    digest: String,
    isas: Vec<&'static str>,
    checks: Vec<Row>,
    version: &'static str,
    seconds: f64,
}

/// One check on one instruction set with one thread count.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    isa: &'static str,
    threads: usize,
    ok: bool,
    /// How far apart, and how far is allowed, where a check measures a distance.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<f64>,
}

/// Runs all checks: exit code 1 if any fails.
pub(super) fn run(context: &Context, console: &mut Console) -> Result<Exit, Failure> {
    let begin = Instant::now();
    // A machine with one core still splits work: two threads take turns on it.
    let threads = [1, rayon::current_num_threads().max(2)];
    let pools = threads
        .into_iter()
        .map(|n| {
            ThreadPoolBuilder::new().num_threads(n).build().map_err(|source| Failure::Threads { threads: n, source })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let isas = Isa::available();
    let mut verdict = Verdict {
        ok: true,
        digest: String::new(),
        isas: isas.iter().map(|isa| isa.name().as_str()).collect(),
        checks: subnormals(context, &pools),
        version: env!("CARGO_PKG_VERSION"),
        seconds: 0.0,
    };
    let mut digest = Sha256::new();
    let checks: Vec<&Check> = registry::CHECKS.iter().copied().flatten().collect();
    for (i, check) in checks.iter().enumerate() {
        console.progress(&format!("{}/{} {}", i + 1, checks.len(), check.name), false);
        match check.claim {
            Claim::SameBits { kernel, twin } => {
                let expected = twin();
                expected.digest_into(check.name, &mut digest);
                verdict.checks.extend(same_bits(check.name, kernel, &expected, &isas, &pools));
            }
            Claim::Agreement(measure) => {
                let agreement = measure();
                verdict.checks.push(Row {
                    error: Some(agreement.error),
                    bound: Some(agreement.bound),
                    ..Row::new(check.name, context.isa, 1, agreement.holds())
                });
            }
        }
    }
    console.clear();
    verdict.ok = verdict.checks.iter().all(|row| row.ok);
    verdict.digest = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    verdict.seconds = begin.elapsed().as_secs_f64();
    console.result(&verdict, &table(&verdict))?;
    Ok(if verdict.ok { Exit::Ok } else { Exit::Failed })
}

impl Row {
    fn new(name: &'static str, isa: Isa, threads: usize, ok: bool) -> Self {
        Row { name, isa: isa.name().as_str(), threads, ok, error: None, bound: None }
    }
}

/// Whether subnormals survive on every thread: the floating-point mode belongs to the thread.
fn subnormals(context: &Context, pools: &[ThreadPool]) -> Vec<Row> {
    let survive = |pool: &ThreadPool| pool.broadcast(|_| subnormals_survive()).into_iter().all(|ok| ok);
    let row = |pool| Row::new("subnormals", context.isa, ThreadPool::current_num_threads(pool), survive(pool));
    pools.iter().map(row).collect()
}

/// Compares `kernel` with `expected` on each instruction set and pool.
fn same_bits(
    name: &'static str,
    kernel: fn(&Context) -> Bits,
    expected: &Bits,
    isas: &[Isa],
    pools: &[ThreadPool],
) -> Vec<Row> {
    let mut rows = Vec::new();
    for &isa in isas {
        for pool in pools {
            let cx = Context::new(isa);
            let found = pool.install(|| kernel(&cx));
            rows.push(Row::new(name, isa, pool.current_num_threads(), found == *expected));
        }
    }
    rows
}

/// The table for people: a line per check, a column per instruction set, differences spelled out.
fn table(verdict: &Verdict) -> String {
    let threads: BTreeSet<usize> = verdict.checks.iter().map(|row| row.threads).collect();
    let threads: Vec<String> = threads.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "zofo {}: {} on {} threads, against the scalar definitions\n\n{:28}",
        verdict.version,
        verdict.isas.join(", "),
        threads.join(" and "),
        ""
    );
    for isa in &verdict.isas {
        text += &format!("{isa:>15}");
    }
    text.push('\n');
    for rows in verdict.checks.chunk_by(|a, b| a.name == b.name) {
        let name = rows[0].name;
        text += &format!("{name:28}");
        for isa in &verdict.isas {
            let differing: Vec<String> =
                rows.iter().filter(|row| row.isa == *isa && !row.ok).map(|row| row.threads.to_string()).collect();
            let cell = match rows.iter().find(|row| row.isa == *isa) {
                None => String::new(),
                Some(_) if !differing.is_empty() => format!("DIFFERS ({})", differing.join(",")),
                Some(Row { error: Some(error), .. }) => format!("{error:.1e}"),
                Some(_) => "same".to_owned(),
            };
            text += &format!("{cell:>15}");
        }
        text.push('\n');
    }
    let failed = verdict.checks.iter().filter(|row| !row.ok).count();
    let summary = if failed == 0 { "all agree".to_owned() } else { format!("{failed} DIFFER") };
    text +=
        &format!("\n{} checks, {summary} ({:.1} s)\ndigest {}", verdict.checks.len(), verdict.seconds, verdict.digest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_differs_on_several_threads_is_reported_with_its_threads() {
        fn kernel(_: &Context) -> Bits {
            Bits::of(&[if rayon::current_num_threads() > 1 { 1.0 } else { 0.0 }])
        }
        let pools = [1, 3].map(|n| ThreadPoolBuilder::new().num_threads(n).build().expect("a pool"));
        let rows = same_bits("broken", kernel, &Bits::of(&[0.0]), &[Isa::fastest()], &pools);
        assert_eq!(rows.iter().map(|row| (row.threads, row.ok)).collect::<Vec<_>>(), [(1, true), (3, false)]);
        let isas = vec![Isa::fastest().name().as_str()];
        let verdict = Verdict { ok: false, digest: String::new(), isas, checks: rows, version: "0", seconds: 0.0 };
        let text = table(&verdict);
        assert!(text.contains("DIFFERS (3)") && text.contains("1 DIFFER"), "{text}");
    }

    #[test]
    fn names_are_unique_and_so_are_their_places_in_the_digest() {
        let names: Vec<&str> = registry::CHECKS.iter().copied().flatten().map(|check| check.name).collect();
        let unique: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(unique.len(), names.len());
    }
}
