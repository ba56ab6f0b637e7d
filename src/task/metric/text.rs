//! Scores of written answers against those that are right.

use std::collections::HashMap;

/// The F1 of `SQuAD`: the harmonic mean of precision and recall over the words of a prediction and a gold answer, the best
/// of all gold answers. Words are compared as in [`exact_match`] and counted as often as they stand there.
pub fn f1(prediction: &str, golds: &[String]) -> f64 {
    let words = normalised(prediction);
    golds.iter().map(|gold| overlap(&words, &normalised(gold))).fold(0.0, f64::max)
}

fn overlap(prediction: &[String], gold: &[String]) -> f64 {
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in gold {
        *left.entry(word).or_default() += 1;
    }
    let take = |word: &&String| {
        left.get_mut(word.as_str()).is_some_and(|count| count.checked_sub(1).map(|rest| *count = rest).is_some())
    };
    let same = prediction.iter().filter(take).count();
    // 2PR / (P + R) with P = same / prediction, R = same / gold; no word in common is 0, also between two empty ones.
    if same == 0 { 0.0 } else { 2.0 * same as f64 / (prediction.len() + gold.len()) as f64 }
}

/// Whether the words of a prediction are those of a gold answer: in lower case, without punctuation, the articles `a`, `an`
/// and `the`, and repeated white space.
pub fn exact_match(prediction: &str, golds: &[String]) -> bool {
    let words = normalised(prediction);
    golds.iter().any(|gold| normalised(gold) == words)
}

/// ROUGE-1 (Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004): the harmonic mean of precision and recall
/// over the words of a prediction and a gold answer, the best of all gold answers. Words are runs of ASCII letters and
/// digits in lower case, as in the package `rouge-score` without stemming, and counted as often as they stand there.
pub fn rouge_1(prediction: &str, golds: &[String]) -> f64 {
    let prediction = alphanumeric(prediction);
    golds.iter().map(|gold| overlap(&prediction, &alphanumeric(gold))).fold(0.0, f64::max)
}

/// ROUGE-L: as [`rouge_1`], but that the words of the longest common subsequence count.
pub fn rouge_l(prediction: &str, golds: &[String]) -> f64 {
    let prediction = alphanumeric(prediction);
    let score = |gold: &String| {
        let gold = alphanumeric(gold);
        // 2PR / (P + R) with P = common / prediction, R = common / gold.
        let common = longest_common_subsequence(&prediction, &gold);
        if common == 0 { 0.0 } else { 2.0 * common as f64 / (prediction.len() + gold.len()) as f64 }
    };
    golds.iter().map(score).fold(0.0, f64::max)
}

fn alphanumeric(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect()
}

