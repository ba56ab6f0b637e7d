//! The name that was probably meant.

/// The known name nearest to `name`, whatever the case of letters, if few changes lead there: a third of its letters, at
/// least two (Levenshtein).
pub(super) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let name = name.to_lowercase();
    let limit = (name.chars().count() / 3).max(2);
    let distances = known.into_iter().map(|other| (strsim::levenshtein(&name, &other.to_lowercase()), other));
    distances.filter(|&(distance, _)| distance <= limit).min_by_key(|&(distance, _)| distance).map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_are_recognised_and_other_words_are_not() {
        let known = ["sst2", "sst5", "multirc", "record"];
        for (name, expected) in
            [("SST-2", Some("sst2")), ("mutlirc", Some("multirc")), ("records", Some("record")), ("perplexity", None)]
        {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
    }
}
