//! Encoded examples of every objective, with tokens of the golden checkpoints: 96 of them.

use std::{path::Path, sync::Arc};

use crate::{
    task::{Encoded, Example, Input, Judge, Objective, Place, Sequence, Style, Task},
    text::Tokenizer,
};

/// The golden checkpoints with a head for `objective`.
pub fn checkpoints(objective: Objective) -> &'static [&'static str] {
    match objective {
        Objective::Options | Objective::LanguageModel => &["llama", "gpt2"],
        Objective::LabelWords => &["roberta-mlm", "bert-mlm"],
        Objective::Classifier => &["roberta-cls", "bert-cls"],
    }
}

/// The judge of `squad` for a model with the byte-level golden tokenizer.
pub fn judge() -> (Judge, Arc<Tokenizer>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text/byte_level.json");
    let json = std::fs::read(&path).expect("a golden file");
    let tokenizer = Arc::new(Tokenizer::from_json(&path, &json).expect("a tokenizer"));
    let judge = Task::named("squad", Style::Causal).expect("a task").judge(&tokenizer);
    (judge.expect("answers are written"), tokenizer)
}

/// Six examples of `objective`, of different lengths; two classes alternate, or which of two words comes next.
pub fn examples(objective: Objective) -> Vec<(Example, Encoded)> {
    let encoded = |i: u32| {
        let gold = (i % 2) as usize;
        let prompt: Vec<u32> = (0..3 + i).map(|at| [5 + 7 * i, 40 + i, 80 - 3 * i][at as usize % 3]).collect();
        let sequence = |answer: &[u32]| {
            let ids = [&prompt, answer].concat();
            Sequence { scored: prompt.len()..ids.len(), ids, dropped: 0 }
        };
        let enclosed = |inner: &[u32]| [&[0], &prompt[..], inner, &[2]].concat();
        match objective {
            Objective::Options => Encoded::Candidates {
                sequences: vec![sequence(&[11]), sequence(&[12])],
                shared: prompt.len(),
                gold: vec![gold],
            },
            Objective::LanguageModel => match i % 3 {
                0 => Encoded::Text(sequence(&[11 + i, 17, 23, 29])),
                1 => Encoded::Answer { sequence: sequence(&[12, 13]), prompt: prompt.clone() },
                _ => {
                    let sequences = vec![sequence(&[11, 12, 13]), sequence(&[11, 14])];
                    Encoded::Candidates { sequences, shared: prompt.len(), gold: vec![gold] }
                }
            },
            Objective::LabelWords => {
                let (ids, position) = (enclosed(&[94, 7]), 1 + prompt.len());
                Encoded::Mask { ids, position, words: vec![60, 8], gold, dropped: 0 }
            }
            Objective::Classifier => Encoded::Class { ids: enclosed(&[]), classes: 2, gold, dropped: 0 },
        }
    };
    let example = |i| {
        let place = Place { path: Path::new("data.jsonl").into(), line: i as usize + 1 };
        (Example { place, input: Input::Text { text: String::new() } }, encoded(i))
    };
    (0..6).map(example).collect()
}