/// How many words of `a` and `b` are the same in the same order: a row of the table of all prefixes at a time.
fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (at, other) in b.iter().enumerate() {
            let above = row[at + 1];
            row[at + 1] = if word == other { diagonal + 1 } else { above.max(row[at]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

/// What announces the result of a calculation in GSM8K (Cobbe et al., 2021, arXiv:2110.14168).
const RESULT: &str = "####";

/// Whether a prediction announces the number that a gold answer does, behind the first `####`: GSM8K's own measure.
pub fn final_number(prediction: &str, golds: &[String]) -> bool {
    let found = announced(prediction);
    found.is_some() && golds.iter().any(|gold| announced(gold) == found)
}

/// The number behind the first `####`, without the commas between its thousands.
fn announced(text: &str) -> Option<String> {
    let (_, result) = text.split_once(RESULT)?;
    let inside = |c: &char| c.is_ascii_digit() || matches!(c, '-' | '.' | ',');
    let number: String = result.trim_start().chars().take_while(inside).filter(|&c| c != ',').collect();
    let number = number.trim_end_matches('.');
    number.chars().any(|c| c.is_ascii_digit()).then(|| number.to_owned())
}

/// Lower case, then without ASCII punctuation, then without articles, then words: the order of `SQuAD`'s script.
fn normalised(text: &str) -> Vec<String> {
    let text: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    // An article ends where letters, digits and underscores do, not only at white space: “the” of a quotation is one.
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let inside = |c: char| c.is_alphanumeric() || c == '_';
        let word = rest.find(|c| !inside(c)).unwrap_or(rest.len());
        let end = word + rest[word..].find(inside).unwrap_or(rest.len() - word);
        kept.push_str(if ["a", "an", "the"].contains(&&rest[..word]) { " " } else { &rest[..word] });
        kept.push_str(&rest[word..end]);
        rest = &rest[end..];
    }
    kept.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn golds(golds: &[&str]) -> Vec<String> {
        golds.iter().map(|&gold| gold.to_owned()).collect()
    }

    #[test]
    fn words_are_compared_without_case_punctuation_articles_and_repeated_spaces() {
        assert_eq!(normalised("  The  cat's “an” A-side,\tthe theatre\n"), ["cats", "“", "”", "aside", "theatre"]);
        assert!(exact_match("the Eiffel Tower.", &golds(&["Paris", "Eiffel tower"])));
        assert!(!exact_match("Eiffel", &golds(&["Eiffel tower"])));
    }

    #[test]
    fn f1_has_its_closed_form_and_takes_the_best_gold_answer() {
        // Two of three words, two of two: P = 2/3, R = 1, F1 = 4/5.
        assert_eq!(f1("big red dog", &golds(&["red dog"])), 0.8);
        assert_eq!(f1("red dog", &golds(&["blue", "Red dog!", "cat"])), 1.0);
        // A word counts as often as it stands in both: P = 1/2, R = 1.
        assert_eq!(f1("dog dog", &golds(&["dog"])), 2.0 / 3.0);
        assert_eq!(f1("cat", &golds(&["dog"])), 0.0);
        assert_eq!(f1("", &golds(&["the"])), 0.0);
    }

    #[test]
    fn rouge_has_its_closed_form_and_takes_the_best_gold_answer() {
        // "police the gunman" of three and four words: P = 1, R = 3/4.
        assert_eq!(rouge_l("Police, the gunman", &golds(&["police killed the gunman"])), 6.0 / 7.0);
        // Lin's example: the order counts, two words in common of four and four.
        assert_eq!(rouge_l("the gunman kill police", &golds(&["police killed the gunman"])), 0.5);
        // Three words in any order.
        assert_eq!(rouge_1("the gunman kill police", &golds(&["police killed the gunman"])), 0.75);
        assert_eq!(rouge_l("a-b", &golds(&["c", "A B"])), 1.0);
        assert_eq!((rouge_l("", &golds(&[""])), rouge_l("x", &golds(&["y"]))), (0.0, 0.0));
    }

    #[test]
    fn the_announced_number_counts_and_nothing_else() {
        let gold = golds(&["48 / 2 = 24\n48 + 24 = 72\n#### 1,072"]);
        for right in ["#### 1072", "so it is\n####1,072.", "#### 1072 dollars", "#### 1072\n#### 5"] {
            assert!(final_number(right, &gold), "{right}");
        }
        for wrong in ["1072", "#### 107", "#### -1072", "#### 1072.5", "#### $1072", "####", ""] {
            assert!(!final_number(wrong, &gold), "{wrong}");
        }
        assert!(!final_number("", &golds(&["no number"])));
    }

    proptest! {
        #[test]
        fn f1_is_symmetric_and_1_for_a_text_and_itself(a in "[abc ]{0,9}", b in "[abc ]{0,9}") {
            prop_assert_eq!(f1(&a, &golds(&[&b])), f1(&b, &golds(&[&a])));
            let words = normalised(&a).len();
            prop_assert_eq!(f1(&a, &golds(&[&a])), if words == 0 { 0.0 } else { 1.0 });
        }

        #[test]
        fn rouge_l_is_symmetric_at_most_1_and_1_for_a_text_and_itself(a in "[abc ]{0,9}", b in "[abc ]{0,9}") {
            let score = rouge_l(&a, &golds(&[&b]));
            prop_assert_eq!(score, rouge_l(&b, &golds(&[&a])));
            prop_assert!((0.0..=rouge_1(&a, &golds(&[&b]))).contains(&score) && score <= 1.0);
            prop_assert_eq!(rouge_l(&a, &golds(&[&a])), if alphanumeric(&a).is_empty() { 0.0 } else { 1.0 });
        }

        #[test]
        fn common_subsequences_are_as_long_as_the_longest_of_all(a in "[ab]{0,7}", b in "[ab]{0,7}") {
            let words = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
            let (a, b) = (words(&a), words(&b));
            let kept = |mask: u32| (0..a.len()).filter(move |at| mask >> at & 1 == 1);
            let is_within = |mask: u32| {
                let mut rest = b.iter();
                kept(mask).all(|at| rest.any(|word| *word == a[at]))
            };
            let longest = (0..1 << a.len()).filter(|&mask| is_within(mask)).map(u32::count_ones).max();
            prop_assert_eq!(longest, Some(longest_common_subsequence(&a, &b) as u32));
        }
    }
}
