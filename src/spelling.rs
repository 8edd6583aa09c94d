//! Finds the most similar known word for a misspelt one.

/// Returns the known word that is most similar to a misspelt one, if one is.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| {
            let a = word.to_lowercase();
            let b = candidate.to_lowercase();
            (strsim::damerau_levenshtein(&a, &b), candidate)
        })
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 5)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_close() {
        let known = ["statusInterval", "statusFile", "logfile"];
        assert_eq!(nearest("statusIntervall", known), Some("statusInterval"));
        assert_eq!(nearest("logFile", known), Some("logfile"));
        assert_eq!(nearest("colour", known), None);
    }
}
