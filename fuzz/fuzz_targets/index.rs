//! Any text as the index of a sharded checkpoint: no accepted shard leads out of its directory.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use zofo::weights::index;

fuzz_target!(|text: &[u8]| {
    let Ok(pairs) = index::read(text) else { return };
    for (_, shard) in &pairs {
        assert_eq!(Path::new("/model").join(shard).parent(), Some(Path::new("/model")), "{shard:?}");
        assert!(!shard.contains(['/', '\\', '\0']) && shard != "..", "{shard:?}");
    }
    assert!(pairs.windows(2).all(|pair| pair[0].0 < pair[1].0));
});
