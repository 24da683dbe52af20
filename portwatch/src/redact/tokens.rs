//! Secrets that are recognized by their own format, whatever their name is.

/// The least number of characters that follow, and how the secrets begin. JSON web tokens begin
/// with `eyJ`, which is the beginning of any JSON object in base64.
const FORMS: [(usize, &[&str]); 5] = [
    (10, &["xoxa-", "xoxb-", "xoxp-", "xoxr-", "xoxs-"]),
    (16, &["AKIA", "ASIA", "ABIA", "ACCA", "glpat-", "sk_live_", "rk_live_", "dckr_pat_"]),
    (17, &["eyJ"]),
    (20, &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "sk-", "hvs."]),
    (30, &["AIza", "npm_"]),
];

/// Returns how each format begins, and the least number of characters that follow.
fn forms() -> impl Iterator<Item = (&'static str, usize)> {
    FORMS.iter().flat_map(|&(least, forms)| forms.iter().map(move |&form| (form, least)))
}

/// Returns the length of the secret that `text` begins with, or `None` if it begins with none.
/// It may be called only at the beginning of a word.
pub fn length(text: &str) -> Option<usize> {
    /// Limit of the search for a digit. Words of a language contain none (`sk-learn-…`).
    const DIGIT_WITHIN: usize = 64;
    let (form, least) = forms().find(|(form, _)| text.starts_with(form))?;
    // Only a short beginning is examined before the text counts as a secret, and everything
    // examined after that is removed. So the time is proportional to the text's length,
    // whatever it contains.
    let beginning = text.as_bytes().get(..form.len() + least)?;
    let is_word = || !text.bytes().take(DIGIT_WITHIN).any(|byte| byte.is_ascii_digit());
    if !beginning.iter().all(|byte| is_part(*byte)) || (form == "sk-" && is_word()) {
        return None;
    }
    Some(text.bytes().take_while(|byte| is_part(*byte)).count())
}

/// Returns whether one of them may begin in `text`.
pub fn may_begin_in(text: &str) -> bool {
    forms().any(|(form, _)| text.contains(form))
}

/// Returns whether a byte may be in such a secret: base64, of both kinds, and the dots between
/// a token's parts.
pub fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.+/=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_have_a_length() {
        assert_eq!(length("AKIAIOSFODNN7EXAMPLE,x"), Some(20));
        assert_eq!(length("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_ "), Some(42));
        assert_eq!(length("AKIA"), None);
        assert_eq!(length("sk-learn-random-forest-server"), None);
        assert_eq!(length(""), None);
    }
}
