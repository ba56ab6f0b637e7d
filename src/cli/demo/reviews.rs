//! The demo's data: sentences about films, made of word lists by keyed draws, with whether they are good.

use serde::Serialize;

use crate::task::Draws;

const SUBJECTS: [&str; 12] =
    ["film", "plot", "acting", "music", "ending", "dialogue", "camera", "story", "cast", "humour", "script", "pace"];
const ADVERBS: [&str; 8] = ["truly", "rather", "quite", "simply", "always", "often", "really", "mostly"];
const BAD: [&str; 16] = [
    "dull", "weak", "clumsy", "boring", "awful", "stale", "messy", "tired", "shallow", "lifeless", "tedious", "bland",
    "silly", "hollow", "poor", "forced",
];
const GOOD: [&str; 16] = [
    "warm",
    "witty",
    "moving",
    "clever",
    "superb",
    "fresh",
    "lively",
    "honest",
    "charming",
    "gripping",
    "elegant",
    "tender",
    "vivid",
    "rich",
    "brilliant",
    "funny",
];
/// Words that are in no list.
const OTHERS: [&str; 10] = ["the", "is", "a", "with", ",", ".", "It", "was", "great", "terrible"];

/// A row of the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Review {
    pub(super) sentence: String,
    label: usize,
}

/// The words of all sentences and of the task, each once.
pub(super) fn words() -> impl Iterator<Item = &'static str> {
    OTHERS.into_iter().chain(SUBJECTS).chain(ADVERBS).chain(BAD).chain(GOOD)
}

/// `count` reviews; other seeds make others.
pub(super) fn reviews(count: u64, seed: u64) -> Vec<Review> {
    let draws = Draws::new(seed);
    (0..count).map(|number| review(&draws, number)).collect()
}

fn review(draws: &Draws, number: u64) -> Review {
    const DRAWS: u64 = 8;
    let mut next = number * DRAWS;
    let mut below = |count: usize| {
        next += 1;
        (draws.uniform(next - 1) * count as f64) as usize
    };
    let label = below(2);
    let words = [BAD, GOOD][label];
    let form = below(3);
    let [first, second] = [below(SUBJECTS.len()), below(SUBJECTS.len())].map(|at| SUBJECTS[at]);
    let adverb = ADVERBS[below(ADVERBS.len())];
    let [one, two] = [below(words.len()), below(words.len())].map(|at| words[at]);
    let sentence = match form {
        0 => format!("the {first} is {adverb} {one} ."),
        1 => format!("a {one} {first} with a {two} {second} ."),
        _ => format!("the {first} is {one} , the {second} is {adverb} {two} ."),
    };
    Review { sentence, label }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_word_is_known_and_listed_once() {
        let known: BTreeSet<&str> = words().collect();
        assert_eq!(known.len(), words().count());
        for review in reviews(200, 1) {
            assert!(review.sentence.split(' ').all(|word| known.contains(word)), "{review:?}");
        }
    }

    #[test]
    fn about_half_are_good_and_seeds_differ() {
        let good = reviews(1000, 1).iter().filter(|review| review.label == 1).count();
        // Six standard deviations of a fair coin.
        assert!(good.abs_diff(500) < 95, "{good}");
        assert_ne!(reviews(5, 1), reviews(5, 2));
    }
}
